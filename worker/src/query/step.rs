//! One SELECT, compiled: rows in, and either rows out or terms of groups.

use std::sync::Arc;

use drover_crds::query::{Apply, ApplyKind, Expr, Group, Input, Item, Step, StepKind, Window};

use super::{
    clock,
    error::DataError,
    key,
    node::{Node, Row},
    partial::{self, Ranked, Shape, Term},
    value::{Record, Value},
};

/// Most bytes of a group's key: it is part of an index, whose entries have at most 2,704 bytes.
pub(crate) const MAX_KEY: usize = 2_000;
/// Most rows that the APPLYs of one step make of one row.
const MAX_APPLIED: usize = 100_000;

#[derive(Debug)]
pub(crate) enum Column {
    Named(Arc<str>, Node),
    Star(Node),
}

/// A compiled SELECT.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) input: Input,
    applies: Vec<(Apply, Node)>,
    filter: Option<Node>,
    pub(crate) output: Option<Arc<str>>,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Project(Vec<Column>),
    Group(Box<Grouping>),
}

/// A compiled GROUP BY.
#[derive(Debug)]
pub(crate) struct Grouping {
    pub(crate) windows: Vec<CompiledWindow>,
    keys: Vec<Node>,
    terms: Vec<TermOf>,
    pub(crate) shapes: Vec<Shape>,
    having: Option<Node>,
    columns: Vec<Column>,
    /// How long after a row's time a window that holds it may end.
    extent: i64,
}

#[derive(Debug)]
pub(crate) struct CompiledWindow {
    pub(crate) id: Option<String>,
    pub(crate) window: Window,
    partition: Vec<Node>,
}

#[derive(Debug)]
struct TermOf {
    argument: Option<Node>,
    order: Vec<Node>,
    filter: Option<Node>,
}

/// What a row adds to the groups of a step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Contribution {
    pub(crate) time: i64,
    pub(crate) position: u64,
    /// For each window the values of its partition, encoded.
    pub(crate) domains: Vec<Vec<u8>>,
    pub(crate) key: Vec<u8>,
    pub(crate) terms: Vec<Term>,
}

fn compile_all(exprs: &[Expr]) -> Vec<Node> {
    exprs.iter().map(Node::compile).collect()
}

fn columns(items: &[Item]) -> Vec<Column> {
    items
        .iter()
        .map(|item| match item {
            Item::Named(name, expr) => Column::Named(Arc::from(name.as_str()), Node::compile(expr)),
            Item::Star(expr) => Column::Star(Node::compile(expr)),
        })
        .collect()
}

impl Compiled {
    pub(crate) fn new(step: &Step) -> Self {
        let kind = match &step.kind {
            StepKind::Project(items) => Kind::Project(columns(items)),
            StepKind::Group(group) => Kind::Group(Box::new(Grouping::new(group))),
        };
        Self {
            input: step.input,
            applies: step.applies.iter().map(|a| (a.clone(), Node::compile(&a.argument))).collect(),
            filter: step.filter.as_ref().map(Node::compile),
            output: step.output.as_deref().map(Arc::from),
            kind,
        }
    }

    /// Runs APPLY and WHERE over a row.
    pub(crate) fn rows(
        &self,
        row: &Row<'_>,
        each: &mut dyn FnMut(&Row<'_>) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        if self.applies.is_empty() {
            return if self.passes(row)? { each(row) } else { Ok(()) };
        }
        let mut combinations: Vec<Vec<Value>> = vec![Vec::new()];
        for (apply, argument) in &self.applies {
            let mut next = Vec::new();
            for applied in combinations {
                let elements = elements(apply.kind, &argument.eval(&Row { applied: &applied, ..*row })?)?;
                let elements = if elements.is_empty() && apply.outer { vec![Value::Null] } else { elements };
                if next.len() + elements.len() > MAX_APPLIED {
                    return Err(DataError::Argument(format!("APPLY makes more than {MAX_APPLIED} rows")));
                }
                for element in elements {
                    next.push(applied.iter().cloned().chain([element]).collect());
                }
            }
            combinations = next;
        }
        for applied in &combinations {
            let row = Row { applied, ..*row };
            if self.passes(&row)? {
                each(&row)?;
            }
        }
        Ok(())
    }

    fn passes(&self, row: &Row<'_>) -> Result<bool, DataError> {
        self.filter.as_ref().map_or(Ok(true), |f| Ok(f.test(row)? == Some(true)))
    }
}

/// The rows that a table-valued function yields; NULL has none.
fn elements(kind: ApplyKind, value: &Value) -> Result<Vec<Value>, DataError> {
    let pair = |names: [&str; 2], a: Value, b: Value| {
        Value::Record(Arc::new(vec![(Arc::from(names[0]), a), (Arc::from(names[1]), b)]))
    };
    match (kind, value) {
        (_, Value::Null) => Ok(Vec::new()),
        (ApplyKind::ArrayElements, Value::Array(values)) => Ok(values
            .iter()
            .zip(0_i64..)
            .map(|(v, i)| pair(["ArrayIndex", "ArrayValue"], Value::BigInt(i), v.clone()))
            .collect()),
        (ApplyKind::RecordProperties, Value::Record(fields)) => Ok(fields
            .iter()
            .map(|(n, v)| pair(["PropertyName", "PropertyValue"], Value::Text(n.clone()), v.clone()))
            .collect()),
        (ApplyKind::ArrayElements, other) => Err(other.wrong_type("GetArrayElements")),
        (ApplyKind::RecordProperties, other) => Err(other.wrong_type("GetRecordProperties")),
    }
}

