//! A JSON value becomes the text that PostgreSQL casts to a column's type. Pure.
//!
//! What plainly does not fit is refused here, before it costs a transaction; the rest is the database's to judge.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{decode, reject::Rejection};
use crate::store::table::{Column, Kind};

/// What a row has for a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    /// Nothing: the column takes its default.
    Absent,
    /// NULL.
    Null,
    /// A value's text.
    Text(Cow<'a, str>),
}

impl Cell<'_> {
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Cell::Text(text) => Some(text),
            Cell::Absent | Cell::Null => None,
        }
    }
}

/// The cell of a value.
pub(crate) fn of<'a>(raw: &'a RawValue, column: &Column) -> Result<Cell<'a>, Rejection> {
    let json = raw.get();
    if json == "null" {
        return Ok(Cell::Null);
    }
    let refuse = || wrong_type(json, column);
    let text = match (column.kind, json.as_bytes()[0]) {
        (Kind::Json, _) => Cow::Borrowed(json),
        (Kind::Array, b'[') => Cow::Owned(array(json, false).ok_or_else(refuse)?),
        (Kind::JsonArray, b'[') => Cow::Owned(array(json, true).ok_or_else(refuse)?),
        (_, b'[' | b'{') => return Err(refuse()),
        (kind, b'"') => string(kind, decode::text(json).ok_or_else(|| lone_surrogate(column))?).ok_or_else(refuse)?,
        (Kind::Text | Kind::Other, _) | (Kind::Bool, b't' | b'f') => Cow::Borrowed(json),
        (_, b't' | b'f') | (Kind::Array | Kind::JsonArray | Kind::TimeOfDay, _) => return Err(refuse()),
        (Kind::Number, _) => Cow::Borrowed(json),
        (Kind::Integer, _) => whole(json).ok_or_else(refuse)?,
        (Kind::Bool, _) => Cow::Borrowed(json).filter_bit().ok_or_else(refuse)?,
        (Kind::Time, _) => Cow::Owned(epoch(json).ok_or_else(refuse)?),
    };
    if text.contains('\0') {
        let why = format!("the value for column {} contains a NUL", column.name);
        return Err(Rejection::decode("NulInText", why));
    }
    Ok(Cell::Text(text))
}

trait Bit: Sized {
    fn filter_bit(self) -> Option<Self>;
}

impl Bit for Cow<'_, str> {
    fn filter_bit(self) -> Option<Self> {
        matches!(&*self, "0" | "1").then_some(self)
    }
}

fn string(kind: Kind, text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let fits = match kind {
        Kind::Integer => text.trim().parse::<i128>().is_ok(),
        Kind::Number => text.trim().parse::<f64>().is_ok(),
        // PostgreSQL would take `now` and `yesterday` too, which mean another time at each try.
        Kind::Time | Kind::TimeOfDay => text.as_bytes().first().is_some_and(u8::is_ascii_digit),
        Kind::Bool => ["true", "false", "t", "f", "0", "1"].iter().any(|b| text.eq_ignore_ascii_case(b)),
        Kind::Text | Kind::Json | Kind::JsonArray | Kind::Array | Kind::Other => true,
    };
    fits.then_some(text)
}

/// A number without a fraction, as an integer: many senders write 3.0 for 3.
fn whole(json: &str) -> Option<Cow<'_, str>> {
    // Larger ones are not exact as floats.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if json.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
        return Some(Cow::Borrowed(json));
    }
    let number: f64 = json.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, reason = "whole and small enough, checked here")]
    (number.fract() == 0.0 && number.abs() <= EXACT).then(|| Cow::Owned((number as i64).to_string()))
}

/// Milliseconds since 1970 as ISO 8601.
fn epoch(json: &str) -> Option<String> {
    let micros = match json.parse::<i64>() {
        Ok(millis) => millis.checked_mul(1000)?,
        #[expect(clippy::cast_possible_truncation, reason = "what is out of range is refused below")]
        Err(_) => (json.parse::<f64>().ok()? * 1000.0).round() as i64,
    };
    Timestamp::from_microsecond(micros).ok().map(|time| time.to_string())
}

/// An array as PostgreSQL writes one. Of `documents` each value is one element as it is, an array in an array too.
fn array(json: &str, documents: bool) -> Option<String> {
    let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    let mut text = String::from("{");
    for (n, element) in elements.iter().enumerate() {
        if n > 0 {
            text.push(',');
        }
        let raw = element.get();
        match raw.as_bytes()[0] {
            b'n' => text.push_str("NULL"),
            b'{' => quote(raw, &mut text),
            _ if documents => quote(raw, &mut text),
            b'[' => text.push_str(&array(raw, false)?),
            b'"' => quote(&decode::text(raw)?, &mut text),
            _ => text.push_str(raw),
        }
    }
    text.push('}');
    Some(text)
}

