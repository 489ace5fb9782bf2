//! The table of an output's rows: which columns the plan makes and of what type; made if absent, checked if present.

use drover_crds::{
    api::PostgresSink,
    query::{Aggregate, AggregateKind, BinaryOp, Expr, Function, Item, Literal, Plan, Step, StepKind, Type},
};
use tokio_postgres::Client;

use super::schema::{self, SchemaError};
use crate::store::table::{self, TableProblem, TableShape, quoted, quoted_table};

/// An output's table cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    #[error("{0}")]
    Problem(#[source] TableProblem),
    #[error("{0}")]
    Made(#[source] SchemaError),
    #[error("{table}: {why}")]
    Unfit { table: String, why: String },
}

impl TableError {
    /// The reason in `CamelCase`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Problem(problem) => problem.reason.as_str(),
            Self::Made(error) => error.reason(),
            Self::Unfit { .. } => "TableUnfit",
        }
    }
}

impl From<SchemaError> for TableError {
    fn from(error: SchemaError) -> Self {
        Self::Made(error)
    }
}

/// The columns of an output: names and types, each once. `None` where the query does not say which there are (`*`).
pub(crate) fn columns(plan: &Plan, output: &str) -> Option<Vec<(String, &'static str)>> {
    let mut columns: Vec<(String, &'static str)> = Vec::new();
    for step in plan.steps.iter().filter(|s| s.output.as_deref() == Some(output)) {
        for (name, kind) in of_step(plan, step)? {
            match columns.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = joined(known.1, kind),
                None => columns.push((name, kind)),
            }
        }
    }
    Some(columns)
}

fn of_step(plan: &Plan, step: &Step) -> Option<Vec<(String, &'static str)>> {
    let (items, group) = match &step.kind {
        StepKind::Project(items) => (items, None),
        StepKind::Group(group) => (&group.items, Some(group)),
    };
    let mut columns: Vec<(String, &'static str)> = Vec::new();
    for item in items {
        let Item::Named(name, expr) = item else { return None };
        let types = Types {
            plan,
            step,
            aggregates: group.map_or(&[], |g| &g.aggregates),
            keys: group.map_or(&[], |g| &g.keys),
        };
        // A later column of the same name takes the place of an earlier one.
        columns.retain(|(known, _)| known != name);
        columns.push((name.clone(), types.of(expr)));
    }
    Some(columns)
}

/// What a step's expressions are typed by.
struct Types<'a> {
    plan: &'a Plan,
    step: &'a Step,
    aggregates: &'a [Aggregate],
    keys: &'a [Expr],
}

