//! The token rewrite: what the parser's grammar lacks becomes table hints, and a text becomes its statements.
//!
//! `FROM a TIMESTAMP BY e OVER k` becomes `FROM a WITH (__timestamp_by(e), __over(k))`. Every token keeps its span in the text
//! as written, so an error points there.

use sqlparser::{
    ast::Query,
    dialect::MsSqlDialect,
    keywords::Keyword,
    parser::{Parser, ParserError},
    tokenizer::{Token, TokenWithSpan, Tokenizer},
};

use super::{
    error::{Position, QueryError},
    functions,
};

/// Longest text, in bytes. A query is written by a person.
const MAX_TEXT: usize = 65_536;
/// Most tokens. It bounds the depth of a chain of operators, which the parser turns into a tree of that depth.
const MAX_TOKENS: usize = 3_000;
/// Deepest nesting of parentheses and CASE; the parser goes back and forth on each level.
const MAX_DEPTH: usize = 16;

pub(crate) const TIMESTAMP_BY: &str = "__timestamp_by";
pub(crate) const OVER: &str = "__over";
pub(crate) const PARTITION_BY: &str = "__partition_by";

/// Parses a text into its statements.
pub(crate) fn statements(text: &str) -> Result<Vec<Query>, QueryError> {
    let tokens = tokenize(text)?;
    let end = end_of(text);
    let statements: Result<Vec<Query>, QueryError> =
        split(tokens).into_iter().map(|s| statement(hints(&s)?, end)).collect();
    match statements {
        Ok(found) if found.is_empty() => {
            Err(QueryError::new(Position::START, "the query is empty").hint("write SELECT … FROM …"))
        }
        other => other,
    }
}

fn tokenize(text: &str) -> Result<Vec<TokenWithSpan>, QueryError> {
    if text.len() > MAX_TEXT {
        return Err(QueryError::new(Position::START, format!("the query is longer than {MAX_TEXT} bytes")));
    }
    let tokens = Tokenizer::new(&MsSqlDialect {}, text).tokenize_with_location().map_err(|e| {
        let at = Position { line: e.location.line.max(1), column: e.location.column.max(1) };
        QueryError::new(at, format!("the text cannot be read: {}", e.message))
    })?;
    let tokens: Vec<TokenWithSpan> =
        tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_) | Token::EOF)).collect();
    check_size(&tokens)?;
    check_analytic(&tokens)?;
    Ok(tokens)
}

fn check_size(tokens: &[TokenWithSpan]) -> Result<(), QueryError> {
    if let Some(token) = tokens.get(MAX_TOKENS) {
        return Err(QueryError::new(position(token), format!("the query has more than {MAX_TOKENS} words and signs")));
    }
    let mut depth = 0_usize;
    let mut signs = 0_usize;
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            _ if is(token, Keyword::CASE) => depth += 1,
            _ if is(token, Keyword::END) => depth = depth.saturating_sub(1),
            _ => {}
        }
        signs = if is_prefix(token) { signs + 1 } else { 0 };
        if depth.max(signs) > MAX_DEPTH {
            return Err(QueryError::new(
                position(token),
                format!("the query is nested deeper than {MAX_DEPTH} levels"),
            )
            .hint("move an inner part into a step of WITH"));
        }
    }
    Ok(())
}

/// `OVER (… LIMIT DURATION …)` is not in the parser's grammar; its function is refused by name.
fn check_analytic(tokens: &[TokenWithSpan]) -> Result<(), QueryError> {
    let named =
        |t: &TokenWithSpan, name: &str| matches!(&t.token, Token::Word(w) if w.value.eq_ignore_ascii_case(name));
    let Some(at) = tokens.windows(2).position(|w| named(&w[0], "LIMIT") && named(&w[1], "DURATION")) else {
        return Ok(());
    };
    let call = tokens[..at]
        .windows(2)
        .rfind(|w| w[1].token == Token::LParen && matches!(&w[0].token, Token::Word(w) if w.keyword != Keyword::OVER));
    let (token, name) =
        call.map_or((&tokens[at], "OVER".to_owned()), |c| (&c[0], c[0].token.to_string().to_ascii_uppercase()));
    let at = position(token);
    match functions::refused(&name) {
        Some(hint) => Err(QueryError::new(at, format!("{name} is not supported")).hint(hint)),
        None => Err(QueryError::new(at, format!("{name} as an analytic function is not supported"))
            .hint("leave LIMIT DURATION out and use GROUP BY with a window")),
    }
}

