//! The typed plan: what a query means, with every name resolved.

use std::fmt;

use super::{Function, Unit};

/// A checked query.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The input's name after FROM, as written.
    pub source: String,
    /// `TIMESTAMP BY`; without it an event's time is its arrival.
    pub timestamp_by: Option<Expr>,
    /// `TIMESTAMP BY … OVER k`: time is kept per value of k.
    pub over: Vec<Expr>,
    /// The fields of an event that the query reads; [`Expr::Slot`] is an index into it.
    pub paths: Vec<Vec<String>>,
    /// Whether the query needs the whole event ([`Expr::Event`]).
    pub whole_event: bool,
    /// Steps in the order in which rows flow.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The names of the outputs, each once, in the order of the text.
    #[must_use]
    pub fn outputs(&self) -> Vec<&str> {
        let mut outputs: Vec<&str> = Vec::new();
        for output in self.steps.iter().filter_map(|s| s.output.as_deref()) {
            if !outputs.contains(&output) {
                outputs.push(output);
            }
        }
        outputs
    }

    /// Whether any step has a window.
    #[must_use]
    pub fn has_windows(&self) -> bool {
        self.steps.iter().any(|s| matches!(s.kind, StepKind::Group(_)))
    }
}

/// One SELECT.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The name that WITH gives it.
    pub name: Option<String>,
    /// Where its rows come from.
    pub input: Input,
    /// CROSS APPLY and OUTER APPLY.
    pub applies: Vec<Apply>,
    /// WHERE.
    pub filter: Option<Expr>,
    /// What it does with the rows.
    pub kind: StepKind,
    /// Where its rows go; none for a step of WITH.
    pub output: Option<String>,
}

/// Where a step's rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The input's events.
    Source,
    /// The rows of an earlier step.
    Step(usize),
}

/// A table-valued function that is applied to each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Apply {
    /// The function.
    pub kind: ApplyKind,
    /// Its argument.
    pub argument: Expr,
    /// OUTER APPLY: a row without elements is kept, with NULL.
    pub outer: bool,
}

/// Table-valued functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyKind {
    /// `GetArrayElements`: columns `ArrayIndex` and `ArrayValue`.
    ArrayElements,
    /// `GetRecordProperties`: columns `PropertyName` and `PropertyValue`.
    RecordProperties,
}

/// What a step does with its rows.
#[derive(Debug, Clone, PartialEq)]
pub enum StepKind {
    /// Each row for itself.
    Project(Vec<Item>),
    /// Windows.
    Group(Box<Group>),
}

/// GROUP BY.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The windows; several for a set.
    pub windows: Vec<WindowDef>,
    /// The other expressions of GROUP BY.
    pub keys: Vec<Expr>,
    /// The aggregates that HAVING and the projection use.
    pub aggregates: Vec<Aggregate>,
    /// HAVING, over [`Expr::Key`] and [`Expr::Aggregate`].
    pub having: Option<Expr>,
    /// The projection, over [`Expr::Key`] and [`Expr::Aggregate`].
    pub items: Vec<Item>,
}

/// A window and its name in a set.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowDef {
    /// `System.Window().Id`.
    pub id: Option<String>,
    /// The window.
    pub window: Window,
}

/// Windows. All lengths are in ticks of 100 ns.
#[derive(Debug, Clone, PartialEq)]
pub enum Window {
    /// Tumbling (hop = size) and hopping windows: `(end − size, end]`, ends at k·hop + offset.
    Hopping {
        /// Length.
        size: i64,
        /// Distance of ends.
        hop: i64,
        /// Shift of ends.
        offset: i64,
    },
    /// `(t − size, t]` at every t at which the content changes.
    Sliding {
        /// Length.
        size: i64,
    },
    /// Gaps no longer than the timeout.
    Session {
        /// Longest gap.
        timeout: i64,
        /// A session that has been open for so long closes at the next multiple.
        max: i64,
        /// `OVER (PARTITION BY …)`.
        partition: Vec<Expr>,
    },
    /// Equal timestamps.
    Snapshot,
}

/// A column of a projection.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// An expression and its name.
    Named(String, Expr),
    /// All fields of a record.
    Star(Expr),
}

