//! The query language: parser and typed plan.
//!
//! The dialect is that of Azure Stream Analytics. A text becomes a [`Plan`] or a [`QueryError`] with the place in the text
//! the user wrote. Pure: it knows nothing of Kubernetes, of time or of events; evaluation lives in the worker.

mod aggregates;
mod calls;
mod error;
mod functions;
mod literals;
mod lower;
mod plan;
mod refusals;
mod rewrite;
mod scalars;
mod scope;
mod shape;
mod tables;
mod units;
mod windows;

pub use error::{Position, QueryError};
pub use functions::Function;
pub use plan::{
    Aggregate, AggregateKind, Apply, ApplyKind, BinaryOp, Expr, Group, Input, Item, Literal, Order, Plan, Step,
    StepKind, Type, UnaryOp, Window, WindowDef,
};
pub use units::{TICKS_PER_MILLISECOND, TICKS_PER_SECOND, Unit};

/// The output of a `SELECT` without `INTO`.
pub const DEFAULT_OUTPUT: &str = "output";

/// Parses and checks a query.
///
/// # Errors
/// The first thing that is wrong, with its line and column and, where there is one, the nearest supported form.
pub fn parse(text: &str) -> Result<Plan, QueryError> {
    lower::query(text)
}

/// Parses a query for `transform.query`: the same language without windows, outputs and `TIMESTAMP BY`.
///
/// # Errors
/// As [`parse`], and for anything that needs more than one event.
pub fn parse_transform(text: &str) -> Result<Plan, QueryError> {
    lower::transform(text)
}
