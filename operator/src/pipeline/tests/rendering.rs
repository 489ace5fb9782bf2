//! What is rendered, as text: a change of it is seen in review, and one that makes a new revision of every pipeline is no accident.

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::OwnerReference};
use serde_json::{Value, json};

use super::{
    super::{render::Subject, suspects},
    model::{World, spec},
};
use crate::{
    config::Collector,
    minted::{Found, KeyRef, Role},
    pipeline::plan::yaml,
};

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

#[test]
fn workers_are_told_how_the_operator_was_installed_to_log_and_trace_and_may_connect_to_the_collector() {
    let mut world = World::new(spec());
    let without = yaml(world.plan());
    let environment =
        vec![("DROVER_TRACES_ENDPOINT", "http://c:4318".to_owned()), ("DROVER_TRACES_CA", "PEM".to_owned())];
    world.collector = Collector { environment, port: Some(4318) };
    world.json_log = true;
    let with = yaml(world.plan());
    for line in
        ["DROVER_LOG_FORMAT: json", "DROVER_TRACES_ENDPOINT: http://c:4318", "DROVER_TRACES_CA: PEM", "port: 4318"]
    {
        assert!(with.contains(line) && !without.contains(line), "{line}: {with}");
    }
}

/// The secret and key that the address of a worker's hub comes from.
fn address(deployment: &Deployment) -> String {
    let pods = json!(deployment.spec.as_ref().unwrap().template);
    let variables = pods["spec"]["containers"][0]["env"].as_array().unwrap();
    let found: Vec<&Value> = variables.iter().filter(|v| v["name"] == "DROVER_HUB_URI").collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let key = &found[0]["valueFrom"]["secretKeyRef"];
    format!("{}/{}", key["name"].as_str().unwrap(), key["key"].as_str().unwrap())
}

#[test]
fn pods_are_told_of_the_user_of_their_role_and_of_no_other() {
    let mut world = World::new(spec());
    let addresses = |world: &World| {
        let mut seen = world.snapshot();
        seen.suspects = Some(vec![1, 0]);
        let (pipeline, secrets) = (seen.admitted.clone().unwrap(), seen.secrets.clone().unwrap());
        let install = &seen.install;
        let subject = Subject {
            name: "p",
            namespace: "n",
            owner: OwnerReference::default(),
            pipeline: &pipeline,
            secrets: &secrets,
            install,
        };
        let revision = subject.revision();
        let preview = subject.preview(&revision, 1, 10);
        seen.owned.suspects = vec![std::sync::Arc::new(revision.deployment.clone())];
        let suspects = suspects::deployments(&seen, &subject, &pipeline, &revision.deployment);
        (revision.name, [&revision.deployment, &preview, &suspects[0]].map(address))
    };
    let (before, all) = addresses(&world);
    assert_eq!(all, ["hub/uri", "hub/uri", "hub/uri"]);
    let key = |role: Role, key: &str| (role, KeyRef { secret: role.secret("p"), key: key.into(), print: "x".into() });
    let mut minted = |worker| {
        let keys = [key(Role::Worker, worker), key(Role::Mirror, "uri-a"), key(Role::Publisher, "uri-a")].into();
        world.secrets.as_mut().unwrap().minted = Some(Found { keys, ..Found::default() });
        addresses(&world)
    };
    let (first, all) = minted("uri-a");
    assert_eq!(all, ["p-hub-worker/uri-a", "p-hub-mirror/uri-a", "p-hub-worker/uri-a"]);
    let (second, all) = minted("uri-b");
    assert_eq!(all, ["p-hub-worker/uri-b", "p-hub-mirror/uri-a", "p-hub-worker/uri-b"]);
    assert!(before != first && first != second, "the pods follow their password");
}
