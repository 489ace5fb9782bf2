//! Clauses that the parser's grammar has and this language has not.

use sqlparser::ast::{Distinct, GroupByExpr, Query, Select, SetExpr, Spanned, WildcardAdditionalOptions};

use super::error::{Position, QueryError};

/// The one SELECT of a statement or step.
pub(crate) fn select(query: &Query, at: Position) -> Result<&Select, QueryError> {
    let here = Position::of(query.body.span(), at);
    if let Some(order) = &query.order_by {
        return Err(QueryError::new(Position::of(order.span(), here), "ORDER BY is not supported")
            .hint("rows come in the order of their windows; COLLECTTOP ranks"));
    }
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return Err(QueryError::new(here, "LIMIT, OFFSET and FETCH are not supported")
            .hint("a stream has no end; COLLECTTOP(n) keeps n events of a window"));
    }
    if query.for_clause.is_some() || !query.locks.is_empty() {
        return Err(QueryError::new(here, "FOR is not supported"));
    }
    match query.body.as_ref() {
        SetExpr::Select(select) => {
            check(select, here)?;
            Ok(select)
        }
        SetExpr::SetOperation { op, .. } => {
            Err(QueryError::new(here, format!("{op} is not supported")).hint("write two SELECTs INTO the same output"))
        }
        _ => Err(QueryError::new(here, "a SELECT is needed here")),
    }
}

fn check(select: &Select, at: Position) -> Result<(), QueryError> {
    match &select.distinct {
        Some(Distinct::All) | None => {}
        Some(_) => {
            return Err(
                QueryError::new(at, "SELECT DISTINCT is not supported").hint("GROUP BY the columns and a window")
            );
        }
    }
    if select.top.is_some() {
        return Err(QueryError::new(at, "TOP is not supported")
            .hint("TOPONE() or COLLECTTOP(n) OVER (ORDER BY …) with a window"));
    }
    let foreign = select.prewhere.is_some()
        || !select.connect_by.is_empty()
        || !select.lateral_views.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty()
        || !select.named_window.is_empty()
        || select.qualify.is_some()
        || select.value_table_mode.is_some()
        || select.exclude.is_some();
    if foreign {
        return Err(QueryError::new(at, "a clause of another dialect is not supported"));
    }
    match &select.group_by {
        GroupByExpr::All(_) => {
            Err(QueryError::new(at, "GROUP BY ALL is not supported").hint("name the columns and a window"))
        }
        GroupByExpr::Expressions(_, modifiers) if !modifiers.is_empty() => {
            Err(QueryError::new(at, "modifiers of GROUP BY are not supported"))
        }
        GroupByExpr::Expressions(..) => Ok(()),
    }
}

/// `*` without anything after it.
pub(crate) fn plain_star(options: &WildcardAdditionalOptions, at: Position) -> Result<(), QueryError> {
    let plain = options.opt_ilike.is_none()
        && options.opt_exclude.is_none()
        && options.opt_except.is_none()
        && options.opt_replace.is_none()
        && options.opt_rename.is_none();
    if plain { Ok(()) } else { Err(QueryError::new(at, "nothing may follow *").hint("name the columns")) }
}
