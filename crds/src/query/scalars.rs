//! Scalar expressions.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DataType, DateTimeField, Expr as Ast,
    Function as Call, Ident, InTarget, Spanned, UnaryOperator, WindowType,
};

use super::{
    Function, aggregates,
    calls::{arguments, function_name, unit},
    error::{Position, QueryError},
    functions::{self, Signature},
    literals::{data_type, is_least, literal, no_truth, operator},
    plan::{Aggregate, BinaryOp, Expr, Literal, UnaryOp},
    refusals::{refused, unknown_function, unknown_operator},
    scope::{Fields, Scope, is_timestamp},
    windows,
};

/// Words of the language that the parser takes for columns where it expects one, and that stand there only by mistake.
const RESERVED: [&str; 28] = [
    "AND", "AS", "BETWEEN", "BY", "CASE", "CROSS", "DISTINCT", "ELSE", "END", "FROM", "GROUP", "HAVING", "IN", "INTO",
    "IS", "JOIN", "LIKE", "NOT", "NULL", "ON", "OR", "ORDER", "OVER", "SELECT", "THEN", "UNION", "WHEN", "WHERE",
];

/// Where in a SELECT an expression stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// WHERE, GROUP BY, a projection without groups, the argument of an aggregate.
    Row,
    /// HAVING or the projection of groups.
    Group,
}

/// Turns the expressions of one SELECT into typed ones.
pub(crate) struct Lowering<'a> {
    pub(crate) fields: &'a mut Fields,
    pub(crate) scope: &'a Scope,
    pub(crate) place: Place,
    pub(crate) keys: Vec<Expr>,
    pub(crate) aggregates: Vec<Aggregate>,
}