/// Operators of one operand nest without parentheses.
fn is_prefix(token: &TokenWithSpan) -> bool {
    matches!(token.token, Token::Minus | Token::Plus | Token::Tilde) || is(token, Keyword::NOT)
}

/// Statements need no semicolon between them: a SELECT that is not the next of a UNION starts one.
fn split(tokens: Vec<TokenWithSpan>) -> Vec<Vec<TokenWithSpan>> {
    let mut statements: Vec<Vec<TokenWithSpan>> = vec![Vec::new()];
    let (mut depth, mut selected) = (0_usize, false);
    for token in tokens {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 && token.token == Token::SemiColon {
            statements.push(Vec::new());
            selected = false;
            continue;
        }
        let joined = statements.last().and_then(|s| s.last()).is_some_and(continues);
        if depth == 0 && is(&token, Keyword::SELECT) {
            if selected && !joined {
                statements.push(Vec::new());
            }
            selected = true;
        }
        if let Some(statement) = statements.last_mut() {
            statement.push(token);
        }
    }
    statements.retain(|s| !s.is_empty());
    statements
}

fn continues(token: &TokenWithSpan) -> bool {
    [Keyword::UNION, Keyword::ALL, Keyword::DISTINCT, Keyword::EXCEPT, Keyword::INTERSECT].iter().any(|k| is(token, *k))
}

/// Turns the clauses after FROM into table hints.
fn hints(tokens: &[TokenWithSpan]) -> Result<Vec<TokenWithSpan>, QueryError> {
    let mut out = Vec::with_capacity(tokens.len() + 8);
    let mut at = 0;
    while at < tokens.len() {
        if clause(tokens, at).is_none() {
            out.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let here = tokens[at].clone();
        out.push(like(&here, Token::make_keyword("WITH")));
        out.push(like(&here, Token::LParen));
        let mut first = true;
        while let Some((name, skip)) = clause(tokens, at).or_else(|| over(tokens, at, first)) {
            if !first {
                out.push(like(&here, Token::Comma));
            }
            first = false;
            let end = end_of_clause(tokens, at + skip, name == OVER);
            if let Some(alias) = tokens.get(end).filter(|t| is(t, Keyword::AS)) {
                return Err(QueryError::new(position(alias), "an alias stands before TIMESTAMP BY")
                    .hint("FROM input AS i TIMESTAMP BY i.time"));
            }
            let spot = tokens[at].clone();
            out.push(like(&spot, Token::make_word(name, None)));
            out.push(like(&spot, Token::LParen));
            out.extend_from_slice(&tokens[at + skip..end]);
            out.push(like(&spot, Token::RParen));
            at = end;
        }
        out.push(like(&here, Token::RParen));
    }
    Ok(out)
}

fn like(token: &TokenWithSpan, new: Token) -> TokenWithSpan {
    TokenWithSpan { token: new, span: token.span }
}

/// The clause that starts here, and how many tokens introduce it.
fn clause(tokens: &[TokenWithSpan], at: usize) -> Option<(&'static str, usize)> {
    let followed_by_by = tokens.get(at + 1).is_some_and(|t| is(t, Keyword::BY));
    let inside = at > 0 && matches!(tokens[at - 1].token, Token::LParen | Token::Comma);
    if at == 0 || inside || !followed_by_by {
        return None;
    }
    match &tokens[at] {
        t if is(t, Keyword::TIMESTAMP) => Some((TIMESTAMP_BY, 2)),
        t if is(t, Keyword::PARTITION) => Some((PARTITION_BY, 2)),
        _ => None,
    }
}

fn over(tokens: &[TokenWithSpan], at: usize, first: bool) -> Option<(&'static str, usize)> {
    (!first && tokens.get(at).is_some_and(|t| is(t, Keyword::OVER))).then_some((OVER, 1))
}

const ENDS: &[Keyword] = &[
    Keyword::WHERE,
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::CROSS,
    Keyword::OUTER,
    Keyword::JOIN,
    Keyword::INNER,
    Keyword::LEFT,
    Keyword::RIGHT,
    Keyword::FULL,
    Keyword::UNION,
    Keyword::INTO,
    Keyword::SELECT,
    Keyword::ORDER,
    Keyword::OVER,
    Keyword::MATCH_RECOGNIZE,
    Keyword::WITH,
    Keyword::AS,
];

fn end_of_clause(tokens: &[TokenWithSpan], from: usize, list: bool) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return at,
            Token::RParen => depth -= 1,
            Token::Comma if depth == 0 && !list => return at,
            _ => {
                // LEFT and RIGHT are functions where a parenthesis follows.
                let call = tokens.get(at + 1).is_some_and(|t| t.token == Token::LParen);
                let function = call && (is(token, Keyword::LEFT) || is(token, Keyword::RIGHT));
                let ends = ENDS.iter().any(|k| is(token, *k)) && !function;
                if depth == 0 && (ends || (at > from && clause(tokens, at).is_some())) {
                    return at;
                }
            }
        }
    }
    tokens.len()
}

