//! FROM: the input or a step, its aliases, APPLY, and the hints that the token rewrite left.

use sqlparser::ast::{
    Expr as Ast, Function as Call, Join, JoinOperator, ObjectName, Select, Spanned, TableAlias, TableFactor,
    TableWithJoins,
};

use super::{
    calls::{argument, arguments, function_name},
    error::{Position, QueryError},
    plan::ApplyKind,
    rewrite,
};

/// What stands after FROM.
pub(crate) struct From<'a> {
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) at: Position,
    pub(crate) timestamp_by: Option<(&'a Ast, Position)>,
    pub(crate) over: Vec<&'a Ast>,
    pub(crate) applies: Vec<AppliedTable<'a>>,
}

/// CROSS APPLY or OUTER APPLY.
pub(crate) struct AppliedTable<'a> {
    pub(crate) kind: ApplyKind,
    pub(crate) alias: String,
    pub(crate) argument: &'a Ast,
    pub(crate) outer: bool,
    pub(crate) at: Position,
}

pub(crate) fn from(select: &Select, at: Position) -> Result<From<'_>, QueryError> {
    let table = match select.from.as_slice() {
        [table] => table,
        [] => return Err(QueryError::new(at, "FROM is missing").hint("SELECT … FROM input")),
        [_, second, ..] => return Err(join(Position::of(second.span(), at))),
    };
    let mut from = relation(table, at)?;
    for join in &table.joins {
        let applied = apply(join, from.at)?;
        if from.applies.iter().any(|a| a.alias.eq_ignore_ascii_case(&applied.alias)) {
            return Err(QueryError::new(applied.at, format!("two tables are named {}", applied.alias)));
        }
        from.applies.push(applied);
    }
    Ok(from)
}

fn join(at: Position) -> QueryError {
    QueryError::new(at, "JOIN is not supported")
        .hint("streams cannot be joined yet; bring both into one stream, or join in the database")
}

fn relation(table: &TableWithJoins, at: Position) -> Result<From<'_>, QueryError> {
    let here = Position::of(table.relation.span(), at);
    match &table.relation {
        TableFactor::Table { name, alias, args: None, with_hints, version: None, sample: None, .. } => {
            let mut from = From {
                name: simple(name, here)?,
                alias: alias_name(alias.as_ref(), here)?,
                at: here,
                timestamp_by: None,
                over: Vec::new(),
                applies: Vec::new(),
            };
            for hint in with_hints {
                read_hint(&mut from, hint, here)?;
            }
            Ok(from)
        }
        TableFactor::Table { args: Some(_), name, .. } => Err(QueryError::new(here, format!("{name} is not a table"))
            .hint("CROSS APPLY GetArrayElements(…) AS alias, after FROM input")),
        TableFactor::Derived { .. } => Err(QueryError::new(here, "a query after FROM is not supported")
            .hint("make it a step: WITH step AS (SELECT …)")),
        TableFactor::MatchRecognize { .. } => Err(QueryError::new(here, "MATCH_RECOGNIZE is not supported")
            .hint("patterns are not there yet; aggregate in a session window")),
        TableFactor::Pivot { .. } | TableFactor::Unpivot { .. } => {
            Err(QueryError::new(here, "PIVOT is not supported").hint("SUM(CASE WHEN … END)"))
        }
        _ => {
            Err(QueryError::new(here, "this form of FROM is not supported").hint("FROM input, or FROM a step of WITH"))
        }
    }
}

fn simple(name: &ObjectName, at: Position) -> Result<String, QueryError> {
    match name.0.as_slice() {
        [part] => part.as_ident().map(|i| i.value.clone()).ok_or_else(|| QueryError::new(at, "a table has a name")),
        _ => Err(QueryError::new(at, format!("{name} is not an input")).hint("an input has one name without dots")),
    }
}

fn alias_name(alias: Option<&TableAlias>, at: Position) -> Result<Option<String>, QueryError> {
    match alias {
        Some(alias) if !alias.columns.is_empty() => {
            Err(QueryError::new(at, "names of columns after an alias are not supported"))
        }
        alias => Ok(alias.map(|a| a.name.value.clone())),
    }
}

fn read_hint<'a>(from: &mut From<'a>, hint: &'a Ast, at: Position) -> Result<(), QueryError> {
    let here = Position::of(hint.span(), at);
    let call: &'a Call = match hint {
        Ast::Function(call) => call,
        _ => return Err(QueryError::new(here, "table hints are not supported")),
    };
    let args = arguments(call, here)?;
    let name = function_name(call).to_ascii_lowercase();
    match (name.as_str(), args.as_slice()) {
        (rewrite::TIMESTAMP_BY, [time]) if from.timestamp_by.is_none() => from.timestamp_by = Some((time, here)),
        (rewrite::TIMESTAMP_BY, [_]) => return Err(QueryError::new(here, "TIMESTAMP BY stands twice")),
        (rewrite::TIMESTAMP_BY, _) => {
            return Err(QueryError::new(here, "TIMESTAMP BY takes one expression").hint("TIMESTAMP BY column"));
        }
        (rewrite::OVER, []) => {
            return Err(QueryError::new(here, "OVER takes a column").hint("TIMESTAMP BY time OVER deviceId"));
        }
        (rewrite::OVER, _) => from.over = args,
        (rewrite::PARTITION_BY, [_, ..]) => {}
        (rewrite::PARTITION_BY, []) => return Err(QueryError::new(here, "PARTITION BY takes a column")),
        _ => return Err(QueryError::new(here, "table hints are not supported")),
    }
    Ok(())
}

fn apply(operator: &Join, at: Position) -> Result<AppliedTable<'_>, QueryError> {
    let here = Position::of(operator.relation.span(), at);
    let outer = match operator.join_operator {
        JoinOperator::CrossApply => false,
        JoinOperator::OuterApply => true,
        _ => return Err(join(here)),
    };
    let hint = "CROSS APPLY GetArrayElements(array) AS alias";
    let TableFactor::Table { name, alias, args: Some(args), .. } = &operator.relation else {
        return Err(QueryError::new(here, "APPLY takes a function").hint(hint));
    };
    let kind = match name.to_string().to_ascii_uppercase().as_str() {
        "GETARRAYELEMENTS" => ApplyKind::ArrayElements,
        "GETRECORDPROPERTIES" => ApplyKind::RecordProperties,
        other => {
            return Err(QueryError::new(here, format!("{other} cannot be applied"))
                .hint("GetArrayElements or GetRecordProperties"));
        }
    };
    let [argument_of] = args.args.as_slice() else {
        return Err(QueryError::new(here, format!("{name} takes one argument")).hint(hint));
    };
    let Some(alias) = alias_name(alias.as_ref(), here)? else {
        return Err(QueryError::new(here, "what is applied needs a name").hint(hint));
    };
    Ok(AppliedTable { kind, alias, argument: argument(argument_of, here)?, outer, at: here })
}
