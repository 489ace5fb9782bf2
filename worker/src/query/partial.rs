//! Partial aggregates: values that take one more row, merge in any order and grouping, and have a stored form.

mod stored;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use drover_crds::query::AggregateKind;

use super::{error::DataError, exact::ExactSum, key, sketch::Sketch, value::Value};

/// What an aggregate is, without its expressions.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) kind: AggregateKind,
    pub(crate) distinct: bool,
    /// For each expression of ORDER BY, whether it is descending.
    pub(crate) descending: Vec<bool>,
}

/// What one row adds to an aggregate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Term {
    /// Nothing: NULL, or filtered out.
    Nothing,
    Value(Value),
    Ranked(Ranked),
}

/// An event with its rank: the values of ORDER BY, then its time and place, so that no two are equal.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) order: Vec<Value>,
    pub(crate) time: i64,
    pub(crate) position: u64,
    pub(crate) value: Value,
}

/// A float's order, for maps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ordered(Value);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.exact_cmp(&other.0)
    }
}

/// Sum of integers and of floats.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Total {
    count: u64,
    integers: i128,
    floats: Option<ExactSum>,
}

/// Count, sum and sum of squares, both exact.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Moments {
    count: u64,
    sum: ExactSum,
    squares: ExactSum,
}

/// A partial aggregate.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Partial {
    Count(u64),
    Total(Box<Total>),
    Moments(Box<Moments>),
    Extreme(Value),
    Distinct(BTreeSet<Box<[u8]>>),
    Values(BTreeMap<Ordered, u64>),
    Ranked(Vec<Ranked>),
    Sketch(Box<Sketch>),
}

impl Partial {
    pub(crate) fn new(shape: &Shape) -> Self {
        match shape.kind {
            AggregateKind::Count if shape.distinct => Self::Distinct(BTreeSet::new()),
            AggregateKind::CountAll | AggregateKind::Count => Self::Count(0),
            AggregateKind::Sum | AggregateKind::Avg => Self::Total(Box::default()),
            AggregateKind::Var | AggregateKind::Varp | AggregateKind::Stdev | AggregateKind::Stdevp => {
                Self::Moments(Box::default())
            }
            AggregateKind::Min | AggregateKind::Max => Self::Extreme(Value::Null),
            AggregateKind::PercentileCont(_) | AggregateKind::PercentileDisc(_) => Self::Values(BTreeMap::new()),
            AggregateKind::TopOne | AggregateKind::CollectTop(_) | AggregateKind::Collect => Self::Ranked(Vec::new()),
            AggregateKind::ApproxCountDistinct => Self::Sketch(Box::new(Sketch::new())),
        }
    }

    /// Adds a term that [`check`] has passed.
    pub(crate) fn add(&mut self, shape: &Shape, term: &Term) {
        match (self, term) {
            (_, Term::Nothing) => {}
            (Self::Count(n), _) => *n += 1,
            (Self::Total(total), Term::Value(value)) => total.add(value),
            (Self::Moments(moments), Term::Value(value)) => moments.add(value),
            (Self::Extreme(own), Term::Value(value)) => extreme(shape.kind, own, value),
            (Self::Distinct(set), Term::Value(value)) => {
                let mut bytes = Vec::new();
                key::encode(value, &mut bytes);
                set.insert(bytes.into());
            }
            (Self::Sketch(sketch), Term::Value(value)) => {
                let mut bytes = Vec::new();
                key::encode(value, &mut bytes);
                sketch.add(&bytes);
            }
            (Self::Values(values), Term::Value(value)) => *values.entry(Ordered(value.clone())).or_default() += 1,
            (Self::Ranked(list), Term::Ranked(ranked)) => insert(shape, list, ranked.clone()),
            _ => {}
        }
    }

    pub(crate) fn merge(&mut self, shape: &Shape, other: &Self) {
        match (self, other) {
            (Self::Count(a), Self::Count(b)) => *a += b,
            (Self::Total(a), Self::Total(b)) => a.merge(b),
            (Self::Moments(a), Self::Moments(b)) => {
                a.count += b.count;
                a.sum.merge(&b.sum);
                a.squares.merge(&b.squares);
            }
            (Self::Extreme(a), Self::Extreme(b)) if !b.is_null() => extreme(shape.kind, a, b),
            (Self::Distinct(a), Self::Distinct(b)) => a.extend(b.iter().cloned()),
            (Self::Sketch(a), Self::Sketch(b)) => a.merge(b),
            (Self::Values(a), Self::Values(b)) => {
                for (value, n) in b {
                    *a.entry(value.clone()).or_default() += n;
                }
            }
            (Self::Ranked(a), Self::Ranked(b)) => {
                for ranked in b {
                    insert(shape, a, ranked.clone());
                }
            }
            _ => {}
        }
    }

