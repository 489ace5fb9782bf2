//! What is rendered, as text: a change of it is seen in review, and one that makes a new revision of every query is no accident.

use serde_json::json;

use super::model::{SUMS, World, spec};
use crate::{
    minted::{Found, KeyRef, Role},
    pipeline::plan::yaml,
};

#[test]
fn objects_of_a_small_query() {
    insta::assert_snapshot!(yaml(World::new(spec()).plan()));
}

#[test]
fn objects_of_a_query_with_everything_set() {
    let mut spec = spec();
    spec["query"] = json!("SELECT a INTO A FROM input SELECT b INTO B FROM input");
    spec.as_object_mut().unwrap().remove("sink");
    spec["outputs"] = json!({
        "A": {"postgres": {"secretRef": {"name": "warehouse"}, "table": "public.a"}},
        "B": {"hub": {"exchange": "results", "routingKey": "b.{b}"}},
    });
    spec["input"]["partitions"] = json!(8);
    spec["ordering"] = json!({"policy": "DeadLetter", "lateArrivalSeconds": 60, "outOfOrderSeconds": 2});
    spec["store"]["postgres"]["schema"] = json!("state");
    spec["hub"]["secretRef"]["keys"] = json!({"uri": "connection"});
    spec["retry"] = json!({"attempts": 2});
    spec["worker"] = json!({
        "image": "registry.example/mine:2",
        "env": [{"name": "RUST_LOG", "value": "debug"}],
        "resources": {"limits": {"memory": "1Gi"}},
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        "podTemplate": {
            "labels": {"team": "iot"},
            "nodeSelector": {"disk": "ssd"},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        },
    });
    insta::assert_snapshot!(yaml(World::new(spec).plan()));
}

#[test]
fn only_what_changes_rows_makes_another_version() {
    let version = |change: fn(&mut serde_json::Value)| {
        let mut spec = spec();
        change(&mut spec);
        World::new(spec).wanted()
    };
    let plain = version(|_| {});
    let same: [fn(&mut serde_json::Value); 5] = [
        |s| s["ordering"] = json!({"policy": "Adjust", "lateArrivalSeconds": 5}),
        |s| s["worker"] = json!({"image": "other:1"}),
        |s| s["input"]["partitions"] = json!(8),
        |s| s["retry"] = json!({"attempts": 9}),
        |s| s["sink"]["postgres"]["secretRef"]["name"] = json!("another"),
    ];
    assert!(same.into_iter().all(|change| version(change) == plain));
    let other: [fn(&mut serde_json::Value); 4] = [
        |s| s["query"] = json!(SUMS),
        |s| s["ordering"] = json!({"lateArrivalSeconds": 6}),
        |s| s["sink"]["postgres"]["table"] = json!("u"),
        |s| s["sink"] = json!({"hub": {"exchange": "x"}}),
    ];
    assert!(other.into_iter().all(|change| version(change) != plain));
}

#[test]
fn workers_are_told_of_the_querys_user() {
    let mut world = World::new(spec());
    let key = KeyRef { secret: "w-hub-query".into(), key: "uri-b".into(), print: "x".into() };
    let keys = [(Role::Query, key)].into();
    world.secrets.as_mut().unwrap().minted = Some(Found { keys, ..Found::default() });
    let text = yaml(world.plan());
    let (_, address) = text.split_once("name: DROVER_HUB_URI").unwrap();
    let (address, _) = address.split_once("name: DROVER_HUB_CA").unwrap();
    assert!(address.contains("w-hub-query") && address.contains("uri-b"), "{address}");
}