impl Lowering<'_> {
    /// A condition: WHERE, HAVING, WHEN.
    pub(crate) fn condition(&mut self, ast: &Ast, at: Position) -> Result<Expr, QueryError> {
        let expr = self.expr(ast, at)?;
        if matches!(expr, Expr::Literal(_)) || is_arithmetic(&expr) {
            return Err(QueryError::new(Position::of(ast.span(), at), "a condition is needed here, not a value")
                .hint("compare it: x = 1"));
        }
        Ok(expr)
    }

    /// A value: a column of the projection, a key.
    pub(crate) fn value(&mut self, ast: &Ast, at: Position) -> Result<Expr, QueryError> {
        let expr = self.expr(ast, at)?;
        if is_condition(&expr) {
            return Err(QueryError::new(Position::of(ast.span(), at), "a condition is not a value")
                .hint("CASE WHEN … THEN 1 ELSE 0 END"));
        }
        Ok(expr)
    }

    pub(crate) fn expr(&mut self, ast: &Ast, at: Position) -> Result<Expr, QueryError> {
        let at = Position::of(ast.span(), at);
        if self.place == Place::Group
            && let Some(key) = self.key(ast, at)
        {
            return Ok(Expr::Key(key));
        }
        match ast {
            Ast::Nested(inner) => self.expr(inner, at),
            Ast::Value(value) => literal(&value.value, at).map(Expr::Literal),
            Ast::Identifier(name) => self.name(std::slice::from_ref(name), at),
            Ast::CompoundIdentifier(parts) => self.name(parts, at),
            Ast::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain, at),
            Ast::UnaryOp { op, expr } => self.unary(*op, expr, at),
            Ast::BinaryOp { left, op, right } => self.binary(left, op, right, at),
            Ast::IsNull(e) => Ok(Expr::IsNull(Box::new(self.expr(e, at)?))),
            Ast::IsNotNull(e) => Ok(not(Expr::IsNull(Box::new(self.expr(e, at)?)))),
            Ast::In { expr, target: InTarget::List(list), negated, .. } => self.list(expr, list, *negated, at),
            Ast::Between { expr, negated, low, high } => self.between(expr, low, high, *negated, at),
            Ast::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like(expr, pattern, escape_char.as_deref(), *negated, at)
            }
            Ast::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref(), at)
            }
            Ast::Cast { kind, expr, data_type, format: None } => self.cast(kind, expr, data_type, at),
            Ast::Ceil { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                self.call_of(Function::Ceiling, &[expr], at)
            }
            Ast::Floor { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                self.call_of(Function::Floor, &[expr], at)
            }
            Ast::Substring { expr, substring_from: Some(from), substring_for: Some(count), special: true, .. } => {
                self.call_of(Function::Substring, &[expr, from, count], at)
            }
            Ast::Trim { trim_where: None, trim_what: None, expr, trim_characters: None } => {
                self.call_of(Function::Trim, &[expr], at)
            }
            Ast::Function(call) => self.function(call, at),
            other => Err(refused(other, at)),
        }
    }

    /// The key of GROUP BY that the expression is.
    fn key(&mut self, ast: &Ast, at: Position) -> Option<usize> {
        self.place = Place::Row;
        let found = self.expr(ast, at);
        self.place = Place::Group;
        let found = found.ok()?;
        self.keys.iter().position(|k| *k == found)
    }

    fn name(&mut self, parts: &[Ident], at: Position) -> Result<Expr, QueryError> {
        if let [word] = parts
            && word.quote_style.is_none()
            && ["TRUE", "FALSE"].iter().any(|w| word.value.eq_ignore_ascii_case(w))
        {
            return Err(no_truth(at));
        }
        if let Some(word) = parts.first()
            && word.quote_style.is_none()
            && RESERVED.iter().any(|w| word.value.eq_ignore_ascii_case(w))
        {
            return Err(QueryError::new(Position::of(word.span, at), format!("unexpected {}", word.value))
                .hint(format!("a column of that name is [{}]", word.value)));
        }
        let resolved = self.scope.resolve(self.fields, parts, at)?;
        if self.place == Place::Group && resolved != Expr::Timestamp {
            let name = parts.iter().map(|p| p.value.as_str()).collect::<Vec<_>>().join(".");
            return Err(QueryError::new(at, format!("column {name} is neither in GROUP BY nor in an aggregate"))
                .hint("add it to GROUP BY, or take MIN, MAX or TOPONE of it"));
        }
        Ok(resolved)
    }

    fn access(&mut self, root: &Ast, chain: &[AccessExpr], at: Position) -> Result<Expr, QueryError> {
        if let (Ast::Function(call), [AccessExpr::Dot(Ast::Identifier(field))]) = (root, chain)
            && function_name(call) == "SYSTEM.WINDOW"
        {
            return self.window_id(&field.value, at);
        }
        if let (
            Ast::Identifier(system),
            [AccessExpr::Dot(Ast::Function(call)), AccessExpr::Dot(Ast::Identifier(field))],
        ) = (root, chain)
            && system.value.eq_ignore_ascii_case("System")
            && function_name(call) == "WINDOW"
        {
            return self.window_id(&field.value, at);
        }
        let mut expr = self.expr(root, at)?;
        for access in chain {
            match access {
                AccessExpr::Dot(Ast::Identifier(field)) => expr = Expr::Member(Box::new(expr), field.value.clone()),
                AccessExpr::Dot(_) => return Err(QueryError::new(at, "a field is accessed by its name")),
                AccessExpr::Subscript(_) => {
                    return Err(
                        QueryError::new(at, "brackets do not index an array").hint("GetArrayElement(array, index)")
                    );
                }
            }
        }
        Ok(expr)
    }

    fn window_id(&self, field: &str, at: Position) -> Result<Expr, QueryError> {
        if !field.eq_ignore_ascii_case("Id") {
            return Err(QueryError::new(at, format!("a window has no {field}"))
                .hint("System.Window().Id; System.Timestamp() is its end"));
        }
        if self.place != Place::Group {
            return Err(QueryError::new(at, "System.Window() needs GROUP BY with a window"));
        }
        Ok(Expr::WindowId)
    }

    fn unary(&mut self, op: UnaryOperator, operand: &Ast, at: Position) -> Result<Expr, QueryError> {
        let op = match op {
            UnaryOperator::Plus => return self.expr(operand, at),
            UnaryOperator::Not => return Ok(not(self.condition(operand, at)?)),
            UnaryOperator::Minus => {
                if let Some(n) = windows::integer(operand).and_then(i64::checked_neg) {
                    return Ok(Expr::Literal(Literal::BigInt(n)));
                }
                if is_least(operand) {
                    return Ok(Expr::Literal(Literal::BigInt(i64::MIN)));
                }
                UnaryOp::Negate
            }
            UnaryOperator::BitwiseNot => UnaryOp::BitNot,
            other => return Err(QueryError::new(at, format!("the operator {other} is not supported"))),
        };
        let operand = self.expr(operand, at)?;
        number_or_unknown(&operand, at)?;
        Ok(Expr::Unary(op, Box::new(operand)))
    }

    fn binary(&mut self, left: &Ast, op: &BinaryOperator, right: &Ast, at: Position) -> Result<Expr, QueryError> {
        let op = operator(op).ok_or_else(|| unknown_operator(op, at))?;
        let logical = matches!(op, BinaryOp::And | BinaryOp::Or);
        let (l, r) = if logical {
            (self.condition(left, at)?, self.condition(right, at)?)
        } else {
            (self.value(left, at)?, self.value(right, at)?)
        };
        if is_arithmetic_op(op) && op != BinaryOp::Add {
            number_or_unknown(&l, Position::of(left.span(), at))?;
            number_or_unknown(&r, Position::of(right.span(), at))?;
        }
        if op == BinaryOp::Divide && matches!(r, Expr::Literal(Literal::BigInt(0))) {
            return Err(QueryError::new(Position::of(right.span(), at), "division by zero"));
        }
        Ok(Expr::Binary(op, Box::new(l), Box::new(r)))
    }

    fn list(&mut self, expr: &Ast, list: &[Ast], negated: bool, at: Position) -> Result<Expr, QueryError> {
        let expr = self.value(expr, at)?;
        let list = list.iter().map(|e| self.value(e, at)).collect::<Result<_, _>>()?;
        Ok(negate_if(negated, Expr::In(Box::new(expr), list)))
    }

    fn between(&mut self, expr: &Ast, low: &Ast, high: &Ast, negated: bool, at: Position) -> Result<Expr, QueryError> {
        let value = self.value(expr, at)?;
        let low = self.value(low, at)?;
        let high = self.value(high, at)?;
        let from = Expr::Binary(BinaryOp::GreaterEqual, Box::new(value.clone()), Box::new(low));
        let to = Expr::Binary(BinaryOp::LessEqual, Box::new(value), Box::new(high));
        Ok(negate_if(negated, Expr::Binary(BinaryOp::And, Box::new(from), Box::new(to))))
    }

    fn like(
        &mut self,
        expr: &Ast,
        pattern: &Ast,
        escape: Option<&Ast>,
        negated: bool,
        at: Position,
    ) -> Result<Expr, QueryError> {
        let escape = match escape {
            None => None,
            Some(ast) => {
                let here = Position::of(ast.span(), at);
                let text = windows::text(ast).unwrap_or_default();
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(c), None) => Some(c),
                    _ => return Err(QueryError::new(here, "ESCAPE takes one character").hint("LIKE '50!%' ESCAPE '!'")),
                }
            }
        };
        let value = self.value(expr, at)?;
        let pattern = self.value(pattern, at)?;
        Ok(negate_if(negated, Expr::Like(Box::new(value), Box::new(pattern), escape)))
    }

    fn case(
        &mut self,
        operand: Option<&Ast>,
        whens: &[CaseWhen],
        otherwise: Option<&Ast>,
        at: Position,
    ) -> Result<Expr, QueryError> {
        let operand = operand.map(|o| self.value(o, at)).transpose()?;
        let mut branches = Vec::new();
        for when in whens {
            let condition = match &operand {
                Some(operand) => {
                    let value = self.value(&when.condition, at)?;
                    Expr::Binary(BinaryOp::Equal, Box::new(operand.clone()), Box::new(value))
                }
                None => self.condition(&when.condition, at)?,
            };
            branches.push((condition, self.value(&when.result, at)?));
        }
        let otherwise = otherwise.map(|o| self.value(o, at)).transpose()?;
        Ok(Expr::Case(branches, otherwise.map(Box::new)))
    }

    fn cast(&mut self, kind: &CastKind, expr: &Ast, to: &DataType, at: Position) -> Result<Expr, QueryError> {
        let safe = match kind {
            CastKind::Cast => false,
            CastKind::TryCast => true,
            CastKind::SafeCast | CastKind::DoubleColon => {
                return Err(QueryError::new(at, "this form of a cast is not supported")
                    .hint("CAST(x AS type) or TRY_CAST(x AS type)"));
            }
        };
        let to = data_type(to, at)?;
        Ok(Expr::Cast(Box::new(self.value(expr, at)?), to, safe))
    }

    pub(crate) fn call_of(&mut self, function: Function, args: &[&Ast], at: Position) -> Result<Expr, QueryError> {
        let args = args.iter().map(|a| self.value(a, at)).collect::<Result<_, _>>()?;
        Ok(Expr::Call(function, args))
    }

    fn function(&mut self, call: &Call, at: Position) -> Result<Expr, QueryError> {
        let name = function_name(call);
        match name.as_str() {
            "SYSTEM.TIMESTAMP" => {
                return if arguments(call, at)?.is_empty() {
                    Ok(Expr::Timestamp)
                } else {
                    Err(QueryError::new(at, "System.Timestamp() takes no arguments"))
                };
            }
            "SYSTEM.WINDOW" => return Err(QueryError::new(at, "a window is not a value").hint("System.Window().Id")),
            _ => {}
        }
        if aggregates::is_aggregate(&name) {
            return aggregates::lower(self, call, &name, at);
        }
        if windows::is_window(&name) || name == "WINDOW" {
            return Err(QueryError::new(at, format!("{name} belongs into GROUP BY")));
        }
        match functions::find(&name) {
            Some(signature) => self.scalar(signature, call, at),
            None => Err(unknown_function(&name, at)),
        }
    }

    fn scalar(&mut self, signature: &Signature, call: &Call, at: Position) -> Result<Expr, QueryError> {
        if call.over.is_some() {
            return Err(QueryError::new(at, format!("{} takes no OVER", signature.name)));
        }
        let args = arguments(call, at)?;
        if args.len() < signature.least || args.len() > signature.most {
            let count = if signature.least == signature.most {
                signature.least.to_string()
            } else {
                format!("{} to {}", signature.least, signature.most)
            };
            return Err(QueryError::new(at, format!("{} takes {count} arguments, not {}", signature.name, args.len())));
        }
        if !signature.dated {
            return self.call_of(signature.function, &args, at);
        }
        let unit = unit(signature, args[0], at)?;
        let mut rest = Vec::new();
        for arg in &args[1..] {
            rest.push(self.value(arg, at)?);
        }
        Ok(Expr::DateCall(signature.function, unit, rest))
    }

    /// The keys of `SESSIONWINDOW(…) OVER (PARTITION BY …)`.
    pub(crate) fn session_partition(&mut self, call: &Call, at: Position) -> Result<Vec<Expr>, QueryError> {
        let Some(over) = &call.over else { return Ok(Vec::new()) };
        let hint = "OVER (PARTITION BY k)";
        let WindowType::WindowSpec(spec) = over else {
            return Err(QueryError::new(at, "a session has no named window").hint(hint));
        };
        if !spec.order_by.is_empty() || spec.window_frame.is_some() || spec.partition_by.is_empty() {
            return Err(QueryError::new(at, "a session takes a partition only").hint(hint));
        }
        spec.partition_by.iter().map(|e| self.value(e, at)).collect()
    }
}

