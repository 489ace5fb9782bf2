//! Whether an object of the cluster still is what it should be. Pure.
//!
//! Fields that the API server fills in are not looked at, so a difference that only it makes is none.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use serde::Serialize;
use serde_json::Value;

use crate::names::MANAGER;

/// How an object is put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// It does not exist.
    Create,
    /// A field of ours differs: apply.
    Apply,
    /// Somebody else set fields that we do not: only replacing it removes them.
    Replace,
}

/// What must be done so that `live` is as `wanted`; `None` if nothing.
pub fn repair<T: Serialize>(wanted: &T, live: Option<&T>, meta: impl Fn(&T) -> &ObjectMeta) -> Option<Repair> {
    let Some(live) = live else { return Some(Repair::Create) };
    if edited_by_others(meta(live)) {
        return Some(Repair::Replace);
    }
    let (Ok(wanted), Ok(live)) = (serde_json::to_value(wanted), serde_json::to_value(live)) else {
        return Some(Repair::Apply);
    };
    (!covers(&live, &wanted)).then_some(Repair::Apply)
}

/// True if every field of `wanted` is in `live` with the same value. Lists are compared element by element.
#[must_use]
pub fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted.iter().all(|(k, w)| match live.get(k) {
            None => is_empty(w),
            Some(l) if k == "limits" || k == "requests" => same_quantities(l, w),
            Some(l) => covers(l, w),
        }),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(l, w)| covers(l, w))
        }
        _ => live == wanted,
    }
}

/// Quantities are stored in their canonical form: 0.5 becomes 500m.
fn same_quantities(live: &Value, wanted: &Value) -> bool {
    let (Some(live), Some(wanted)) = (live.as_object(), wanted.as_object()) else { return live == wanted };
    live.len() == wanted.len()
        && wanted
            .iter()
            .all(|(k, w)| live.get(k).is_some_and(|l| l == w || (quantity(l).is_some() && quantity(l) == quantity(w))))
}

/// A quantity of Kubernetes in thousandths.
fn quantity(value: &Value) -> Option<i128> {
    const SUFFIXES: [(&str, i128); 13] = [
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
        ("Ti", 1 << 40),
        ("Pi", 1 << 50),
        ("k", 1_000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("T", 1_000_000_000_000),
        ("P", 1_000_000_000_000_000),
        ("m", 0),
        ("e3", 1_000),
        ("", 1),
    ];
    let text = value.as_str()?;
    let (number, scale) = SUFFIXES.iter().find_map(|(s, f)| text.strip_suffix(s).map(|n| (n, *f)))?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let thousandths: i128 = format!("{part:0<3}").get(..3)?.parse().ok()?;
    let number = whole.parse::<i128>().ok()?.checked_mul(1_000)?.checked_add(thousandths)?;
    if scale == 0 { Some(number / 1_000) } else { number.checked_mul(scale) }
}

/// Empty values are not stored.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// True if a manager other than ours owns fields of the spec or the data.
fn edited_by_others(meta: &ObjectMeta) -> bool {
    meta.managed_fields.iter().flatten().any(is_foreign)
}

/// True if an entry tells of such an edit; the others tell nothing, and take more memory than the rest of the object.
pub(crate) fn is_foreign(entry: &ManagedFieldsEntry) -> bool {
    let ours = entry.manager.as_deref() == Some(MANAGER);
    let of_status = entry.subresource.as_deref() == Some("status");
    let fields = entry.fields_v1.as_ref().and_then(|f| f.0.as_object());
    !ours
        && !of_status
        && fields.is_some_and(|f| ["f:spec", "f:data", "f:binaryData"].iter().any(|k| f.contains_key(*k)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    #[test]
    fn fields_that_the_server_filled_in_are_no_drift() {
        let live = json!({"spec": {"replicas": 1, "strategy": {"type": "RollingUpdate"}, "list": [{"a": 1, "b": 2}]}});
        assert!(covers(&live, &json!({"spec": {"replicas": 1, "list": [{"a": 1}]}})));
        assert!(covers(&live, &json!({"spec": {"replicas": 1, "none": [], "empty": {}}})));
    }

    #[test]
    fn another_value_or_another_length_is_drift() {
        let live = json!({"spec": {"replicas": 2, "env": [{"name": "A"}, {"name": "B"}]}});
        assert!(!covers(&live, &json!({"spec": {"replicas": 1}})));
        assert!(!covers(&live, &json!({"spec": {"env": [{"name": "A"}]}})));
        assert!(!covers(&live, &json!({"spec": {"missing": "x"}})));
    }

    #[test]
    fn the_canonical_form_of_a_quantity_is_no_drift() {
        let live = json!({"resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}});
        assert!(covers(&live, &json!({"resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}}})));
        assert!(!covers(&live, &json!({"resources": {"limits": {"cpu": "0.6", "memory": "1Gi"}}})));
        assert!(!covers(&live, &json!({"resources": {"limits": {"memory": "1Gi"}}})));
        assert!(!covers(&live, &json!({"resources": {"limits": {"cpu": "500m", "memory": "1G"}}})));
    }

    fn managed(manager: &str, subresource: Option<&str>, fields: Value) -> ConfigMap {
        let entry = ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            subresource: subresource.map(str::to_owned),
            fields_v1: Some(serde_json::from_value(fields).unwrap()),
            ..ManagedFieldsEntry::default()
        };
        ConfigMap {
            metadata: ObjectMeta { managed_fields: Some(vec![entry]), ..ObjectMeta::default() },
            ..ConfigMap::default()
        }
    }

    #[test]
    fn what_a_person_added_is_removed_by_replacing() {
        let wanted = ConfigMap::default();
        let repair = |live: &ConfigMap| repair(&wanted, Some(live), |c| &c.metadata);
        assert_eq!(repair(&managed("kubectl-edit", None, json!({"f:data": {"f:x": {}}}))), Some(Repair::Replace));
        assert_eq!(repair(&managed("kube-controller-manager", Some("status"), json!({"f:spec": {}}))), None);
        assert_eq!(repair(&managed("kube-controller-manager", None, json!({"f:metadata": {}}))), None);
        assert_eq!(repair(&managed(MANAGER, None, json!({"f:data": {}}))), None);
        assert_eq!(super::repair(&wanted, None, |c| &c.metadata), Some(Repair::Create));
    }
}
