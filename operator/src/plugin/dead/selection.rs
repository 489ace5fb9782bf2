//! Which letters are meant. Pure.

use std::time::Duration;

use drover_worker::redrive::header;
use k8s_openapi::jiff::Timestamp;
use lapin::message::Delivery;
use serde_json::Value;

use super::letter;

/// Which letters are meant: those for which all of it holds. All of them where it is empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// With one of these reasons.
    pub reasons: Vec<String>,
    /// With this AMQP message id.
    pub id: Option<String>,
    /// That failed last at least so long ago.
    pub older_than: Option<Duration>,
    /// That failed last less than so long ago.
    pub newer_than: Option<Duration>,
    /// With these headers.
    pub headers: Vec<(String, String)>,
    /// With these values in their bodies.
    pub json: Vec<(Vec<String>, String)>,
}

/// What is no selection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Of a header.
    #[error("{0:?} is not NAME=VALUE")]
    Header(String),
    /// Of a path.
    #[error("{0:?} is not a JSON path and a value, such as $.deviceId=7")]
    Json(String),
    /// Of an age.
    #[error("{0:?} is not a time such as 90s, 15m, 2h or 7d")]
    Age(String),
}

impl Selection {
    /// Reads `NAME=VALUE`.
    ///
    /// # Errors
    /// If it has another form.
    pub fn header(text: &str) -> Result<(String, String), Invalid> {
        let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
        pair.map(|(n, v)| (n.to_owned(), v.to_owned())).ok_or_else(|| Invalid::Header(text.to_owned()))
    }

    /// Reads `$.a.b=VALUE`.
    ///
    /// # Errors
    /// If it has another form.
    pub fn json(text: &str) -> Result<(Vec<String>, String), Invalid> {
        let pair = text.split_once('=').and_then(|(p, v)| Some((drover_crds::resolved::path(p)?, v.to_owned())));
        pair.ok_or_else(|| Invalid::Json(text.to_owned()))
    }

    /// Reads `90s`, `15m`, `2h` or `7d`.
    ///
    /// # Errors
    /// If it has another form.
    pub fn age(text: &str) -> Result<Duration, Invalid> {
        let seconds = |unit: char| match unit {
            's' => Some(1),
            'm' => Some(60),
            'h' => Some(3600),
            'd' => Some(86400),
            _ => None,
        };
        let read = || {
            let unit = text.chars().last()?;
            let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
            Some(Duration::from_secs(number.checked_mul(seconds(unit)?)?))
        };
        read().ok_or_else(|| Invalid::Age(text.to_owned()))
    }

    /// Whether a letter is meant. One whose age is not known is neither older nor newer than anything.
    #[must_use]
    pub fn matches(&self, letter: &Delivery, now: Timestamp) -> bool {
        let age = || letter::died(letter).map(|t| letter::age(t, now));
        (self.reasons.is_empty() || self.reasons.contains(&letter::reason(letter)))
            && self
                .id
                .as_ref()
                .is_none_or(|id| letter.properties.message_id().as_ref().is_some_and(|m| m.as_str() == id))
            && self.older_than.is_none_or(|least| age().is_some_and(|age| age >= least))
            && self.newer_than.is_none_or(|most| age().is_some_and(|age| age < most))
            && self.headers.iter().all(|(name, value)| header(letter, name).as_ref() == Some(value))
            && (self.json.is_empty() || self.fits_body(&letter.data))
    }

    fn fits_body(&self, body: &[u8]) -> bool {
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
        self.json.iter().all(|(path, wanted)| {
            let found = path.iter().try_fold(&body, |value, name| value.get(name));
            found.is_some_and(|found| same(found, wanted))
        })
    }
}

fn same(found: &Value, wanted: &str) -> bool {
    found.as_str() == Some(wanted) || serde_json::from_str::<Value>(wanted).is_ok_and(|wanted| *found == wanted)
}

#[cfg(test)]
mod tests {
    use lapin::{
        BasicProperties,
        types::{AMQPValue, FieldTable},
    };

    use super::*;

    const NOW: &str = "2026-01-02T12:00:00Z";

    fn letter(body: &str) -> Delivery {
        let mut headers = FieldTable::default();
        for (name, value) in [
            ("x-drover-reason", "NotNullViolation"),
            ("x-drover-last-failure", "2026-01-02T11:00:00Z"),
            ("tenant", "a=b"),
        ] {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        let mut letter = Delivery::mock(1, "e".into(), "dead".into(), false, body.as_bytes().to_vec());
        letter.properties = BasicProperties::default().with_headers(headers).with_message_id("m1".into());
        letter
    }

    fn matches(change: impl FnOnce(&mut Selection)) -> bool {
        let mut selection = Selection::default();
        change(&mut selection);
        selection.matches(&letter(r#"{"a":{"b":1},"s":"1","n":null}"#), NOW.parse().unwrap())
    }

    #[test]
    fn an_empty_selection_means_all() {
        assert!(matches(|_| ()));
    }

    #[test]
    fn one_of_several_reasons_is_enough() {
        assert!(matches(|s| s.reasons = vec!["NotJson".into(), "NotNullViolation".into()]));
        assert!(!matches(|s| s.reasons = vec!["NotJson".into()]));
    }

    #[test]
    fn age_is_that_of_the_last_failure() {
        let hours = |n: u64| Some(Duration::from_secs(n * 3600));
        assert!(matches(|s| s.older_than = hours(1)));
        assert!(!matches(|s| s.newer_than = hours(1)));
        assert!(!matches(|s| s.older_than = hours(2)));
        assert!(matches(|s| s.newer_than = hours(2)));
    }

    #[test]
    fn an_unknown_age_is_neither_older_nor_newer() {
        let unknown = Delivery::mock(1, "e".into(), "dead".into(), false, Vec::new());
        for selection in [
            Selection { older_than: Some(Duration::ZERO), ..Selection::default() },
            Selection { newer_than: Some(Duration::MAX), ..Selection::default() },
        ] {
            assert!(!selection.matches(&unknown, NOW.parse().unwrap()));
        }
    }

    #[test]
    fn headers_and_ids_are_compared_as_text() {
        assert!(matches(|s| s.headers = vec![Selection::header("tenant=a=b").unwrap()]));
        assert!(!matches(|s| s.headers = vec![Selection::header("tenant=a").unwrap()]));
        assert!(matches(|s| s.id = Some("m1".into())));
        assert!(!matches(|s| s.id = Some("m2".into())));
    }

    #[test]
    fn a_value_of_a_body_is_compared_as_json_or_as_text() {
        for (text, fits) in [
            ("$.a.b=1", true),
            ("$.a.b=2", false),
            ("$.s=1", true),
            ("$.n=null", true),
            ("$.a={\"b\":1}", true),
            ("$.a.c=1", false),
        ] {
            assert_eq!(matches(|s| s.json = vec![Selection::json(text).unwrap()]), fits, "{text}");
        }
    }

    #[test]
    fn what_is_no_selection_is_told() {
        assert!(Selection::header("=x").is_err() && Selection::header("x").is_err());
        assert!(Selection::json("a=1").is_err() && Selection::json("$.a").is_err());
        for text in ["", "1", "h", "1w", "-1h", "1é", "99999999999999999999d"] {
            assert!(Selection::age(text).is_err(), "{text}");
        }
        assert_eq!(Selection::age("2h").unwrap(), Duration::from_hours(2));
    }
}
