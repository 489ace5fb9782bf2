//! What the API server refuses by itself: each CEL rule lets a sound object pass and refuses one that breaks it, with its message.

use drover_crds::api::{IngestPipeline, IngestPipelineSpec, WindowQuery, WindowQuerySpec};
use kube::core::cel::{validate_cel, validate_cel_update};
use serde_json::{Value, json};

fn spec() -> Value {
    json!({
        "hub": {"secretRef": {"name": "hub"}},
        "source": {"queue": "q"},
        "sink": {"postgres": {"secretRef": {"name": "warehouse"}, "table": "t"}},
    })
}

fn pipeline(change: impl FnOnce(&mut Value)) -> IngestPipeline {
    let mut spec = spec();
    change(&mut spec);
    IngestPipeline::new("p", serde_json::from_value::<IngestPipelineSpec>(spec).unwrap())
}

fn query(change: impl FnOnce(&mut Value)) -> WindowQuery {
    let mut spec = json!({
        "hub": {"secretRef": {"name": "hub"}},
        "input": {"stream": "s", "partitions": 4},
        "query": "SELECT a FROM input",
        "store": {"postgres": {"secretRef": {"name": "warehouse"}}},
        "sink": {"postgres": {"secretRef": {"name": "warehouse"}, "table": "t"}},
    });
    change(&mut spec);
    WindowQuery::new("w", serde_json::from_value::<WindowQuerySpec>(spec).unwrap())
}

/// The messages of the rules that a new object breaks.
fn refusals(object: &IngestPipeline) -> String {
    validate_cel(object).err().map_or_else(String::new, |e| e.to_string())
}

fn update(old: &IngestPipeline, new: &IngestPipeline) -> String {
    validate_cel_update(new, old).err().map_or_else(String::new, |e| e.to_string())
}

#[test]
fn a_sound_pipeline_breaks_no_rule() {
    assert_eq!(refusals(&pipeline(|_| {})), "");
    assert_eq!(
        refusals(&pipeline(|s| {
            s["sink"]["postgres"]["mode"] = json!("Upsert");
            s["sink"]["postgres"]["key"] = json!(["id"]);
            s["sink"]["postgres"]["orderBy"] = json!("ts");
            s["worker"] = json!({"env": [{"name": "RUST_LOG", "value": "debug"}]});
            s["deadLetter"] = json!({"queue": "other"});
            s["scaling"] = json!({"minReplicas": 2, "maxReplicas": 2, "fallbackReplicas": 2});
            s["rollout"] = json!({"blueGreen": {"preview": {"mirrorPercent": 5}, "progressDeadlineSeconds": 60}});
        })),
        ""
    );
    assert_eq!(
        refusals(&pipeline(|s| {
            s["transform"] = json!({"handler": {"image": "i", "port": 8080}});
            s["sink"] = json!({"http": {"url": "https://sink.example/in"}});
            s["retry"] = json!({"attempts": 2, "initialSeconds": 300});
        })),
        ""
    );
}

#[test]
fn a_new_pipeline_that_breaks_a_rule_is_refused_with_its_message() {
    type Change = fn(&mut Value);
    let cases: &[(&str, Change)] = &[
        ("exactly one of postgres, hub, http and discard must be set", |s| s["sink"] = json!({})),
        ("exactly one of postgres, hub, http and discard must be set", |s| s["sink"]["discard"] = json!({})),
        ("mode Upsert needs key and orderBy", |s| s["sink"]["postgres"]["mode"] = json!("Upsert")),
        ("key and orderBy belong to mode Upsert", |s| s["sink"]["postgres"]["key"] = json!(["a"])),
        ("key and orderBy belong to mode Upsert", |s| {
            s["sink"]["postgres"]["mode"] = json!("Append");
            s["sink"]["postgres"]["orderBy"] = json!("a");
        }),
        ("idColumn belongs to mode Append", |s| {
            s["sink"]["postgres"] = json!({
                "secretRef": {"name": "w"}, "table": "t", "mode": "Upsert", "key": ["a"], "orderBy": "b", "idColumn": "c",
            });
        }),
        ("bindings must be empty with adopt", |s| {
            s["source"] = json!({"queue": "q", "adopt": true, "bindings": [{"exchange": "amq.topic"}]});
        }),
        ("names that begin with amq. belong to the broker", |s| s["source"]["queue"] = json!("amq.q")),
        ("names that begin with amq. belong to the broker", |s| s["deadLetter"] = json!({"queue": "amq.q"})),
        ("exchange is empty", |s| s["source"]["bindings"] = json!([{"exchange": ""}])),
        ("exactly one of transform.query and transform.handler must be set", |s| s["transform"] = json!({})),
        ("exactly one of transform.query and transform.handler must be set", |s| {
            s["transform"] = json!({"query": "SELECT a FROM input", "handler": {"image": "i"}});
        }),
        ("port 9464 is the worker's own", |s| s["transform"] = json!({"handler": {"image": "i", "port": 9464}})),
        ("retry.maxSeconds is less than retry.initialSeconds", |s| s["retry"] = json!({"initialSeconds": 301})),
        ("retry.maxSeconds is less than retry.initialSeconds", |s| {
            s["retry"] = json!({"initialSeconds": 20, "maxSeconds": 10});
        }),
        ("deadLetter.queue and source.queue must differ", |s| s["deadLetter"] = json!({"queue": "q"})),
        ("scaling.minReplicas is more than scaling.maxReplicas", |s| s["scaling"] = json!({"minReplicas": 21})),
        ("scaling.minReplicas is more than scaling.maxReplicas", |s| {
            s["scaling"] = json!({"minReplicas": 5, "maxReplicas": 4});
        }),
        ("scaling.fallbackReplicas is more than scaling.maxReplicas", |s| {
            s["scaling"] = json!({"fallbackReplicas": 5, "maxReplicas": 4});
        }),
        ("preview.maxSeconds is more than progressDeadlineSeconds", |s| {
            s["rollout"] = json!({"blueGreen": {"preview": {"maxSeconds": 601}}});
        }),
        ("preview.maxSeconds is more than progressDeadlineSeconds", |s| {
            s["rollout"] = json!({"blueGreen": {"preview": {"maxSeconds": 61}, "progressDeadlineSeconds": 60}});
        }),
        ("names that begin with DROVER_ are set by the operator", |s| {
            s["worker"] = json!({"env": [{"name": "DROVER_SINK", "value": "{}"}]});
        }),
    ];
    for (message, change) in cases {
        let told = refusals(&pipeline(change));
        assert!(told.contains(message), "{message:?} is not in {told:?}");
    }
    let mut long = pipeline(|_| {});
    long.metadata.name = Some("x".repeat(49));
    assert!(refusals(&long).contains("longer than 48 characters"));
}