    /// The aggregate's value.
    pub(crate) fn finish(&self, shape: &Shape) -> Result<Value, DataError> {
        match self {
            Self::Count(n) => count(*n),
            Self::Distinct(set) => count(set.len() as u64),
            Self::Sketch(sketch) => Ok(Value::BigInt(sketch.estimate())),
            Self::Extreme(value) => Ok(value.clone()),
            Self::Total(total) => total.finish(shape.kind),
            Self::Moments(moments) => moments.finish(shape.kind),
            Self::Values(values) => percentile(shape.kind, values),
            Self::Ranked(list) => Ok(ranked(shape.kind, list)),
        }
    }
}

/// Whether a value may be a term of the aggregate.
pub(crate) fn check(shape: &Shape, value: &Value) -> Result<(), DataError> {
    let numeric = matches!(value, Value::Bit(_) | Value::BigInt(_) | Value::Float(_));
    let fits = match shape.kind {
        AggregateKind::Sum | AggregateKind::Avg => numeric,
        AggregateKind::Var | AggregateKind::Varp | AggregateKind::Stdev | AggregateKind::Stdevp => {
            if numeric && value.as_float().is_some_and(|f| !(f * f).is_finite()) {
                return Err(DataError::Overflow("the variance".to_owned()));
            }
            numeric
        }
        AggregateKind::PercentileCont(_) | AggregateKind::PercentileDisc(_) => {
            numeric || matches!(value, Value::DateTime(_))
        }
        AggregateKind::Min | AggregateKind::Max => !matches!(value, Value::Record(_) | Value::Array(_)),
        _ => true,
    };
    if fits { Ok(()) } else { Err(value.wrong_type("an aggregate")) }
}

fn count(n: u64) -> Result<Value, DataError> {
    i64::try_from(n).map(Value::BigInt).map_err(|_| DataError::Overflow("COUNT".to_owned()))
}

fn extreme(kind: AggregateKind, own: &mut Value, value: &Value) {
    let order = value.total_cmp(own);
    // Of 1 and 1.0 the integer stays, whichever came first.
    let same = order.is_eq()
        && matches!(
            (&*own, value),
            (Value::Float(_) | Value::Bit(_), Value::BigInt(_)) | (Value::Float(_), Value::Bit(_))
        );
    let better = if kind == AggregateKind::Min { order.is_lt() } else { order.is_gt() };
    if own.is_null() || better || same {
        *own = value.clone();
    }
}

impl Total {
    fn add(&mut self, value: &Value) {
        self.count += 1;
        match value {
            Value::Float(f) => self.floats.get_or_insert_default().add(*f),
            other => self.integers += i128::from(other.as_integer().unwrap_or(0)),
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.integers += other.integers;
        if let Some(floats) = &other.floats {
            self.floats.get_or_insert_default().merge(floats);
        }
    }

    fn finish(&self, kind: AggregateKind) -> Result<Value, DataError> {
        if self.count == 0 {
            return Ok(Value::Null);
        }
        if kind == AggregateKind::Sum && self.floats.is_none() {
            return i64::try_from(self.integers).map(Value::BigInt).map_err(|_| DataError::Overflow("SUM".to_owned()));
        }
        let mut sum = self.floats.clone().unwrap_or_default();
        sum.add_integer(self.integers);
        if kind == AggregateKind::Sum {
            return Value::float(sum.round(), "SUM");
        }
        let (high, low) = sum.split();
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let n = self.count as f64;
        // The remainder of the division keeps the last bit right where the sum has more bits than a float.
        let quotient = high / n;
        let rest = (-quotient).mul_add(n, high) + low;
        Value::float(quotient + rest / n, "AVG")
    }
}

impl Moments {
    fn add(&mut self, value: &Value) {
        let Some(f) = value.as_float() else { return };
        self.count += 1;
        self.sum.add(f);
        let square = f * f;
        self.squares.add(square);
        self.squares.add(f.mul_add(f, -square));
    }

