//! The functions of text. Places and lengths count characters.

use drover_crds::query::Function;

use super::{
    error::DataError,
    scalars::{as_text, integer, regex_match},
    text::{self, Pattern},
    value::Value,
};

/// Longest text that a function may make, in bytes.
const MAX_TEXT: usize = 1 << 20;

pub(crate) fn made(text: String) -> Result<Value, DataError> {
    if text.len() > MAX_TEXT {
        Err(DataError::Argument(format!("a text longer than {MAX_TEXT} bytes")))
    } else {
        Ok(Value::text(text))
    }
}

pub(crate) fn string(value: &Value, name: &str) -> Result<String, DataError> {
    match value {
        Value::Record(_) | Value::Array(_) => Err(value.wrong_type(name)),
        other => Ok(as_text(other)),
    }
}

fn count(value: &Value, name: &str) -> Result<usize, DataError> {
    let n = integer(value, name)?;
    usize::try_from(n).map_err(|_| DataError::Argument(format!("{name} does not take the length {n}")))
}

fn place(n: usize) -> Value {
    Value::BigInt(i64::try_from(n).unwrap_or(i64::MAX))
}

pub(crate) fn call(function: Function, args: &[Value], name: &str) -> Result<Value, DataError> {
    use Function as F;
    if function == F::Space {
        return repeat(" ", integer(&args[0], name)?);
    }
    if function == F::Nchar {
        let code = u32::try_from(integer(&args[0], name)?).ok().and_then(char::from_u32);
        return Ok(code.map_or(Value::Null, |c| Value::text(c.to_string())));
    }
    let s = string(&args[0], name)?;
    match function {
        F::Lower => made(s.to_lowercase()),
        F::Upper => made(s.to_uppercase()),
        F::Ltrim => made(s.trim_start_matches(' ').to_owned()),
        F::Rtrim => made(s.trim_end_matches(' ').to_owned()),
        F::Trim => made(s.trim_matches(' ').to_owned()),
        F::Reverse => made(s.chars().rev().collect()),
        F::Len => Ok(place(s.trim_end_matches(' ').chars().count())),
        F::Unicode => Ok(s.chars().next().map_or(Value::Null, |c| Value::BigInt(i64::from(u32::from(c))))),
        F::Left => made(s.chars().take(count(&args[1], name)?).collect()),
        F::Right => {
            let n = s.chars().count().saturating_sub(count(&args[1], name)?);
            made(s.chars().skip(n).collect())
        }
        F::Replicate => repeat(&s, integer(&args[1], name)?),
        F::CharIndex => char_index(&s, args, name),
        F::PatIndex => Ok(Value::BigInt(Pattern::new(&s, None).find(&string(&args[1], name)?))),
        F::RegexMatch => match text::regex(&string(&args[1], name)?) {
            Some(regex) => regex_match(&args[0], &regex),
            None => Ok(Value::BigInt(0)),
        },
        F::Replace => {
            let (from, to) = (string(&args[1], name)?, string(&args[2], name)?);
            if from.is_empty() {
                return made(s);
            }
            if s.matches(&from).count().saturating_mul(to.len()) > MAX_TEXT {
                return Err(DataError::Argument(format!("a text longer than {MAX_TEXT} bytes")));
            }
            made(s.replace(&from, &to))
        }
        F::Translate => translate(&s, args, name),
        F::Substring => {
            let (from, length) = (integer(&args[1], name)?, integer(&args[2], name)?);
            if length < 0 {
                return Err(DataError::Argument(format!("{name} does not take the length {length}")));
            }
            // A start before 1 counts towards the length.
            let end = from.saturating_add(length).max(1);
            let start = from.max(1);
            let take = usize::try_from(end.saturating_sub(start).max(0)).unwrap_or(usize::MAX);
            made(s.chars().skip(usize::try_from(start - 1).unwrap_or(usize::MAX)).take(take).collect())
        }
        F::Stuff => {
            let (from, length) = (integer(&args[1], name)?, integer(&args[2], name)?);
            let chars: Vec<char> = s.chars().collect();
            let Some(from) = usize::try_from(from - 1).ok().filter(|f| *f < chars.len() && length >= 0) else {
                return Ok(Value::Null);
            };
            let end = from.saturating_add(usize::try_from(length).unwrap_or(usize::MAX)).min(chars.len());
            let middle = string(&args[3], name)?;
            made(chars[..from].iter().copied().chain(middle.chars()).chain(chars[end..].iter().copied()).collect())
        }
        _ => Err(args[0].wrong_type(name)),
    }
}

/// NULL for a negative count.
fn repeat(text: &str, times: i64) -> Result<Value, DataError> {
    if times < 0 {
        return Ok(Value::Null);
    }
    let times = usize::try_from(times).unwrap_or(usize::MAX);
    if text.len().saturating_mul(times) > MAX_TEXT {
        return Err(DataError::Argument(format!("a text longer than {MAX_TEXT} bytes")));
    }
    made(text.repeat(times))
}

fn char_index(part: &str, args: &[Value], name: &str) -> Result<Value, DataError> {
    let whole = string(&args[1], name)?;
    let skip = match args.get(2) {
        Some(start) => usize::try_from(integer(start, name)?.max(1) - 1).unwrap_or(usize::MAX),
        None => 0,
    };
    let from = whole.char_indices().nth(skip).map_or(whole.len(), |(i, _)| i);
    let found = if part.is_empty() { None } else { whole[from..].find(part) };
    Ok(found.map_or(Value::BigInt(0), |at| place(whole[..from + at].chars().count() + 1)))
}

fn translate(s: &str, args: &[Value], name: &str) -> Result<Value, DataError> {
    let from: Vec<char> = string(&args[1], name)?.chars().collect();
    let to: Vec<char> = string(&args[2], name)?.chars().collect();
    if from.len() != to.len() {
        return Err(DataError::Argument("TRANSLATE takes as many characters as replacements".to_owned()));
    }
    made(s.chars().map(|c| from.iter().position(|f| *f == c).map_or(c, |i| to[i])).collect())
}
