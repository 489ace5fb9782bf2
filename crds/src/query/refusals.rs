//! Expressions that are refused by name, with what to write instead.

use sqlparser::ast::{BinaryOperator, Expr as Ast};

use super::{
    aggregates,
    error::{Position, QueryError},
    functions,
};

pub(crate) fn unknown_function(name: &str, at: Position) -> QueryError {
    if name.starts_with("UDF.") || name.starts_with("UDA.") {
        return QueryError::new(at, format!("{name}: functions of one's own are not supported"))
            .hint("use a handler in an IngestPipeline");
    }
    if let Some(hint) = functions::refused(name) {
        return QueryError::new(at, format!("{name} is not supported")).hint(hint);
    }
    let error = QueryError::new(at, format!("unknown function {name}"));
    match functions::nearest(name, aggregates::NAMES) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error,
    }
}

pub(crate) fn unknown_operator(op: &BinaryOperator, at: Position) -> QueryError {
    let error = QueryError::new(at, format!("the operator {op} is not supported"));
    match op {
        BinaryOperator::StringConcat => error.hint("CONCAT(a, b), or a + b"),
        _ => error,
    }
}

/// What is in the parser's grammar and not in this language.
pub(crate) fn refused(ast: &Ast, at: Position) -> QueryError {
    let (what, hint) = match ast {
        Ast::Subquery(_) | Ast::Exists { .. } | Ast::In { .. } => {
            ("a query inside an expression", "make it a step of WITH")
        }
        Ast::Extract { .. } => ("EXTRACT", "DATEPART(part, date)"),
        Ast::Position { .. } => ("POSITION", "CHARINDEX(part, text)"),
        Ast::Convert { .. } => ("CONVERT", "CAST(x AS type)"),
        Ast::AtTimeZone { .. } => ("AT TIME ZONE", "times are UTC; DATEADD moves them"),
        Ast::Interval(_) => ("INTERVAL", "DATEADD(unit, n, date)"),
        Ast::TypedString(_) => ("a typed text", "CAST('…' AS datetime)"),
        Ast::Collate { .. } => ("COLLATE", "text is compared by code point"),
        Ast::ILike { .. } | Ast::SimilarTo { .. } | Ast::RLike { .. } => {
            ("this operator", "LIKE, or REGEXMATCH(text, pattern) = 1")
        }
        Ast::Array(_) => ("an array literal", "COLLECT() makes arrays"),
        Ast::Substring { .. } => ("this form of SUBSTRING", "SUBSTRING(text, start, length)"),
        Ast::Trim { .. } => ("this form of TRIM", "TRIM(text)"),
        Ast::IsTrue(_) | Ast::IsFalse(_) | Ast::IsNotTrue(_) | Ast::IsNotFalse(_) => ("IS TRUE", "x = CAST(1 AS bit)"),
        Ast::Rollup(_) | Ast::Cube(_) | Ast::GroupingSets(_) => (
            "ROLLUP, CUBE and GROUPING SETS",
            "Windows(…) makes sets of windows; write several SELECTs for sets of keys",
        ),
        _ => ("this expression", "see the page on the query language"),
    };
    QueryError::new(at, format!("{what} is not supported")).hint(hint)
}