fn statement(tokens: Vec<TokenWithSpan>, end: Position) -> Result<Query, QueryError> {
    let dialect = MsSqlDialect {};
    let start = tokens.first().map_or(Position::START, position);
    if !tokens.first().is_some_and(|t| is(t, Keyword::SELECT) || is(t, Keyword::WITH)) {
        let error = QueryError::new(start, "a query starts with SELECT or WITH");
        return Err(match tokens.first() {
            Some(t) if is(t, Keyword::CREATE) => {
                error.hint("CREATE TABLE is not there: CAST(x AS type) where x is read")
            }
            _ => error,
        });
    }
    let mut parser = Parser::new(&dialect).with_tokens_with_locations(tokens);
    let query = parser.parse_query().map_err(|e| parse_error(&e, parser.peek_token_ref(), end))?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(QueryError::new(position(&rest), format!("unexpected {}", rest.token)));
    }
    Ok(*query)
}

fn parse_error(error: &ParserError, next: &TokenWithSpan, end: Position) -> QueryError {
    match error {
        ParserError::RecursionLimitExceeded => {
            QueryError::new(position_or(next, end), "the query is nested too deeply")
        }
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            let (message, at) = message.split_once(" at Line: ").unwrap_or((message, ""));
            let message = message
                .replace("No infix parser for token", "unexpected sign")
                .replace("__timestamp_by", "TIMESTAMP BY")
                .replace("__partition_by", "PARTITION BY")
                .replace("__over", "OVER");
            QueryError::new(location(at).unwrap_or_else(|| position_or(next, end)), message)
        }
    }
}

/// Reads `12, Column: 7`.
fn location(text: &str) -> Option<Position> {
    let (line, column) = text.split_once(", Column: ")?;
    let at = Position { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? };
    (at.line > 0 && at.column > 0).then_some(at)
}

fn position_or(token: &TokenWithSpan, end: Position) -> Position {
    if token.token == Token::EOF { end } else { Position::of(token.span, end) }
}

fn position(token: &TokenWithSpan) -> Position {
    Position::of(token.span, Position::START)
}

fn is(token: &TokenWithSpan, keyword: Keyword) -> bool {
    matches!(&token.token, Token::Word(w) if w.quote_style.is_none() && w.keyword == keyword)
}

/// Just after the last character that is not blank.
fn end_of(text: &str) -> Position {
    let text = text.trim_end();
    let line = text.matches('\n').count() as u64 + 1;
    let column = text.rsplit('\n').next().map_or(0, |l| l.chars().count()) as u64 + 1;
    Position { line, column }
}
