//! Values: typed one by one, since JSON has no schema.

use std::{cmp::Ordering, fmt, sync::Arc};

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use super::{clock, error::DataError};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// 0 or 1; JSON true and false.
    Bit(bool),
    /// Integer.
    BigInt(i64),
    /// Float; never infinite, NaN or −0.
    Float(f64),
    /// Text.
    Text(Arc<str>),
    /// Ticks of 100 ns since 1970, UTC.
    DateTime(i64),
    /// Fields in their order.
    Record(Arc<Record>),
    /// Elements.
    Array(Arc<[Value]>),
}

/// Fields of a record, in the order of the JSON.
pub type Record = Vec<(Arc<str>, Value)>;

impl Value {
    /// A text.
    #[must_use]
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Arc::from(text.as_ref()))
    }

    /// A float, or an overflow.
    pub(crate) fn float(value: f64, operation: &str) -> Result<Self, DataError> {
        // There is one zero: −0 is 0.
        if value.is_finite() { Ok(Self::Float(value + 0.0)) } else { Err(DataError::Overflow(operation.to_owned())) }
    }

    /// The name of its type, as GETTYPE gives it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bit(_) => "bit",
            Self::BigInt(_) => "bigint",
            Self::Float(_) => "float",
            Self::Text(_) => "nvarchar(max)",
            Self::DateTime(_) => "datetime",
            Self::Record(_) => "record",
            Self::Array(_) => "array",
        }
    }

    /// A field of a record by name: its own case first, then any case. NULL where there is none.
    #[must_use]
    pub fn field(&self, name: &str) -> &Self {
        let Self::Record(fields) = self else { return &Self::Null };
        fields
            .iter()
            .find(|(n, _)| &**n == name)
            .or_else(|| fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)))
            .map_or(&Self::Null, |(_, v)| v)
    }

    /// A field by its path.
    #[must_use]
    pub fn path(&self, path: &[String]) -> &Self {
        path.iter().fold(self, |value, name| value.field(name))
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub(crate) fn wrong_type(&self, operation: &str) -> DataError {
        DataError::Type { operation: operation.to_owned(), found: self.type_name() }
    }

    /// A total order: NULL, then bits and numbers by value, texts by code point, datetimes, arrays, records.
    #[must_use]
    pub fn total_cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::DateTime(a), Self::DateTime(b)) => a.cmp(b),
            (Self::Array(a), Self::Array(b)) => a
                .iter()
                .zip(b.iter())
                .map(|(x, y)| x.total_cmp(y))
                .find(|o| o.is_ne())
                .unwrap_or_else(|| a.len().cmp(&b.len())),
            (Self::Record(a), Self::Record(b)) => a
                .iter()
                .zip(b.iter())
                .map(|(x, y)| x.0.cmp(&y.0).then_with(|| x.1.total_cmp(&y.1)))
                .find(|o| o.is_ne())
                .unwrap_or_else(|| a.len().cmp(&b.len())),
            _ => self.rank().cmp(&other.rank()).then_with(|| compare_numbers(self, other)),
        }
    }

    /// [`Self::total_cmp`], then bit, integer and float of one value in this order: the same order however rows are cut.
    pub(crate) fn exact_cmp(&self, other: &Self) -> Ordering {
        let width = |v: &Self| match v {
            Self::Bit(_) => 0,
            Self::BigInt(_) => 1,
            _ => 2,
        };
        self.total_cmp(other).then_with(|| width(self).cmp(&width(other)))
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bit(_) | Self::BigInt(_) | Self::Float(_) => 1,
            Self::Text(_) => 2,
            Self::DateTime(_) => 3,
            Self::Array(_) => 4,
            Self::Record(_) => 5,
        }
    }

    /// As an integer, where it is a bit or an integer.
    pub(crate) fn as_integer(&self) -> Option<i64> {
        match self {
            Self::Bit(b) => Some(i64::from(*b)),
            Self::BigInt(n) => Some(*n),
            _ => None,
        }
    }

    /// As a float, where it is a bit or a number.
    pub(crate) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(f) => Some(*f),
            #[expect(
                clippy::cast_precision_loss,
                reason = "the language compares and adds integers and floats as floats"
            )]
            _ => self.as_integer().map(|n| n as f64),
        }
    }
}

/// Compares bits, integers and floats by value, without loss; anything else is equal.
pub(crate) fn compare_numbers(a: &Value, b: &Value) -> Ordering {
    match (a.as_integer(), b.as_integer()) {
        (Some(x), Some(y)) => x.cmp(&y),
        (Some(x), None) => b.as_float().map_or(Ordering::Equal, |y| compare_mixed(x, y)),
        (None, Some(y)) => a.as_float().map_or(Ordering::Equal, |x| compare_mixed(y, x).reverse()),
        (None, None) => match (a, b) {
            (Value::Float(x), Value::Float(y)) => x.partial_cmp(y).unwrap_or(Ordering::Equal),
            _ => Ordering::Equal,
        },
    }
}

fn compare_mixed(integer: i64, float: f64) -> Ordering {
    // 2^63, which no integer reaches.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if float >= LIMIT {
        return Ordering::Less;
    }
    if float < -LIMIT {
        return Ordering::Greater;
    }
    #[expect(clippy::cast_possible_truncation, reason = "within the range, checked above")]
    let whole = float.trunc() as i64;
    integer.cmp(&whole).then_with(|| 0.0_f64.partial_cmp(&float.fract()).unwrap_or(Ordering::Equal))
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bit(b) => serializer.serialize_bool(*b),
            Self::BigInt(n) => serializer.serialize_i64(*n),
            Self::Float(f) => serializer.serialize_f64(*f),
            Self::Text(t) => serializer.serialize_str(t),
            Self::DateTime(ticks) => serializer.serialize_str(&clock::format(*ticks)),
            Self::Record(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                for (name, value) in fields.iter() {
                    map.serialize_entry(&**name, value)?;
                }
                map.end()
            }
            Self::Array(values) => {
                let mut seq = serializer.serialize_seq(Some(values.len()))?;
                for value in values.iter() {
                    seq.serialize_element(value)?;
                }
                seq.end()
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match serde_json::to_string(self) {
            Ok(json) => f.write_str(&json),
            Err(_) => f.write_str("?"),
        }
    }
}
