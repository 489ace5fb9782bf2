//! A body becomes the fields of a JSON object, each still as it was written: no number is rounded, no text copied.
//!
//! Depth is checked before anything is parsed: parsers recurse, and a stack that overflows ends the process.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::reject::Rejection;

/// Deepest nesting of arrays and objects; the limit of `serde_json`.
const MAX_DEPTH: usize = 128;

/// The fields of an object, in their order. Of fields of one name the last counts.
#[derive(Debug)]
pub(crate) struct Fields<'a>(pub(crate) Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// A field of the object itself.
    pub(crate) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, raw)| *raw)
    }

    /// A field by its path; `None` where a step of it is missing or no object.
    pub(crate) fn path(&self, path: &[String]) -> Option<&'a RawValue> {
        let (first, rest) = path.split_first()?;
        let mut raw = self.get(first)?;
        for name in rest {
            raw = object(raw.get())?.get(name)?;
        }
        Some(raw)
    }
}

fn object(text: &str) -> Option<Fields<'_>> {
    text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Checks the size.
pub(crate) fn fits(body: &[u8], max_bytes: u32) -> Result<(), Rejection> {
    if body.len() > max_bytes as usize {
        let why = format!("the body has {} bytes; source.maxBytes is {max_bytes}", body.len());
        return Err(Rejection::decode("TooLarge", why));
    }
    Ok(())
}

/// Checks what needs no parser: size, encoding and depth.
pub(crate) fn check(body: &[u8], max_bytes: u32) -> Result<&str, Rejection> {
    if body.is_empty() {
        return Err(Rejection::decode("EmptyBody", "the body is empty"));
    }
    fits(body, max_bytes)?;
    let text = std::str::from_utf8(body)
        .map_err(|e| Rejection::decode("InvalidUtf8", format!("the body is not UTF-8: {e}")))?;
    if deeper_than(text.as_bytes(), MAX_DEPTH) {
        return Err(Rejection::decode("TooDeep", format!("the body nests deeper than {MAX_DEPTH}")));
    }
    Ok(text)
}

/// Reads an object.
pub(crate) fn fields(text: &str) -> Result<Fields<'_>, Rejection> {
    serde_json::from_str(text).map_err(|e| {
        let reason = match e.classify() {
            serde_json::error::Category::Data => "NotAnObject",
            serde_json::error::Category::Eof => "Truncated",
            _ => "NotJson",
        };
        Rejection::decode(reason, format!("the body cannot be read: {e}"))
    })
}

/// Whether brackets outside of texts nest deeper; what is no JSON may be counted wrongly.
fn deeper_than(json: &[u8], limit: usize) -> bool {
    let (mut depth, mut text, mut escaped) = (0_usize, false, false);
    for byte in json {
        if text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => text = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// A text's content; borrowed where nothing in it is escaped.
pub(crate) fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::with_capacity(map.size_hint().unwrap_or(8));
        while let Some((Name(name), raw)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
            fields.push((name, raw));
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reason(body: &[u8]) -> Option<&'static str> {
        check(body, 1024).and_then(fields).err().map(|r| r.reason)
    }

    #[test]
    fn bodies_are_refused_for_a_reason() {
        for (body, wanted) in [
            (&b""[..], "EmptyBody"),
            (b" ", "Truncated"),
            (b"x", "NotJson"),
            (b"{\"a\":1", "Truncated"),
            (b"{\"a\":1}}", "NotJson"),
            (b"{\"a\":01}", "NotJson"),
            (b"{\"a\":NaN}", "NotJson"),
            (b"{'a':1}", "NotJson"),
            (b"[1]", "NotAnObject"),
            (b"\"a\"", "NotAnObject"),
            (b"1", "NotAnObject"),
            (b"null", "NotAnObject"),
            (b"\xff\xfe{\0}\0", "InvalidUtf8"),
        ] {
            assert_eq!(reason(body), Some(wanted), "{:?}", String::from_utf8_lossy(body));
        }
        assert_eq!(reason(&[b' '; 1025]), Some("TooLarge"));
    }

    #[test]
    fn nesting_is_refused_before_it_is_parsed() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(reason(nested(127).as_bytes()), None);
        assert_eq!(reason(nested(128).as_bytes()), Some("TooDeep"));
        let open = "[".repeat(1 << 20);
        assert_eq!(check(open.as_bytes(), u32::MAX).map_err(|r| r.reason), Err("TooDeep"));
        assert_eq!(reason(format!("{{\"a\":\"\\\"{}\"}}", "[".repeat(500)).as_bytes()), None);
    }

    #[test]
    fn values_stay_as_they_were_written() {
        let fields = fields(r#"{"n":12345678901234567890.10,"o":{"p":{"q":"é\n"}},"n2":1,"n":7.0}"#).unwrap();
        assert_eq!(fields.get("n").unwrap().get(), "7.0");
        let path = ["o".to_owned(), "p".to_owned(), "q".to_owned()];
        assert_eq!(text(fields.path(&path).unwrap().get()).unwrap(), "é\n");
        assert!(fields.path(&["n".to_owned(), "p".to_owned()]).is_none());
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(&body, 1024).and_then(fields);
        }

        #[test]
        fn a_text_is_read_as_it_was_meant(meant in ".*") {
            let json = serde_json::to_string(&meant).unwrap();
            prop_assert_eq!(text(&json).unwrap(), meant);
        }
    }
}
