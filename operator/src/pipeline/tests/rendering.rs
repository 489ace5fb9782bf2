//! What is rendered, as text: a change of it is seen in review, and one that makes a new revision of every pipeline is no accident.

use serde_json::json;

use super::model::{World, spec};
use crate::pipeline::plan::yaml;

#[test]
fn objects_of_a_small_pipeline() {
    insta::assert_snapshot!(yaml(World::new(spec()).plan()));
}

#[test]
fn objects_of_a_pipeline_with_everything_set() {
    let mut spec = spec();
    spec["source"]["id"] = json!("$.meta.id");
    spec["source"]["maxBytes"] = json!(1000);
    spec["transform"] = json!({"query": "SELECT a FROM input"});
    spec["hub"]["secretRef"]["keys"] = json!({"uri": "connection"});
    spec["worker"] = json!({
        "image": "registry.example/mine:2",
        "concurrency": 8,
        "env": [{"name": "RUST_LOG", "value": "debug"}],
        "resources": {"limits": {"memory": "1Gi"}},
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        "podTemplate": {
            "labels": {"team": "iot"},
            "annotations": {"a": "b"},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "k", "operator": "Exists"}],
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
            "priorityClassName": "high",
            "imagePullSecrets": [{"name": "pull"}],
        },
    });
    insta::assert_snapshot!(yaml(World::new(spec).plan()));
}

#[test]
fn objects_of_a_pipeline_with_a_handler() {
    let mut spec = spec();
    spec["transform"] = json!({"handler": {
        "image": "registry.example/clean:1.4",
        "timeoutSeconds": 5,
        "args": ["--fast"],
        "env": [{"name": "LEVEL", "value": "debug"}],
        "envFrom": [{"secretRef": {"name": "clean"}}],
        "resources": {"limits": {"memory": "128Mi"}},
    }});
    spec["sink"] = json!({"http": {"url": "https://sink.example/in", "secretRef": {"name": "sink"}}});
    spec["retry"] = json!({"attempts": 2});
    insta::assert_snapshot!(yaml(World::new(spec).plan()));
}
