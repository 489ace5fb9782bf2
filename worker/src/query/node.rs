//! Scalar expressions, compiled from the plan: constants are made once, and evaluated against one row.

use drover_crds::query::{BinaryOp, Expr, Function, Literal, Type, UnaryOp, Unit};
use regex::Regex;

use super::{
    clock,
    error::DataError,
    scalars,
    text::{self, Pattern},
    value::{Value, compare_numbers},
};

/// What names refer to while a row is evaluated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) slots: &'a [Value],
    /// The whole event, or the row of an earlier step.
    pub(crate) record: &'a Value,
    pub(crate) applied: &'a [Value],
    pub(crate) time: i64,
    pub(crate) keys: &'a [Value],
    pub(crate) aggregates: &'a [Value],
    pub(crate) window: Option<&'a str>,
}

/// A compiled expression.
#[derive(Debug)]
pub(crate) enum Node {
    Const(Value),
    Slot(usize),
    Record(Vec<String>),
    Applied(usize, Vec<String>),
    Time,
    WindowId,
    Key(usize),
    Aggregate(usize),
    Member(Box<Node>, String),
    Unary(UnaryOp, Box<Node>),
    Binary(BinaryOp, Box<Node>, Box<Node>),
    IsNull(Box<Node>),
    In(Box<Node>, Vec<Node>),
    Like(Box<Node>, Box<Node>, Option<char>),
    LikeConst(Box<Node>, Pattern),
    Regex(Box<Node>, Box<Regex>),
    Case(Vec<(Node, Node)>, Option<Box<Node>>),
    Cast(Box<Node>, Type, bool),
    Call(Function, Vec<Node>),
    DateCall(Function, Unit, Vec<Node>),
}

fn boxed(expr: &Expr) -> Box<Node> {
    Box::new(Node::compile(expr))
}

impl Node {
    pub(crate) fn compile(expr: &Expr) -> Self {
        match expr {
            Expr::Literal(literal) => Self::Const(constant(literal)),
            Expr::Slot(slot) => Self::Slot(*slot),
            Expr::Event => Self::Record(Vec::new()),
            Expr::Column(path) => Self::Record(path.clone()),
            Expr::Applied(index, path) => Self::Applied(*index, path.clone()),
            Expr::Timestamp => Self::Time,
            Expr::WindowId => Self::WindowId,
            Expr::Key(index) => Self::Key(*index),
            Expr::Aggregate(index) => Self::Aggregate(*index),
            Expr::Member(e, name) => Self::Member(boxed(e), name.clone()),
            Expr::Unary(op, e) => Self::Unary(*op, boxed(e)),
            Expr::Binary(op, a, b) => Self::Binary(*op, boxed(a), boxed(b)),
            Expr::IsNull(e) => Self::IsNull(boxed(e)),
            Expr::In(e, list) => Self::In(boxed(e), list.iter().map(Self::compile).collect()),
            Expr::Like(e, pattern, escape) => match &**pattern {
                Expr::Literal(Literal::Text(text)) => Self::LikeConst(boxed(e), Pattern::new(text, *escape)),
                other => Self::Like(boxed(e), boxed(other), *escape),
            },
            Expr::Case(branches, otherwise) => Self::Case(
                branches.iter().map(|(c, r)| (Self::compile(c), Self::compile(r))).collect(),
                otherwise.as_deref().map(boxed),
            ),
            Expr::Cast(e, to, safe) => Self::Cast(boxed(e), *to, *safe),
            Expr::Call(function, args) => Self::call(*function, args),
            Expr::DateCall(function, unit, args) => {
                Self::DateCall(*function, *unit, args.iter().map(date_constant).collect())
            }
        }
    }

    fn call(function: Function, args: &[Expr]) -> Self {
        if let (Function::RegexMatch, [subject, Expr::Literal(Literal::Text(pattern))]) = (function, args)
            && let Some(regex) = text::regex(pattern)
        {
            return Self::Regex(boxed(subject), Box::new(regex));
        }
        Self::Call(function, args.iter().map(Self::compile).collect())
    }

