//! The routing key of a result, made from its values.

use drover_crds::resolved::{Part, RoutingKey};

use super::{
    decode::{self, Fields},
    reject::Rejection,
};

/// Longest routing key, in bytes; AMQP has no room for more.
pub(crate) const MAX_KEY: usize = 255;

/// Fills in the values.
pub(crate) fn render(template: &RoutingKey, fields: &Fields<'_>) -> Result<String, Rejection> {
    let mut key = String::new();
    for part in &template.0 {
        match part {
            Part::Text(text) => key.push_str(text),
            Part::Field(path) => key.push_str(&value(path, fields)?),
        }
    }
    fits(key)
}

/// The key, unless AMQP has no room for it.
pub(crate) fn fits(key: String) -> Result<String, Rejection> {
    if key.len() > MAX_KEY {
        let why = format!("the routing key has {} bytes; at most {MAX_KEY} are possible", key.len());
        return Err(Rejection::sink("RoutingKeyTooLong", why));
    }
    Ok(key)
}

fn value(path: &[String], fields: &Fields<'_>) -> Result<String, Rejection> {
    let refuse =
        |why: &str| Rejection::sink("NoRoutingKey", format!("{{{}}} of the routing key {why}", path.join(".")));
    let raw = fields.path(path).ok_or_else(|| refuse("is missing"))?.get();
    match raw.as_bytes().first() {
        Some(b'"') => decode::text(raw).map(Into::into).ok_or_else(|| refuse("is not text that can be read")),
        Some(b'{' | b'[') => Err(refuse("is an object or array")),
        Some(b'n') | None => Err(refuse("is null")),
        Some(_) => Ok(raw.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str, body: &str) -> Result<String, &'static str> {
        let fields = decode::fields(body).unwrap();
        render(&RoutingKey::parse(template).unwrap(), &fields).map_err(|r| r.reason)
    }

    #[test]
    fn values_are_filled_in() {
        let body = r#"{"deviceId":"d\u00e9","payloads":{"pref":13,"on":true}}"#;
        assert_eq!(rendered("clean.{deviceId}.{payloads.pref}.{payloads.on}", body).as_deref(), Ok("clean.dé.13.true"));
        assert_eq!(rendered("clean", body).as_deref(), Ok("clean"));
    }

    #[test]
    fn a_value_that_makes_no_key_is_the_messages_fault() {
        for body in ["{}", r#"{"a":null}"#, r#"{"a":{}}"#, r#"{"a":[1]}"#] {
            assert_eq!(rendered("{a}", body), Err("NoRoutingKey"), "{body}");
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(256));
        assert_eq!(rendered("{a}", &long), Err("RoutingKeyTooLong"));
    }
}