impl Types<'_> {
    /// The type of a column that takes whatever the expression yields: text where only the events know.
    fn of(&self, expr: &Expr) -> &'static str {
        match expr {
            Expr::Timestamp => "timestamptz",
            Expr::Literal(Literal::BigInt(_)) => "bigint",
            Expr::Literal(Literal::Float(_)) => "double precision",
            Expr::Cast(_, to, _) => match to {
                Type::BigInt => "bigint",
                Type::Float => "double precision",
                Type::NVarChar => "text",
                Type::DateTime => "timestamptz",
                Type::Bit => "boolean",
            },
            Expr::Key(n) => self.keys.get(*n).map_or("text", |key| self.of(key)),
            Expr::Aggregate(n) => self.aggregates.get(*n).map_or("text", |a| self.aggregate(a)),
            Expr::Column(path) => self.column(path),
            Expr::Unary(drover_crds::query::UnaryOp::Negate, inner) => match self.of(inner) {
                "text" => "numeric",
                known => known,
            },
            Expr::Binary(op, a, b) => self.binary(*op, a, b),
            Expr::Case(branches, other) => {
                let results = branches.iter().map(|(_, result)| result).chain(other.as_deref());
                same(results.filter(|e| !matches!(e, Expr::Literal(Literal::Null))).map(|e| self.of(e)))
            }
            Expr::Call(function, args) => self.call(*function, args),
            Expr::DateCall(function, ..) => match function {
                Function::DateAdd => "timestamptz",
                Function::DateName => "text",
                _ => "bigint",
            },
            Expr::Event => "jsonb",
            _ => "text",
        }
    }

    fn aggregate(&self, aggregate: &Aggregate) -> &'static str {
        match aggregate.kind {
            AggregateKind::CountAll | AggregateKind::Count | AggregateKind::ApproxCountDistinct => "bigint",
            AggregateKind::Sum => "numeric",
            AggregateKind::Avg
            | AggregateKind::Var
            | AggregateKind::Varp
            | AggregateKind::Stdev
            | AggregateKind::Stdevp => "double precision",
            AggregateKind::Min | AggregateKind::Max => aggregate.argument.as_ref().map_or("text", |a| self.of(a)),
            // Values of an unknown type are numbers here, or they were refused.
            AggregateKind::PercentileCont(_) | AggregateKind::PercentileDisc(_) => {
                match aggregate.argument.as_ref().map(|a| self.of(a)) {
                    Some("timestamptz") => "timestamptz",
                    _ => "numeric",
                }
            }
            AggregateKind::TopOne => aggregate.argument.as_ref().map_or("jsonb", |a| self.of(a)),
            AggregateKind::CollectTop(_) | AggregateKind::Collect => "jsonb",
        }
    }

    fn column(&self, path: &[String]) -> &'static str {
        let (drover_crds::query::Input::Step(before), [name]) = (self.step.input, path) else { return "text" };
        let Some(columns) = of_step(self.plan, &self.plan.steps[before]) else { return "text" };
        columns.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("text", |(_, kind)| kind)
    }

    fn binary(&self, op: BinaryOp, a: &Expr, b: &Expr) -> &'static str {
        match op {
            BinaryOp::Add if self.of(a) == "text" || self.of(b) == "text" => "text",
            BinaryOp::Add | BinaryOp::Subtract | BinaryOp::Multiply | BinaryOp::Divide | BinaryOp::Modulo => {
                match (self.of(a), self.of(b)) {
                    ("bigint", "bigint") => "bigint",
                    ("double precision", "bigint" | "double precision") | ("bigint", "double precision") => {
                        "double precision"
                    }
                    _ => "numeric",
                }
            }
            BinaryOp::BitAnd | BinaryOp::BitOr | BinaryOp::BitXor => "text",
            _ => "boolean",
        }
    }

    fn call(&self, function: Function, args: &[Expr]) -> &'static str {
        match function {
            Function::Coalesce => same(args.iter().map(|e| self.of(e))),
            Function::NullIf => args.first().map_or("text", |e| self.of(e)),
            Function::Len
            | Function::CharIndex
            | Function::PatIndex
            | Function::Year
            | Function::Month
            | Function::Day
            | Function::GetArrayLength => "bigint",
            Function::Abs
            | Function::Ceiling
            | Function::Exp
            | Function::Floor
            | Function::Power
            | Function::Sign
            | Function::Square
            | Function::Sqrt
            | Function::Round => "numeric",
            _ => "text",
        }
    }
}

/// The type of several.
fn same(types: impl Iterator<Item = &'static str>) -> &'static str {
    types.reduce(joined).unwrap_or("text")
}

/// A type that takes values of both.
fn joined(a: &'static str, b: &'static str) -> &'static str {
    let number = |kind| matches!(kind, "bigint" | "double precision" | "numeric");
    match (a, b) {
        _ if a == b => a,
        _ if number(a) && number(b) => "numeric",
        _ => "text",
    }
}

/// A sink of crds names the table for the catalog.
fn named(table: &str) -> PostgresSink {
    PostgresSink {
        secret_ref: drover_crds::api::SecretRef { name: String::new(), keys: std::collections::BTreeMap::new() },
        table: table.to_owned(),
        mode: None,
        columns: std::collections::BTreeMap::new(),
        id_column: None,
        key: None,
        order_by: None,
        unknown_fields: None,
    }
}

/// Makes an output's table where it is absent, and checks that it takes the output's rows.
pub(crate) async fn ready(client: &Client, plan: &Plan, output: &str, table: &str) -> Result<TableShape, TableError> {
    let columns = columns(plan, output);
    let sink = named(table);
    let found = table::describe(client, &sink).await;
    let shape = match (found, &columns) {
        (Err(problem), Some(columns)) if problem.reason == table::TableReason::TableNotFound => {
            make(client, table, columns).await?;
            table::describe(client, &sink).await.map_err(TableError::Problem)?
        }
        (found, _) => found.map_err(TableError::Problem)?,
    };
    shape.fits(&sink).map_err(TableError::Problem)?;
    check(&shape, columns.as_deref()).map_err(|why| TableError::Unfit { table: shape.name.clone(), why })?;
    Ok(shape)
}