    pub(crate) fn eval(&self, row: &Row<'_>) -> Result<Value, DataError> {
        match self {
            Self::Const(value) => Ok(value.clone()),
            Self::Slot(slot) => Ok(row.slots[*slot].clone()),
            Self::Record(path) => Ok(row.record.path(path).clone()),
            Self::Applied(index, path) => Ok(row.applied.get(*index).map_or(Value::Null, |v| v.path(path).clone())),
            Self::Time => Ok(Value::DateTime(row.time)),
            Self::WindowId => Ok(row.window.map_or(Value::Null, Value::text)),
            Self::Key(index) => Ok(row.keys[*index].clone()),
            Self::Aggregate(index) => Ok(row.aggregates[*index].clone()),
            Self::Member(node, name) => Ok(node.eval(row)?.field(name).clone()),
            Self::Unary(UnaryOp::Negate, node) => scalars::negate(&node.eval(row)?),
            Self::Unary(UnaryOp::BitNot, node) => scalars::bit_not(&node.eval(row)?),
            Self::Binary(op, a, b) if is_arithmetic(*op) => scalars::arithmetic(*op, &a.eval(row)?, &b.eval(row)?),
            Self::Case(branches, otherwise) => {
                for (condition, result) in branches {
                    if condition.test(row)? == Some(true) {
                        return result.eval(row);
                    }
                }
                otherwise.as_ref().map_or(Ok(Value::Null), |o| o.eval(row))
            }
            Self::Cast(node, to, safe) => match scalars::cast(&node.eval(row)?, *to) {
                Err(_) if *safe => Ok(Value::Null),
                other => other,
            },
            Self::Regex(node, regex) => scalars::regex_match(&node.eval(row)?, regex),
            Self::Call(Function::Coalesce, args) => {
                for arg in args {
                    let value = arg.eval(row)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Ok(Value::Null)
            }
            Self::Call(Function::NullIf, args) => {
                let value = args[0].eval(row)?;
                let equal = compare(&value, &args[1].eval(row)?)?;
                Ok(if equal.is_some_and(std::cmp::Ordering::is_eq) { Value::Null } else { value })
            }
            Self::Call(function, args) => with_values(args, row, |values| scalars::call(*function, values)),
            Self::DateCall(function, unit, args) => {
                with_values(args, row, |values| scalars::date_call(*function, *unit, values))
            }
            condition => Ok(condition.test(row)?.map_or(Value::Null, Value::Bit)),
        }
    }

    /// A condition in three-valued logic; `None` is unknown.
    pub(crate) fn test(&self, row: &Row<'_>) -> Result<Option<bool>, DataError> {
        match self {
            Self::Unary(UnaryOp::Not, node) => Ok(node.test(row)?.map(|b| !b)),
            Self::Binary(BinaryOp::And, a, b) => match a.test(row)? {
                Some(false) => Ok(Some(false)),
                left => Ok(match (left, b.test(row)?) {
                    (_, Some(false)) => Some(false),
                    (Some(true), right) => right,
                    _ => None,
                }),
            },
            Self::Binary(BinaryOp::Or, a, b) => match a.test(row)? {
                Some(true) => Ok(Some(true)),
                left => Ok(match (left, b.test(row)?) {
                    (_, Some(true)) => Some(true),
                    (Some(false), right) => right,
                    _ => None,
                }),
            },
            Self::Binary(op, a, b) if !is_arithmetic(*op) => {
                let order = compare(&a.eval(row)?, &b.eval(row)?)?;
                Ok(order.map(|o| match op {
                    BinaryOp::Equal => o.is_eq(),
                    BinaryOp::NotEqual => o.is_ne(),
                    BinaryOp::Less => o.is_lt(),
                    BinaryOp::LessEqual => o.is_le(),
                    BinaryOp::Greater => o.is_gt(),
                    _ => o.is_ge(),
                }))
            }
            Self::IsNull(node) => Ok(Some(node.eval(row)?.is_null())),
            Self::In(node, list) => contains(&node.eval(row)?, list, row),
            Self::LikeConst(node, pattern) => like(&node.eval(row)?, pattern),
            Self::Like(node, pattern, escape) => match pattern.eval(row)? {
                Value::Null => Ok(None),
                Value::Text(pattern) => like(&node.eval(row)?, &Pattern::new(&pattern, *escape)),
                other => Err(other.wrong_type("LIKE")),
            },
            other => match other.eval(row)? {
                Value::Null => Ok(None),
                value => match value.as_integer() {
                    Some(n) => Ok(Some(n != 0)),
                    None => Err(value.wrong_type("a condition")),
                },
            },
        }
    }
}

/// Evaluates arguments; up to two, the most common, without an allocation.
fn with_values(
    args: &[Node],
    row: &Row<'_>,
    call: impl FnOnce(&[Value]) -> Result<Value, DataError>,
) -> Result<Value, DataError> {
    match args {
        [a] => call(&[a.eval(row)?]),
        [a, b] => call(&[a.eval(row)?, b.eval(row)?]),
        _ => call(&args.iter().map(|a| a.eval(row)).collect::<Result<Vec<_>, _>>()?),
    }
}

fn contains(value: &Value, list: &[Node], row: &Row<'_>) -> Result<Option<bool>, DataError> {
    let mut unknown = false;
    for item in list {
        match compare(value, &item.eval(row)?)? {
            Some(order) if order.is_eq() => return Ok(Some(true)),
            Some(_) => {}
            None => unknown = true,
        }
    }
    Ok(if unknown { None } else { Some(false) })
}

fn like(value: &Value, pattern: &Pattern) -> Result<Option<bool>, DataError> {
    match value {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(pattern.matches(text))),
        Value::BigInt(n) => Ok(Some(pattern.matches(&n.to_string()))),
        other => Err(other.wrong_type("LIKE")),
    }
}