/// An aggregate.
#[derive(Debug, Clone, PartialEq)]
pub struct Aggregate {
    /// Which.
    pub kind: AggregateKind,
    /// Its argument.
    pub argument: Option<Expr>,
    /// `DISTINCT`.
    pub distinct: bool,
    /// `ORDER BY` of ranked aggregates.
    pub order: Vec<Order>,
    /// `FILTER (WHERE …)`.
    pub filter: Option<Expr>,
}

/// One expression of ORDER BY.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// What to sort by.
    pub expr: Expr,
    /// `DESC`.
    pub descending: bool,
}

/// Aggregates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum AggregateKind {
    /// `COUNT(*)`.
    CountAll,
    /// `COUNT(x)`.
    Count,
    /// `SUM(x)`.
    Sum,
    /// `AVG(x)`.
    Avg,
    /// `MIN(x)`.
    Min,
    /// `MAX(x)`.
    Max,
    /// `VAR(x)`: of a sample.
    Var,
    /// `VARP(x)`: of the population.
    Varp,
    /// `STDEV(x)`: of a sample.
    Stdev,
    /// `STDEVP(x)`: of the population.
    Stdevp,
    /// `PERCENTILE_CONT(p)`.
    PercentileCont(f64),
    /// `PERCENTILE_DISC(p)`.
    PercentileDisc(f64),
    /// `TOPONE()`.
    TopOne,
    /// `COLLECTTOP(n)`.
    CollectTop(usize),
    /// `COLLECT()`.
    Collect,
    /// `APPROX_COUNT_DISTINCT(x)`.
    ApproxCountDistinct,
}

/// Types a value may be cast to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// 64-bit integer.
    BigInt,
    /// 64-bit float.
    Float,
    /// Text.
    NVarChar,
    /// UTC, ticks of 100 ns.
    DateTime,
    /// 0 or 1.
    Bit,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BigInt => "bigint",
            Self::Float => "float",
            Self::NVarChar => "nvarchar",
            Self::DateTime => "datetime",
            Self::Bit => "bit",
        })
    }
}

/// A constant.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// NULL.
    Null,
    /// Integer.
    BigInt(i64),
    /// Number with a fraction or an exponent.
    Float(f64),
    /// Text.
    Text(String),
}

/// Operators with one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnaryOp {
    /// `NOT`.
    Not,
    /// `-`.
    Negate,
    /// `~`.
    BitNot,
}

/// Operators with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryOp {
    /// `+`, also of text.
    Add,
    /// `-`.
    Subtract,
    /// `*`.
    Multiply,
    /// `/`.
    Divide,
    /// `%`.
    Modulo,
    /// `&`.
    BitAnd,
    /// `|`.
    BitOr,
    /// `^`.
    BitXor,
    /// `=`.
    Equal,
    /// `<>`, `!=`.
    NotEqual,
    /// `<`.
    Less,
    /// `<=`.
    LessEqual,
    /// `>`.
    Greater,
    /// `>=`.
    GreaterEqual,
    /// `AND`.
    And,
    /// `OR`.
    Or,
}

/// A scalar expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A constant.
    Literal(Literal),
    /// A field of the event: an index into [`Plan::paths`].
    Slot(usize),
    /// The whole event.
    Event,
    /// A field of the row of an earlier step; the whole row if the path is empty.
    Column(Vec<String>),
    /// A field of what an APPLY of this step yields, by its index; the whole record if the path is empty.
    Applied(usize, Vec<String>),
    /// `System.Timestamp()`.
    Timestamp,
    /// `System.Window().Id`.
    WindowId,
    /// An expression of GROUP BY.
    Key(usize),
    /// An aggregate.
    Aggregate(usize),
    /// A field of a record.
    Member(Box<Expr>, String),
    /// An operator with one operand.
    Unary(UnaryOp, Box<Expr>),
    /// An operator with two operands.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `IS NULL`.
    IsNull(Box<Expr>),
    /// `IN (…)`.
    In(Box<Expr>, Vec<Expr>),
    /// `LIKE`: value, pattern, escape character.
    Like(Box<Expr>, Box<Expr>, Option<char>),
    /// CASE: conditions with results, and ELSE. `CASE x WHEN y` is `x = y`.
    Case(Vec<(Expr, Expr)>, Option<Box<Expr>>),
    /// CAST, and `TRY_CAST` where the flag is set.
    Cast(Box<Expr>, Type, bool),
    /// A function.
    Call(Function, Vec<Expr>),
    /// A date function and its unit.
    DateCall(Function, Unit, Vec<Expr>),
}
