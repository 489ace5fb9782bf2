//! Operators, CAST and the scalar functions. NULL in gives NULL out unless said otherwise.

use drover_crds::query::{BinaryOp, Function, Type, Unit};
use regex::Regex;

use super::{clock, error::DataError, strings, text, value::Value};

fn overflow(operation: &str) -> DataError {
    DataError::Overflow(operation.to_owned())
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

/// A value as a number; a text is read as one.
pub(crate) fn number(value: &Value, operation: &str) -> Result<Value, DataError> {
    match value {
        Value::Bit(b) => Ok(Value::BigInt(i64::from(*b))),
        Value::BigInt(_) | Value::Float(_) => Ok(value.clone()),
        Value::Text(t) => {
            let t = t.trim();
            if let Ok(n) = t.parse() {
                return Ok(Value::BigInt(n));
            }
            read_float(t).map(Value::Float).ok_or_else(|| value.wrong_type(operation))
        }
        _ => Err(value.wrong_type(operation)),
    }
}

fn read_float(text: &str) -> Option<f64> {
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse::<f64>().ok().filter(|f| numeric && f.is_finite()).map(|f| f + 0.0)
}

fn float(value: &Value, operation: &str) -> Result<f64, DataError> {
    number(value, operation)?.as_float().ok_or_else(|| value.wrong_type(operation))
}

/// A value as an integer; a fraction is cut off.
pub(crate) fn integer(value: &Value, operation: &str) -> Result<i64, DataError> {
    match number(value, operation)? {
        Value::Float(f) => truncate(f).ok_or_else(|| overflow(operation)),
        other => other.as_integer().ok_or_else(|| value.wrong_type(operation)),
    }
}

fn truncate(f: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    #[expect(clippy::cast_possible_truncation, reason = "within the range")]
    (-LIMIT..LIMIT).contains(&f).then_some(f as i64)
}

/// A value as a datetime; a text is read as one.
pub(crate) fn datetime(value: &Value, operation: &str) -> Result<i64, DataError> {
    match value {
        Value::DateTime(ticks) => Ok(*ticks),
        Value::Text(text) => clock::parse(text).ok_or_else(|| DataError::Date(short(value))),
        _ => Err(value.wrong_type(operation)),
    }
}

pub(crate) fn negate(value: &Value) -> Result<Value, DataError> {
    match value {
        Value::Null => Ok(Value::Null),
        _ => match number(value, "negation")? {
            Value::Float(f) => Value::float(-f, "negation"),
            n => n.as_integer().and_then(i64::checked_neg).map(Value::BigInt).ok_or_else(|| overflow("negation")),
        },
    }
}

pub(crate) fn bit_not(value: &Value) -> Result<Value, DataError> {
    match value {
        Value::Null => Ok(Value::Null),
        Value::Bit(b) => Ok(Value::Bit(!b)),
        Value::BigInt(n) => Ok(Value::BigInt(!n)),
        other => Err(other.wrong_type("~")),
    }
}

pub(crate) fn arithmetic(op: BinaryOp, a: &Value, b: &Value) -> Result<Value, DataError> {
    if a.is_null() || b.is_null() {
        return Ok(Value::Null);
    }
    if matches!(op, BinaryOp::BitAnd | BinaryOp::BitOr | BinaryOp::BitXor) {
        return bits(op, a, b);
    }
    if let (BinaryOp::Add, Value::Text(x), Value::Text(y)) = (op, a, b) {
        return strings::made([&**x, &**y].concat());
    }
    let name = match op {
        BinaryOp::Add => "addition",
        BinaryOp::Subtract => "subtraction",
        BinaryOp::Multiply => "multiplication",
        BinaryOp::Divide => "division",
        _ => "remainder",
    };
    let (x, y) = (number(a, name)?, number(b, name)?);
    if let (Value::BigInt(x), Value::BigInt(y)) = (&x, &y) {
        return integers(op, *x, *y, name);
    }
    let (x, y) = (float(&x, name)?, float(&y, name)?);
    if y == 0.0 && matches!(op, BinaryOp::Divide | BinaryOp::Modulo) {
        return Err(DataError::DivisionByZero);
    }
    let result = match op {
        BinaryOp::Add => x + y,
        BinaryOp::Subtract => x - y,
        BinaryOp::Multiply => x * y,
        BinaryOp::Divide => x / y,
        _ => x % y,
    };
    Value::float(result, name)
}

fn integers(op: BinaryOp, x: i64, y: i64, name: &str) -> Result<Value, DataError> {
    if y == 0 && matches!(op, BinaryOp::Divide | BinaryOp::Modulo) {
        return Err(DataError::DivisionByZero);
    }
    let result = match op {
        BinaryOp::Add => x.checked_add(y),
        BinaryOp::Subtract => x.checked_sub(y),
        BinaryOp::Multiply => x.checked_mul(y),
        BinaryOp::Divide => x.checked_div(y),
        _ => Some(x.checked_rem(y).unwrap_or(0)),
    };
    result.map(Value::BigInt).ok_or_else(|| overflow(name))
}

fn bits(op: BinaryOp, a: &Value, b: &Value) -> Result<Value, DataError> {
    let (Some(x), Some(y)) = (a.as_integer(), b.as_integer()) else {
        return Err(if a.as_integer().is_some() { b } else { a }.wrong_type("a bit operator"));
    };
    let result = match op {
        BinaryOp::BitAnd => x & y,
        BinaryOp::BitOr => x | y,
        _ => x ^ y,
    };
    Ok(if matches!((a, b), (Value::Bit(_), Value::Bit(_))) { Value::Bit(result != 0) } else { Value::BigInt(result) })
}

pub(crate) fn cast(value: &Value, to: Type) -> Result<Value, DataError> {
    let failed = || DataError::Cast { value: short(value), to: to.to_string() };
    Ok(match (to, value) {
        (_, Value::Null) => Value::Null,
        (Type::BigInt, Value::BigInt(_))
        | (Type::Float, Value::Float(_))
        | (Type::Bit, Value::Bit(_))
        | (Type::DateTime, Value::DateTime(_))
        | (Type::NVarChar, Value::Text(_)) => value.clone(),
        (Type::BigInt, Value::Bit(b)) => Value::BigInt(i64::from(*b)),
        (Type::BigInt, Value::Float(f)) => Value::BigInt(truncate(*f).ok_or_else(failed)?),
        (Type::BigInt, Value::Text(t)) => Value::BigInt(t.trim().parse().map_err(|_| failed())?),
        (Type::Float, Value::Text(t)) => Value::Float(read_float(t.trim()).ok_or_else(failed)?),
        (Type::Float, Value::Bit(_) | Value::BigInt(_)) => Value::Float(value.as_float().ok_or_else(failed)?),
        (Type::Bit, Value::BigInt(n)) => Value::Bit(*n != 0),
        (Type::Bit, Value::Float(f)) => Value::Bit(*f != 0.0),
        (Type::Bit, Value::Text(t)) => match t.trim().to_ascii_lowercase().as_str() {
            "1" | "true" => Value::Bit(true),
            "0" | "false" => Value::Bit(false),
            _ => return Err(failed()),
        },
        (Type::DateTime, Value::Text(t)) => Value::DateTime(clock::parse(t).ok_or_else(failed)?),
        (Type::NVarChar, _) => Value::text(as_text(value)),
        _ => return Err(failed()),
    })
}

/// A value as text, as CAST and CONCAT write it.
pub(crate) fn as_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bit(b) => u8::from(*b).to_string(),
        Value::BigInt(n) => n.to_string(),
        Value::Float(f) => f.to_string(),
        Value::Text(t) => t.to_string(),
        Value::DateTime(ticks) => clock::format_long(*ticks),
        Value::Record(_) | Value::Array(_) => value.to_string(),
    }
}

