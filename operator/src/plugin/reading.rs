//! What the operator has written of an object, as far as this version can read it. Pure.

use drover_crds::api::Status;
use kube::api::DynamicObject;
use serde_json::{Map, Value};

/// The status, and the names of the fields in it that have another form than this version knows.
pub(super) fn status(object: &DynamicObject) -> (Status, Vec<String>) {
    let Some(written) = object.data.get("status") else { return (Status::default(), Vec::new()) };
    if let Ok(status) = serde_json::from_value(written.clone()) {
        return (status, Vec::new());
    }
    let fields = written.as_object().cloned().unwrap_or_default();
    let (known, unknown): (Map<_, _>, Map<_, _>) = fields.into_iter().partition(|(name, value)| is_known(name, value));
    let status = serde_json::from_value(Value::Object(known)).unwrap_or_default();
    (status, unknown.into_iter().map(|(name, _)| name).collect())
}

fn is_known(name: &str, value: &Value) -> bool {
    let alone = Value::Object(Map::from_iter([(name.to_owned(), value.clone())]));
    serde_json::from_value::<Status>(alone).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(object: Value) -> (Status, Vec<String>) {
        status(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_field_of_another_form_is_named_and_the_others_are_read() {
        let written = json!({
            "phase": "Pondering", "message": "m", "deadLetters": 7, "rollout": { "phase": "Moonlit" }, "weather": "fine",
        });
        let (status, unknown) = read(json!({ "metadata": {}, "status": written }));
        assert_eq!((status.message.as_deref(), status.dead_letters), (Some("m"), Some(7)));
        assert_eq!((status.phase, status.rollout), (None, None));
        assert_eq!(unknown, ["phase", "rollout"]);
    }

    #[test]
    fn one_that_is_known_is_read_whole_and_none_is_an_empty_one() {
        let (status, unknown) = read(json!({ "metadata": {}, "status": { "phase": "Running", "replicas": 2 } }));
        assert_eq!((status.replicas, unknown.len()), (Some(2), 0));
        assert_eq!(read(json!({ "metadata": {} })), (Status::default(), Vec::new()));
    }
}