fn number_or_unknown(expr: &Expr, at: Position) -> Result<(), QueryError> {
    match expr {
        Expr::Literal(Literal::Text(text)) => {
            Err(QueryError::new(at, format!("'{text}' is text where a number is needed")).hint("CAST(x AS float)"))
        }
        _ => Ok(()),
    }
}

fn is_arithmetic_op(op: BinaryOp) -> bool {
    use BinaryOp::{Add, BitAnd, BitOr, BitXor, Divide, Modulo, Multiply, Subtract};
    matches!(op, Add | Subtract | Multiply | Divide | Modulo | BitAnd | BitOr | BitXor)
}

fn is_arithmetic(expr: &Expr) -> bool {
    matches!(expr, Expr::Binary(op, ..) if is_arithmetic_op(*op)) || matches!(expr, Expr::Timestamp)
}

fn is_condition(expr: &Expr) -> bool {
    match expr {
        Expr::Binary(op, ..) => !is_arithmetic_op(*op),
        Expr::Unary(op, _) => *op == UnaryOp::Not,
        Expr::IsNull(_) | Expr::In(..) | Expr::Like(..) => true,
        _ => false,
    }
}

fn not(expr: Expr) -> Expr {
    Expr::Unary(UnaryOp::Not, Box::new(expr))
}

fn negate_if(negated: bool, expr: Expr) -> Expr {
    if negated { not(expr) } else { expr }
}

/// Whether an expression is `System.Timestamp`, with or without parentheses.
pub(crate) fn names_timestamp(ast: &Ast) -> bool {
    match ast {
        Ast::CompoundIdentifier(parts) => is_timestamp(&parts.iter().map(|p| p.value.clone()).collect::<Vec<_>>()),
        Ast::Function(call) => function_name(call) == "SYSTEM.TIMESTAMP",
        _ => false,
    }
}