/// A function whose first argument is a part of a date.
pub(crate) fn date_call(function: Function, unit: Unit, args: &[Value]) -> Result<Value, DataError> {
    let name = function.name();
    if args.iter().any(Value::is_null) {
        return Ok(Value::Null);
    }
    let last = datetime(&args[args.len() - 1], name)?;
    Ok(match function {
        Function::DateAdd => {
            let count = integer(&args[0], name)?;
            Value::DateTime(clock::add(unit, count, last).ok_or_else(|| {
                DataError::Date(format!("DATEADD({}, {count}, {})", unit.name(), clock::format(last)))
            })?)
        }
        Function::DateDiff => Value::BigInt(clock::difference(unit, datetime(&args[0], name)?, last)),
        Function::DateName => Value::text(clock::name(unit, last)),
        _ => Value::BigInt(clock::part(unit, last)),
    })
}

pub(crate) fn regex_match(value: &Value, regex: &Regex) -> Result<Value, DataError> {
    match value {
        Value::Null => Ok(Value::Null),
        Value::Text(text) => Ok(Value::BigInt(text::find(regex, text))),
        other => Err(other.wrong_type("REGEXMATCH")),
    }
}

/// Any other function.
pub(crate) fn call(function: Function, args: &[Value]) -> Result<Value, DataError> {
    use Function as F;
    match function {
        F::Concat => return strings::made(args.iter().map(as_text).collect()),
        F::ConcatWs => {
            let separator = as_text(&args[0]);
            let parts: Vec<String> = args[1..].iter().filter(|a| !a.is_null()).map(as_text).collect();
            return strings::made(parts.join(&separator));
        }
        F::GetType => return Ok(Value::text(args[0].type_name())),
        _ if args.iter().any(Value::is_null) => return Ok(Value::Null),
        _ => {}
    }
    let name = function.name();
    match function {
        F::Abs | F::Ceiling | F::Floor | F::Sign | F::Round => rounding(function, args, name),
        F::Exp => Value::float(float(&args[0], name)?.exp(), name),
        F::Power => Value::float(float(&args[0], name)?.powf(float(&args[1], name)?), name),
        F::Square => Value::float(float(&args[0], name)?.powi(2), name),
        F::Sqrt => match float(&args[0], name)? {
            f if f < 0.0 => Err(DataError::Argument("SQRT of a negative number".to_owned())),
            f => Ok(Value::Float(f.sqrt())),
        },
        F::Year => date_call(F::DatePart, Unit::Year, args),
        F::Month => date_call(F::DatePart, Unit::Month, args),
        F::Day => date_call(F::DatePart, Unit::Day, args),
        F::DateTimeFromParts => {
            let parts = args.iter().map(|a| integer(a, name)).collect::<Result<Vec<_>, _>>()?;
            clock::from_parts(&parts)
                .map(Value::DateTime)
                .ok_or_else(|| DataError::Date(format!("DATETIMEFROMPARTS{parts:?}")))
        }
        F::GetArrayElement | F::GetArrayLength | F::GetRecordPropertyValue => nested(function, args, name),
        _ => strings::call(function, args, name),
    }
}