async fn make(client: &Client, table: &str, columns: &[(String, &'static str)]) -> Result<(), TableError> {
    if columns.iter().any(|(name, _)| name.is_empty()) {
        let why = "the query has a column without a name: give it one with AS".to_owned();
        return Err(TableError::Unfit { table: table.to_owned(), why });
    }
    let name = quoted_table(table).unwrap_or_else(|| quoted(table));
    let list: Vec<String> = columns.iter().map(|(name, kind)| format!("{} {kind}", quoted(name))).collect();
    let create = format!("CREATE TABLE IF NOT EXISTS {name} ({})", list.join(", "));
    schema::lock(client).await?;
    let made = client.batch_execute(&create).await.map_err(|e| TableError::Made(schema::failed(e)));
    schema::unlock(client, made).await
}

/// Whether the table has a column for each of the output's, and asks for nothing else.
fn check(shape: &TableShape, columns: Option<&[(String, &'static str)]>) -> Result<(), String> {
    let Some(columns) = columns else { return Ok(()) };
    for (name, _) in columns {
        let column = shape.column(name).ok_or_else(|| format!("has no column {name}: add it, or rename it with AS"))?;
        if column.generated {
            return Err(format!("column {name} is generated by the database: rename it with AS"));
        }
    }
    let ours = |name: &str| columns.iter().any(|(own, _)| shape.column(own).is_some_and(|c| c.name == name));
    match shape.columns.iter().find(|c| c.not_null && !c.default && !c.generated && !ours(&c.name)) {
        Some(column) => {
            Err(format!("column {} is NOT NULL without a default, and the query has none such", column.name))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use drover_crds::query::parse;

    use super::*;

    fn typed(query: &str) -> String {
        let plan = parse(query).unwrap();
        let columns = columns(&plan, plan.outputs()[0]).unwrap();
        columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn columns_have_the_types_that_the_query_tells() {
        let query =
            "SELECT pref, System.Timestamp AS w, COUNT(*) AS c, SUM(x) AS s, AVG(x) AS a, CAST(MAX(x) AS bigint) AS m,
            MIN(System.Timestamp()) AS first, COLLECT() AS all_of, COUNT(*) * 2 AS twice, COUNT(*) * 1.0 AS f
            FROM input TIMESTAMP BY t GROUP BY pref, TUMBLINGWINDOW(minute, 1)";
        assert_eq!(
            typed(query),
            "pref text, w timestamptz, c bigint, s numeric, a double precision, m bigint, first timestamptz, all_of jsonb, twice bigint, f double precision"
        );
    }

    #[test]
    fn a_step_hands_its_types_on() {
        let query = "WITH s AS (SELECT k, COUNT(*) AS c, System.Timestamp() AS w FROM input TIMESTAMP BY t GROUP BY k, TumblingWindow(second, 10))
            SELECT k, MAX(c) AS c, MAX(w) AS w FROM s GROUP BY k, TumblingWindow(second, 20)";
        assert_eq!(typed(query), "k text, c bigint, w timestamptz");
    }

    #[test]
    fn selects_into_one_output_agree_on_a_type_that_takes_both() {
        let query = "SELECT 'a' AS k, COUNT(*) AS n, COUNT(*) AS c INTO o FROM input TIMESTAMP BY t GROUP BY TumblingWindow(second, 10)
            SELECT 'b' AS k, SUM(x) AS n, COLLECT() AS c INTO o FROM input TIMESTAMP BY t GROUP BY TumblingWindow(second, 10)";
        assert_eq!(typed(query), "k text, n numeric, c text");
    }

    #[test]
    fn a_star_has_no_known_columns() {
        let plan = parse("SELECT * FROM input").unwrap();
        assert_eq!(columns(&plan, plan.outputs()[0]), None);
    }
}
