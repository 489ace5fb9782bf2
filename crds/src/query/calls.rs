//! Calls of functions: their names, arguments and units.

use sqlparser::ast::{Expr as Ast, Function as Call, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned};

use super::{
    Unit,
    error::{Position, QueryError},
    functions::Signature,
};

pub(crate) fn unit(signature: &Signature, arg: &Ast, at: Position) -> Result<Unit, QueryError> {
    let here = Position::of(arg.span(), at);
    let word = match arg {
        Ast::Identifier(word) if word.quote_style.is_none() => &word.value,
        _ => {
            return Err(QueryError::new(here, format!("the first argument of {} is a part of a date", signature.name))
                .hint("year, month, day, hour …"));
        }
    };
    Unit::parse(word).ok_or_else(|| {
        QueryError::new(here, format!("{word} is no part of a date")).hint(
            "year, quarter, month, dayofyear, day, week, weekday, hour, minute, second, millisecond or microsecond",
        )
    })
}

/// A function's name in upper case, with dots.
pub(crate) fn function_name(call: &Call) -> String {
    let parts: Vec<&str> = call.name.0.iter().map(|p| p.as_ident().map_or("", |i| i.value.as_str())).collect();
    parts.join(".").to_ascii_uppercase()
}

/// A function's arguments; `*` and names are refused.
pub(crate) fn arguments(call: &Call, at: Position) -> Result<Vec<&Ast>, QueryError> {
    let list = match &call.args {
        FunctionArguments::None => return Ok(Vec::new()),
        FunctionArguments::Subquery(_) => {
            return Err(
                QueryError::new(at, "a query inside a function is not supported").hint("make it a step of WITH")
            );
        }
        FunctionArguments::List(list) => list,
    };
    if let Some(treatment) = list.duplicate_treatment {
        return Err(QueryError::new(at, format!("{treatment} is not supported in {}", function_name(call))));
    }
    if !list.clauses.is_empty()
        || call.filter.is_some()
        || !call.within_group.is_empty()
        || call.null_treatment.is_some()
    {
        return Err(QueryError::new(at, format!("{} takes arguments only", function_name(call))));
    }
    list.args.iter().map(|a| argument(a, at)).collect()
}

pub(crate) fn argument(arg: &FunctionArg, at: Position) -> Result<&Ast, QueryError> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Ok(e),
        FunctionArg::Unnamed(_) => Err(QueryError::new(at, "* is an argument of COUNT only")),
        _ => Err(QueryError::new(at, "arguments have no names")),
    }
}