fn quote(element: &str, text: &mut String) {
    text.push('"');
    for c in element.chars() {
        if matches!(c, '"' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('"');
}

fn lone_surrogate(column: &Column) -> Rejection {
    Rejection::decode("InvalidText", format!("the text for column {} has half a surrogate pair", column.name))
}

fn wrong_type(json: &str, column: &Column) -> Rejection {
    let shown: String = json.chars().take(60).collect();
    Rejection::decode("WrongType", format!("{shown} does not fit column {} ({})", column.name, column.full_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: Kind) -> Column {
        Column {
            name: "c".into(),
            base_type: "t".into(),
            full_type: "t".into(),
            kind,
            not_null: false,
            default: false,
            generated: false,
            ordered: true,
            select: true,
            insert: true,
            update: true,
        }
    }

    fn text(kind: Kind, json: &str) -> Result<Option<String>, &'static str> {
        let raw: &RawValue = serde_json::from_str(json).unwrap();
        of(raw, &column(kind)).map(|cell| cell.as_text().map(str::to_owned)).map_err(|r| r.reason)
    }

    fn taken(kind: Kind, json: &str) -> String {
        text(kind, json).unwrap().unwrap()
    }

    #[test]
    fn values_keep_what_they_say() {
        assert_eq!(taken(Kind::Text, r#""a\"\u00e9""#), "a\"é");
        assert_eq!(taken(Kind::Text, "12.50"), "12.50");
        assert_eq!(taken(Kind::Number, "123456789012345678901234567890.5"), "123456789012345678901234567890.5");
        assert_eq!(taken(Kind::Integer, "9223372036854775808"), "9223372036854775808");
        assert_eq!(
            [taken(Kind::Integer, "3.0"), taken(Kind::Integer, "1e3"), taken(Kind::Integer, "\"42\"")],
            ["3", "1000", "42"]
        );
        assert_eq!([taken(Kind::Bool, "true"), taken(Kind::Bool, "0"), taken(Kind::Bool, "\"F\"")], ["true", "0", "F"]);
        assert_eq!(taken(Kind::Json, r#"{"a":[1,"b"]}"#), r#"{"a":[1,"b"]}"#);
        assert_eq!(taken(Kind::Json, "\"a\""), "\"a\"");
        assert_eq!(text(Kind::Json, "null"), Ok(None));
    }

    #[test]
    fn times_are_iso_text_or_milliseconds() {
        assert_eq!(taken(Kind::Time, "\"2026-01-02T03:04:05Z\""), "2026-01-02T03:04:05Z");
        assert_eq!(taken(Kind::Time, "1767323045678"), "2026-01-02T03:04:05.678Z");
        assert_eq!(taken(Kind::Time, "-1"), "1969-12-31T23:59:59.999Z");
        assert_eq!(taken(Kind::Time, "0.5"), "1970-01-01T00:00:00.0005Z");
        for json in ["\"now\"", "\"infinity\"", "\"\"", "true", "9e99", "9223372036854775807"] {
            assert_eq!(text(Kind::Time, json), Err("WrongType"), "{json}");
        }
    }

    #[test]
    fn arrays_are_written_as_postgresql_reads_them() {
        assert_eq!(
            taken(Kind::Array, r#"[1,null,"a\"b,\\",{"c":1},[true]]"#),
            r#"{1,NULL,"a\"b,\\","{\"c\":1}",{true}}"#
        );
        assert_eq!(taken(Kind::Array, "[]"), "{}");
        assert_eq!(
            taken(Kind::JsonArray, r#"["a",{"b":[1]},[2],null,3]"#),
            r#"{"\"a\"","{\"b\":[1]}","[2]",NULL,"3"}"#
        );
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (kind, json) in [
            (Kind::Text, "{}"),
            (Kind::Text, "[1]"),
            (Kind::Integer, "\"abc\""),
            (Kind::Integer, "1.5"),
            (Kind::Integer, "true"),
            (Kind::Integer, "1e300"),
            (Kind::Number, "\"warm\""),
            (Kind::Number, "false"),
            (Kind::Number, "{}"),
            (Kind::Bool, "2"),
            (Kind::Bool, "\"maybe\""),
            (Kind::Array, "1"),
            (Kind::JsonArray, "1"),
            (Kind::TimeOfDay, "\"now\""),
            (Kind::TimeOfDay, "12"),
            (Kind::Other, "{}"),
        ] {
            assert_eq!(text(kind, json), Err("WrongType"), "{kind:?} {json}");
        }
        assert_eq!(text(Kind::Text, r#""a\u0000b""#), Err("NulInText"));
        assert_eq!(text(Kind::Text, r#""\ud800""#), Err("InvalidText"));
    }
}