/// The projection of a row.
pub(crate) fn project(columns: &[Column], row: &Row<'_>) -> Result<Value, DataError> {
    let mut fields: Record = Vec::with_capacity(columns.len());
    for column in columns {
        match column {
            Column::Named(name, node) => put(&mut fields, name, node.eval(row)?),
            Column::Star(node) => match node.eval(row)? {
                Value::Record(record) if fields.is_empty() => fields.extend(record.iter().cloned()),
                Value::Record(record) => record.iter().for_each(|(n, v)| put(&mut fields, n, v.clone())),
                _ => {}
            },
        }
    }
    Ok(Value::Record(Arc::new(fields)))
}

/// A later column of the same name takes the place of an earlier one.
fn put(fields: &mut Record, name: &Arc<str>, value: Value) {
    match fields.iter_mut().find(|(n, _)| n == name) {
        Some(field) => field.1 = value,
        None => fields.push((name.clone(), value)),
    }
}

impl Grouping {
    fn new(group: &Group) -> Self {
        let windows = group.windows.iter().map(|def| CompiledWindow {
            id: def.id.clone(),
            window: def.window.clone(),
            partition: match &def.window {
                Window::Session { partition, .. } => compile_all(partition),
                _ => Vec::new(),
            },
        });
        let extent = group.windows.iter().map(|def| match def.window {
            Window::Hopping { size, .. } | Window::Sliding { size } => size,
            Window::Session { timeout, .. } => timeout,
            Window::Snapshot => 0,
        });
        let extent = extent.max().unwrap_or(0);
        let terms = group.aggregates.iter().map(|a| TermOf {
            argument: a.argument.as_ref().map(Node::compile),
            order: a.order.iter().map(|o| Node::compile(&o.expr)).collect(),
            filter: a.filter.as_ref().map(Node::compile),
        });
        let shapes = group.aggregates.iter().map(|a| Shape {
            kind: a.kind,
            distinct: a.distinct,
            descending: a.order.iter().map(|o| o.descending).collect(),
        });
        Self {
            windows: windows.collect(),
            keys: compile_all(&group.keys),
            terms: terms.collect(),
            shapes: shapes.collect(),
            having: group.having.as_ref().map(Node::compile),
            columns: columns(&group.items),
            extent,
        }
    }

    /// What a row adds; everything that can fail does so here.
    pub(crate) fn contribution(&self, row: &Row<'_>, position: u64, into: &mut Contribution) -> Result<(), DataError> {
        if row.time.checked_add(self.extent).and_then(clock::valid).is_none() {
            return Err(DataError::Date(format!("the end of the window of {}", clock::format(row.time))));
        }
        into.time = row.time;
        into.position = position;
        into.key.clear();
        into.terms.clear();
        for node in &self.keys {
            key::encode(&node.eval(row)?, &mut into.key);
        }
        into.domains.resize(self.windows.len(), Vec::new());
        for (window, domain) in self.windows.iter().zip(&mut into.domains) {
            domain.clear();
            for node in &window.partition {
                key::encode(&node.eval(row)?, domain);
            }
        }
        let bytes = into.key.len() + into.domains.iter().map(Vec::len).max().unwrap_or(0);
        if bytes > MAX_KEY {
            return Err(DataError::Argument(format!(
                "the values of GROUP BY have {bytes} bytes; at most {MAX_KEY} do"
            )));
        }
        for (term, shape) in self.terms.iter().zip(&self.shapes) {
            into.terms.push(term.eval(shape, row, position)?);
        }
        Ok(())
    }

    /// The row of a closed group, if HAVING keeps it.
    pub(crate) fn emit(
        &self,
        window: &CompiledWindow,
        key: &[u8],
        partials: &[partial::Partial],
        end: i64,
    ) -> Result<Option<Value>, DataError> {
        let mut reader = key::Reader::new(key);
        let keys: Vec<Value> = (0..self.keys.len()).map(|_| reader.value().unwrap_or(Value::Null)).collect();
        let aggregates = partials.iter().zip(&self.shapes).map(|(p, s)| p.finish(s)).collect::<Result<Vec<_>, _>>()?;
        let row = Row {
            slots: &[],
            record: &Value::Null,
            applied: &[],
            time: end,
            keys: &keys,
            aggregates: &aggregates,
            window: window.id.as_deref(),
        };
        let kept = match &self.having {
            Some(having) => having.test(&row)? == Some(true),
            None => true,
        };
        if kept { project(&self.columns, &row).map(Some) } else { Ok(None) }
    }
}

impl TermOf {
    fn eval(&self, shape: &Shape, row: &Row<'_>, position: u64) -> Result<Term, DataError> {
        if let Some(filter) = &self.filter
            && filter.test(row)? != Some(true)
        {
            return Ok(Term::Nothing);
        }
        let Some(argument) = &self.argument else { return Ok(Term::Value(Value::Bit(true))) };
        let value = argument.eval(row)?;
        if !self.order.is_empty() || shape.kind == drover_crds::query::AggregateKind::Collect {
            let order = self.order.iter().map(|n| n.eval(row)).collect::<Result<_, _>>()?;
            return Ok(Term::Ranked(Ranked { order, time: row.time, position, value }));
        }
        if value.is_null() {
            return Ok(Term::Nothing);
        }
        partial::check(shape, &value)?;
        Ok(Term::Value(value))
    }
}
