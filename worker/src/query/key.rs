//! The encodings of values. The canonical one is for group keys and sets of distinct values: equal values have equal bytes, 1 and 1.0
//! are one number. The exact one is for stored values, which come back as they were.

use std::sync::Arc;

use super::value::Value;

const NULL: u8 = 0;
const BIT: u8 = 1;
const INTEGER: u8 = 2;
const FLOAT: u8 = 3;
const TEXT: u8 = 4;
const DATETIME: u8 = 5;
const RECORD: u8 = 6;
const ARRAY: u8 = 7;

/// Deepest value that is read back; what was written came from JSON, which is no deeper.
const MAX_DEPTH: usize = 256;

/// Appends a value in the canonical encoding.
pub(crate) fn encode(value: &Value, out: &mut Vec<u8>) {
    append(value, false, out);
}

/// Appends a value in the exact encoding: a float stays one.
pub(crate) fn encode_exactly(value: &Value, out: &mut Vec<u8>) {
    append(value, true, out);
}

fn append(value: &Value, exact: bool, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bit(b) => out.extend([BIT, u8::from(*b)]),
        Value::BigInt(n) => tagged(INTEGER, &n.to_le_bytes(), out),
        Value::Float(f) => match whole(*f) {
            Some(n) if !exact => tagged(INTEGER, &n.to_le_bytes(), out),
            _ => tagged(FLOAT, &f.to_bits().to_le_bytes(), out),
        },
        Value::Text(t) => {
            out.push(TEXT);
            bytes(t.as_bytes(), out);
        }
        Value::DateTime(ticks) => tagged(DATETIME, &ticks.to_le_bytes(), out),
        Value::Record(fields) => {
            out.push(RECORD);
            length(fields.len(), out);
            for (name, value) in fields.iter() {
                bytes(name.as_bytes(), out);
                append(value, exact, out);
            }
        }
        Value::Array(values) => {
            out.push(ARRAY);
            length(values.len(), out);
            for value in values.iter() {
                append(value, exact, out);
            }
        }
    }
}

fn whole(f: f64) -> Option<i64> {
    // Floats from 2^53 on are whole, but not each integer there is a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "below 2^53")]
    (f.fract() == 0.0 && f.abs() <= EXACT).then_some(f as i64)
}

fn tagged(tag: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(payload);
}

/// Appends a length.
pub(crate) fn length(n: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
}

/// Appends bytes with their length.
pub(crate) fn bytes(b: &[u8], out: &mut Vec<u8>) {
    length(b.len(), out);
    out.extend_from_slice(b);
}

/// Reads what was encoded.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.u64().map(u64::cast_signed)
    }

    pub(crate) fn length(&mut self) -> Option<usize> {
        let n = u32::from_le_bytes(self.take(4)?.try_into().ok()?);
        usize::try_from(n).ok()
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let n = self.length()?;
        self.take(n)
    }

    fn text(&mut self) -> Option<Arc<str>> {
        std::str::from_utf8(self.bytes()?).ok().map(Arc::from)
    }

    pub(crate) fn value(&mut self) -> Option<Value> {
        self.value_at(0)
    }

    fn value_at(&mut self, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        Some(match self.byte()? {
            NULL => Value::Null,
            BIT => Value::Bit(self.byte()? != 0),
            INTEGER => Value::BigInt(self.i64()?),
            FLOAT => Value::Float(f64::from_bits(self.u64()?)),
            TEXT => Value::Text(self.text()?),
            DATETIME => Value::DateTime(self.i64()?),
            RECORD => {
                let n = self.length()?;
                let fields =
                    (0..n).map(|_| Some((self.text()?, self.value_at(depth + 1)?))).collect::<Option<Vec<_>>>()?;
                Value::Record(Arc::new(fields))
            }
            ARRAY => {
                let n = self.length()?;
                let values = (0..n).map(|_| self.value_at(depth + 1)).collect::<Option<Vec<_>>>()?;
                Value::Array(values.into())
            }
            _ => return None,
        })
    }
}