/// Compares two values; a text beside a number or a datetime is read as one. `None` where one is NULL.
pub(crate) fn compare(a: &Value, b: &Value) -> Result<Option<std::cmp::Ordering>, DataError> {
    Ok(Some(match (a, b) {
        (Value::Null, _) | (_, Value::Null) => return Ok(None),
        (Value::Text(x), Value::Text(y)) => x.cmp(y),
        (Value::DateTime(x), Value::DateTime(y)) => x.cmp(y),
        (Value::DateTime(x), Value::Text(_)) => x.cmp(&scalars::datetime(b, "a comparison")?),
        (Value::Text(_), Value::DateTime(y)) => scalars::datetime(a, "a comparison")?.cmp(y),
        (Value::Text(_), _) => return compare(&scalars::number(a, "a comparison")?, b),
        (_, Value::Text(_)) => return compare(a, &scalars::number(b, "a comparison")?),
        _ if a.as_float().is_some() && b.as_float().is_some() => compare_numbers(a, b),
        (Value::Bit(_) | Value::BigInt(_) | Value::Float(_), _) => return Err(b.wrong_type("a comparison")),
        _ => return Err(a.wrong_type("a comparison")),
    }))
}

fn constant(literal: &Literal) -> Value {
    match literal {
        Literal::Null => Value::Null,
        Literal::BigInt(n) => Value::BigInt(*n),
        Literal::Float(f) => Value::Float(*f),
        Literal::Text(t) => Value::text(t),
    }
}

/// A constant text among the arguments of a date function is read once.
fn date_constant(expr: &Expr) -> Node {
    match expr {
        Expr::Literal(Literal::Text(text)) => {
            Node::Const(clock::parse(text).map_or_else(|| Value::text(text), Value::DateTime))
        }
        other => Node::compile(other),
    }
}

fn is_arithmetic(op: BinaryOp) -> bool {
    use BinaryOp::{Add, BitAnd, BitOr, BitXor, Divide, Modulo, Multiply, Subtract};
    matches!(op, Add | Subtract | Multiply | Divide | Modulo | BitAnd | BitOr | BitXor)
}
