//! What is told of which password, and where revisions that still run publish to: from what an object owns. Pure.

use std::collections::{BTreeMap, BTreeSet};

use drover_worker::{settings as var, stream::settings as stream};
use k8s_openapi::{
    api::core::v1::{PodSpec, PodTemplateSpec},
    jiff::Timestamp,
};
use serde_json::Value;

use crate::{names, pipeline::snapshot::Owned};

/// Keys of secrets, by the secret's name, that pods are told of, each with when the oldest pod that is was made.
pub type Uses = BTreeMap<(String, String), Option<Timestamp>>;

/// Of pods that run, those that a Deployment makes, and those that one could be made of again.
pub(crate) fn keys(owned: &Owned) -> Uses {
    let all = owned.deployments.iter().chain(&owned.previews).chain(&owned.suspects);
    let made = all.filter_map(|d| d.spec.as_ref()?.template.spec.as_ref()).flat_map(of);
    let done = |phase: &str| matches!(phase, "Succeeded" | "Failed");
    let alive = owned.pods.iter().filter(|p| !p.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(done));
    let run = alive.filter_map(|p| Some((p.metadata.creation_timestamp.as_ref().map(|t| t.0), p.spec.as_ref()?)));
    let run = run.flat_map(|(at, spec)| of(spec).map(move |key| (key, at)));
    let kept = owned.config_maps.iter().filter_map(|c| {
        let template: PodTemplateSpec =
            serde_json::from_str(c.metadata.annotations.as_ref()?.get(names::TEMPLATE)?).ok()?;
        Some(of(&template.spec?).collect::<Vec<_>>())
    });
    let mut uses: Uses = made.chain(kept.flatten()).map(|key| (key, None)).collect();
    for (key, at) in run {
        let oldest: &mut Option<Timestamp> = uses.entry(key).or_default();
        *oldest = (*oldest).into_iter().chain(at).min();
    }
    uses
}

fn of(spec: &PodSpec) -> impl Iterator<Item = (String, String)> + use<'_> {
    let variables = spec.containers.iter().flat_map(|container| container.env.iter().flatten());
    let keys = variables.filter_map(|variable| variable.value_from.as_ref()?.secret_key_ref.as_ref());
    keys.map(|key| (key.name.clone(), key.key.clone()))
}

/// Exchanges that revisions publish their results to, as their environments tell.
pub(crate) fn exchanges(owned: &Owned) -> BTreeSet<String> {
    let environments = owned.config_maps.iter().filter_map(|c| c.data.as_ref());
    let told = environments.flat_map(|data| {
        let read = |variable| data.get(variable).and_then(|text| serde_json::from_str::<Value>(text).ok());
        let outputs = match read(stream::OUTPUTS) {
            Some(Value::Object(outputs)) => outputs.into_iter().map(|(_, output)| output).collect(),
            _ => Vec::new(),
        };
        outputs.into_iter().chain(read(var::SINK)).collect::<Vec<_>>()
    });
    told.filter_map(|sink| sink["hub"]["exchange"].as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn pod(key: &str, phase: &str) -> Value {
        let env = json!([{ "name": "DROVER_HUB_URI", "valueFrom": { "secretKeyRef": { "name": "s", "key": key } } }]);
        json!({ "metadata": {}, "spec": { "containers": [{ "name": "worker", "env": env }] }, "status": { "phase": phase } })
    }

    fn template(key: &str) -> Value {
        let pod = pod(key, "");
        json!({ "metadata": {}, "spec": pod["spec"] })
    }

    #[test]
    fn whoever_has_a_password_or_may_be_given_it_is_counted() {
        let deployment = |key| json!({ "metadata": {}, "spec": { "selector": {}, "template": template(key) } });
        let annotations = json!({ names::TEMPLATE: template("kept").to_string() });
        let read = |value: Value| Arc::new(serde_json::from_value(value).unwrap());
        let owned = Owned {
            deployments: vec![read(deployment("asleep"))],
            previews: vec![read(deployment("preview"))],
            suspects: vec![read(deployment("suspects"))],
            config_maps: vec![Arc::new(
                serde_json::from_value(json!({ "metadata": { "annotations": annotations } })).unwrap(),
            )],
            pods: [pod("running", "Running"), pod("pending", "Pending"), pod("done", "Succeeded")]
                .map(|p| Arc::new(serde_json::from_value(p).unwrap()))
                .into(),
            ..Owned::default()
        };
        let keys: Vec<String> = keys(&owned).into_iter().map(|((_, key), _)| key).collect();
        assert_eq!(keys, ["asleep", "kept", "pending", "preview", "running", "suspects"]);
    }

    #[test]
    fn a_revision_that_still_runs_keeps_where_it_publishes_to() {
        let map = |variable: &str, text: Value| {
            Arc::new(serde_json::from_value(json!({ "metadata": {}, "data": { variable: text.to_string() } })).unwrap())
        };
        let owned = Owned {
            config_maps: vec![
                map(var::SINK, json!({ "hub": { "exchange": "clean" } })),
                map(var::SINK, json!({ "postgres": { "table": "t" } })),
                map(
                    stream::OUTPUTS,
                    json!({ "o": { "hub": { "exchange": "x" } }, "p": { "postgres": { "table": "t" } } }),
                ),
            ],
            ..Owned::default()
        };
        assert_eq!(exchanges(&owned).into_iter().collect::<Vec<_>>(), ["clean", "x"]);
    }
}