fn rounding(function: Function, args: &[Value], name: &str) -> Result<Value, DataError> {
    match (function, number(&args[0], name)?) {
        (Function::Abs, Value::BigInt(n)) => n.checked_abs().map(Value::BigInt).ok_or_else(|| overflow(name)),
        (Function::Abs, Value::Float(f)) => Ok(Value::Float(f.abs())),
        (Function::Sign, Value::BigInt(n)) => Ok(Value::BigInt(n.signum())),
        (Function::Sign, Value::Float(f)) => Ok(Value::Float(if f == 0.0 { 0.0 } else { f.signum() })),
        (Function::Ceiling, Value::Float(f)) => Value::float(f.ceil(), name),
        (Function::Floor, Value::Float(f)) => Value::float(f.floor(), name),
        (Function::Round, n) => {
            let digits = integer(&args[1], name)?.clamp(-330, 330);
            let cut = args.get(2).map(|a| integer(a, name)).transpose()?.unwrap_or(0) != 0;
            round(&n, digits, cut, name)
        }
        (_, n) => Ok(n),
    }
}

fn round(n: &Value, digits: i64, cut: bool, name: &str) -> Result<Value, DataError> {
    match n {
        Value::BigInt(n) if digits >= 0 => Ok(Value::BigInt(*n)),
        Value::BigInt(n) => {
            let Some(unit) = u32::try_from(-digits).ok().filter(|d| *d < 19).map(|d| 10_i128.pow(d)) else {
                return Ok(Value::BigInt(0));
            };
            let n = i128::from(*n);
            let half = if cut { 0 } else { unit / 2 * n.signum() };
            let rounded = (n + half) / unit * unit;
            i64::try_from(rounded).map(Value::BigInt).map_err(|_| overflow(name))
        }
        other => {
            let f = float(other, name)?;
            let scale = 10.0_f64.powi(i32::try_from(digits).unwrap_or(0));
            let scaled = f * scale;
            if !scaled.is_finite() || scale == 0.0 {
                return Ok(Value::Float(if scale == 0.0 { 0.0 } else { f }));
            }
            Value::float(if cut { scaled.trunc() } else { scaled.round() } / scale, name)
        }
    }
}

fn nested(function: Function, args: &[Value], name: &str) -> Result<Value, DataError> {
    match (function, &args[0]) {
        (Function::GetArrayLength, Value::Array(values)) => {
            Ok(Value::BigInt(i64::try_from(values.len()).unwrap_or(i64::MAX)))
        }
        (Function::GetArrayElement, Value::Array(values)) => {
            let index = usize::try_from(integer(&args[1], name)?).ok();
            Ok(index.and_then(|i| values.get(i)).cloned().unwrap_or(Value::Null))
        }
        (Function::GetRecordPropertyValue, Value::Record(_)) => {
            let path = strings::string(&args[1], name)?;
            let whole = args[0].field(&path);
            if !whole.is_null() {
                return Ok(whole.clone());
            }
            Ok(path.split('.').fold(&args[0], |v, part| v.field(part)).clone())
        }
        (_, other) => Err(other.wrong_type(name)),
    }
}