    /// (Σx² − (Σx)²/n) / n or n−1, in double-double: Σ are exact, so only the last step rounds.
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    fn finish(&self, kind: AggregateKind) -> Result<Value, DataError> {
        let sample = matches!(kind, AggregateKind::Var | AggregateKind::Stdev);
        let n = self.count as f64;
        let divisor = if sample { n - 1.0 } else { n };
        if divisor <= 0.0 {
            return Ok(Value::Null);
        }
        let (high, low) = self.sum.split();
        let mean = high / n;
        let mean_low = ((-mean).mul_add(n, high) + low) / n;
        // Σ(x−m)² = Σx² − 2mΣx + nm², with m the rounded mean, all of it exact until the end.
        let mut squares = self.squares.clone();
        for (a, b) in [(-2.0 * mean, high), (-2.0 * mean, low)] {
            add_product(&mut squares, a, b);
        }
        let mm = mean * mean;
        add_product(&mut squares, mm, n);
        add_product(&mut squares, mean.mul_add(mean, -mm), n);
        let about_mean = (squares.round() - n * mean_low * mean_low).max(0.0);
        let variance = about_mean / divisor;
        let result =
            if matches!(kind, AggregateKind::Stdev | AggregateKind::Stdevp) { variance.sqrt() } else { variance };
        Value::float(result, "the variance")
    }
}

fn add_product(sum: &mut ExactSum, a: f64, b: f64) {
    let product = a * b;
    if product.is_finite() {
        sum.add(product);
        sum.add(a.mul_add(b, -product));
    }
}

fn percentile(kind: AggregateKind, values: &BTreeMap<Ordered, u64>) -> Result<Value, DataError> {
    let total: u64 = values.values().sum();
    if total == 0 {
        return Ok(Value::Null);
    }
    let nth = |index: u64| {
        let mut seen = 0;
        values
            .iter()
            .find(|(_, n)| {
                seen += *n;
                seen > index
            })
            .map_or(Value::Null, |(v, _)| v.0.clone())
    };
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place among rows held in memory"
    )]
    match kind {
        AggregateKind::PercentileDisc(p) => {
            let rank = ((p.abs() * total as f64).ceil() as u64).clamp(1, total);
            // A negative fraction counts from the greatest.
            Ok(nth(if p.is_sign_negative() { total - rank } else { rank - 1 }))
        }
        AggregateKind::PercentileCont(p) => {
            let place = p * (total - 1) as f64;
            let (low, high) = (nth(place.floor() as u64), nth(place.ceil() as u64));
            let share = place - place.floor();
            if let (Value::DateTime(a), Value::DateTime(b)) = (&low, &high) {
                Ok(Value::DateTime(a + ((b - a) as f64 * share).round() as i64))
            } else {
                let (a, b) = (low.as_float().unwrap_or(0.0), high.as_float().unwrap_or(0.0));
                Value::float(a + (b - a) * share, "PERCENTILE_CONT")
            }
        }
        _ => Ok(Value::Null),
    }
}

fn insert(shape: &Shape, list: &mut Vec<Ranked>, ranked: Ranked) {
    let at = list.partition_point(|r| precedes(shape, r, &ranked));
    let keep = match shape.kind {
        AggregateKind::TopOne => 1,
        AggregateKind::CollectTop(n) => n,
        _ => usize::MAX,
    };
    if at < keep {
        list.insert(at, ranked);
        list.truncate(keep);
    }
}

fn precedes(shape: &Shape, a: &Ranked, b: &Ranked) -> bool {
    let by_order = a.order.iter().zip(&b.order).zip(&shape.descending).map(|((x, y), descending)| {
        let order = x.total_cmp(y);
        if *descending { order.reverse() } else { order }
    });
    let order = by_order.fold(Ordering::Equal, Ordering::then);
    order
        .then_with(|| (a.time, a.position).cmp(&(b.time, b.position)))
        .then_with(|| a.value.exact_cmp(&b.value))
        .is_le()
}

fn ranked(kind: AggregateKind, list: &[Ranked]) -> Value {
    match kind {
        AggregateKind::TopOne => list.first().map_or(Value::Null, |r| r.value.clone()),
        AggregateKind::Collect => Value::Array(list.iter().map(|r| r.value.clone()).collect()),
        _ => {
            let ranks = list.iter().zip(1_i64..).map(|(r, rank)| {
                Value::Record(Arc::new(vec![
                    (Arc::from("rank"), Value::BigInt(rank)),
                    (Arc::from("value"), r.value.clone()),
                ]))
            });
            Value::Array(ranks.collect())
        }
    }
}