#[test]
fn users_that_the_operator_makes_are_there_to_stay_and_alone_are_renewed() {
    let hub = |rest: Value| {
        pipeline(|s| {
            s["hub"] = json!({"secretRef": {"name": "hub"}});
            s["hub"].as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        })
    };
    let (minted, secret) =
        (hub(json!({"credentials": "Minted", "rotateDays": 7})), hub(json!({"credentials": "Secret"})));
    assert_eq!(refusals(&minted), "");
    for wrong in [hub(json!({"rotateDays": 7})), hub(json!({"credentials": "Secret", "rotateDays": 7}))] {
        assert!(refusals(&wrong).contains("hub.rotateDays is for hub.credentials: Minted"), "{}", refusals(&wrong));
    }
    assert_eq!(update(&secret, &minted), "");
    for back in [secret, hub(json!({}))] {
        assert!(update(&minted, &back).contains("does not go back from Minted"), "{}", update(&minted, &back));
    }
}

#[test]
fn what_never_changes_is_refused_when_it_does() {
    let old = pipeline(|_| {});
    let queue = pipeline(|s| s["source"]["queue"] = json!("other"));
    assert!(update(&old, &queue).contains("source.queue never changes"));
    let dead = pipeline(|s| s["deadLetter"] = json!({"queue": "other"}));
    assert!(update(&old, &dead).contains("deadLetter.queue never changes"));
    let named = pipeline(|s| s["deadLetter"] = json!({"queue": "q.dead"}));
    assert_eq!(update(&old, &named), "", "the default, written out, is no change");
    let adopted = pipeline(|s| s["source"]["adopt"] = json!(true));
    assert!(update(&old, &adopted).contains("source.adopt never changes"));
    assert_eq!(update(&old, &pipeline(|s| s["source"]["adopt"] = json!(false))), "");
    assert_eq!(update(&old, &pipeline(|s| s["source"]["prefetch"] = json!(7))), "");
}

#[test]
fn the_streams_of_a_query_never_change_and_never_shrink() {
    let old = query(|_| {});
    let told = |new: &WindowQuery| validate_cel_update(new, &old).err().map_or_else(String::new, |e| e.to_string());
    assert_eq!(told(&query(|s| s["input"]["partitions"] = json!(8))), "");
    assert!(told(&query(|s| s["input"]["partitions"] = json!(3))).contains("may grow, never shrink"));
    assert!(told(&query(|s| s["input"]["stream"] = json!("t"))).contains("input.stream never changes"));
}

#[test]
fn names_are_counted_in_bytes_too() {
    use drover_crds::resolved::Pipeline;
    let refused = |change: fn(&mut Value)| Pipeline::resolve(&pipeline(change).spec).unwrap_err().to_string();
    let told = refused(|s| s["source"]["queue"] = json!("é".repeat(127)));
    assert!(told.starts_with("source.queue: ") && told.contains("255 bytes"), "{told}");
    let told = refused(|s| s["source"]["bindings"] = json!([{"exchange": "x", "routingKey": "é".repeat(128)}]));
    assert!(told.starts_with("source.bindings: "), "{told}");
    let told = refused(|s| s["deadLetter"] = json!({"queue": "é".repeat(128)}));
    assert!(told.starts_with("deadLetter.queue: "), "{told}");
}

#[test]
fn every_rule_has_a_message() {
    use kube::CustomResourceExt as _;
    for crd in [IngestPipeline::crd(), WindowQuery::crd()] {
        let mut rules = Vec::new();
        collect(&serde_json::to_value(crd).unwrap(), &mut rules);
        assert!(rules.len() > 2);
        for rule in rules {
            assert!(rule["message"].as_str().is_some_and(|m| !m.is_empty()), "{rule}");
        }
    }
}

fn collect(value: &Value, rules: &mut Vec<Value>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                if name == "x-kubernetes-validations" {
                    rules.extend(inner.as_array().into_iter().flatten().cloned());
                }
                collect(inner, rules);
            }
        }
        Value::Array(items) => items.iter().for_each(|i| collect(i, rules)),
        _ => {}
    }
}
