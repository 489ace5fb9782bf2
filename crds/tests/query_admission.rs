//! What is refused of a `WindowQuery`: by the API server's rules, and by what its spec resolves to, each with its message.

use drover_crds::{
    api::{Delivery, QueryDeletionPolicy, WindowQuery, WindowQuerySpec},
    resolved_query::{Output, Query},
};
use kube::core::cel::{validate_cel, validate_cel_update};
use serde_json::{Value, json};

type Change = fn(&mut Value);

const INTO: &str = "SELECT COUNT(*) AS n INTO Alerts FROM input TIMESTAMP BY ts GROUP BY TUMBLINGWINDOW(second, 1)";

fn query(change: impl FnOnce(&mut Value)) -> WindowQuery {
    let mut spec = json!({
        "hub": {"secretRef": {"name": "hub"}},
        "input": {"stream": "s", "partitions": 4},
        "query": "SELECT COUNT(*) AS n FROM input TIMESTAMP BY ts GROUP BY TUMBLINGWINDOW(second, 1)",
        "store": {"postgres": {"secretRef": {"name": "warehouse"}}},
        "sink": {"postgres": {"secretRef": {"name": "warehouse"}, "table": "t"}},
    });
    change(&mut spec);
    WindowQuery::new("w", serde_json::from_value::<WindowQuerySpec>(spec).unwrap())
}

fn rules(object: &WindowQuery) -> String {
    validate_cel(object).err().map_or_else(String::new, |e| e.to_string())
}

fn refused(change: Change) -> String {
    Query::resolve(&query(change).spec).expect_err("it must be refused").to_string()
}

#[test]
fn a_sound_query_breaks_no_rule() {
    let cases: [Change; 3] = [
        |_| {},
        |s| {
            s["query"] = json!(INTO);
            s.as_object_mut().unwrap().remove("sink");
            s["outputs"] = json!({"Alerts": {"hub": {"exchange": "alerts"}}});
        },
        |s| {
            s["scaling"] = json!({"mode": "Off", "replicas": 4, "minReplicas": 1, "maxReplicas": 4});
            s["retry"] = json!({"attempts": 3});
            s["deadLetter"] = json!({"queue": "other", "retentionSeconds": 60});
            s["input"]["retention"] = json!({"maxAgeSeconds": 3600, "maxBytes": 5_000_000});
            s["deletionPolicy"] = json!("Delete");
        },
    ];
    for change in cases {
        assert_eq!(rules(&query(change)), "");
        Query::resolve(&query(change).spec).unwrap();
    }
}

#[test]
fn a_new_query_that_breaks_a_rule_is_refused_with_its_message() {
    let cases: &[(&str, Change)] = &[
        ("either sink or outputs must be set", |s| {
            s.as_object_mut().unwrap().remove("sink");
        }),
        ("either sink or outputs must be set", |s| s["outputs"] = json!({"a": {"hub": {"exchange": "x"}}})),
        ("exactly one of postgres and hub", |s| s["sink"] = json!({})),
        ("exactly one of postgres and hub", |s| s["sink"]["hub"] = json!({"exchange": "x"})),
        ("more workers than input.partitions", |s| s["scaling"] = json!({"replicas": 5})),
        ("more workers than input.partitions", |s| s["scaling"] = json!({"minReplicas": 5})),
        ("more workers than input.partitions", |s| s["scaling"] = json!({"maxReplicas": 5})),
        ("more workers than input.partitions", |s| {
            s["input"].as_object_mut().unwrap().remove("partitions");
            s["scaling"] = json!({"replicas": 5});
        }),
        ("worker.concurrency belongs to pipelines", |s| s["worker"] = json!({"concurrency": 2})),
        ("names that begin with DROVER_", |s| s["worker"] = json!({"env": [{"name": "DROVER_QUERY", "value": "x"}]})),
        ("names that begin with amq.", |s| s["input"]["stream"] = json!("amq.s")),
        ("names that begin with amq.", |s| s["deadLetter"] = json!({"queue": "amq.s"})),
        ("exchange is empty", |s| s["input"]["bindings"] = json!([{"exchange": ""}])),
    ];
    for (message, change) in cases {
        let told = rules(&query(change));
        assert!(told.contains(message), "{message:?} is not in {told:?}");
    }
    let mut long = query(|_| {});
    long.metadata.name = Some("x".repeat(49));
    assert!(rules(&long).contains("longer than 48 characters"));
}

#[test]
fn what_never_changes_is_refused_when_it_does_and_partitions_only_grow() {
    let old = query(|_| {});
    let told = |change: Change| {
        let new = query(change);
        validate_cel_update(&new, &old).err().map_or_else(String::new, |e| e.to_string())
    };
    assert_eq!(told(|s| s["input"]["partitions"] = json!(8)), "");
    assert_eq!(told(|s| s["deadLetter"] = json!({"queue": "s.dead"})), "", "the default, written out, is no change");
    let cases: &[(&str, Change)] = &[
        ("may grow, never shrink", |s| s["input"]["partitions"] = json!(3)),
        ("input.stream never changes", |s| s["input"]["stream"] = json!("t")),
        ("store never changes", |s| s["store"]["postgres"]["schema"] = json!("other")),
        ("store never changes", |s| s["store"]["postgres"]["secretRef"]["name"] = json!("other")),
        ("deadLetter.queue never changes", |s| s["deadLetter"] = json!({"queue": "other"})),
    ];
    for (message, change) in cases {
        assert!(told(*change).contains(message), "{message:?} is not in {:?}", told(*change));
    }
    let eight = query(|s| s["input"]["partitions"] = json!(8));
    let unset = query(|s| {
        s["input"].as_object_mut().unwrap().remove("partitions");
    });
    let told = validate_cel_update(&unset, &eight).unwrap_err().to_string();
    assert!(told.contains("may grow, never shrink"), "the default is smaller: {told}");
}

#[test]
fn a_query_that_means_nothing_is_refused_with_the_place() {
    let cases: &[(&str, Change)] = &[
        ("query: ", |s| s["query"] = json!("SELEC a FROM input")),
        ("query: ", |s| s["query"] = json!("")),
        ("line 2", |s| s["query"] = json!("SELECT COUNT(*) AS n FROM input\nGROUP BY TUMBLINGWINDOW(fortnight, 1)")),
        ("line 1", |s| s["query"] = json!("SELECT NoSuchFunction(a) AS b FROM input")),
        ("line 1", |s| s["query"] = json!("SELECT a FROM input ORDER BY a")),
        ("line 1", |s| s["query"] = json!("SELECT COUNT(*) AS n FROM input")),
        ("line 1", |s| {
            s["query"] = json!("SELECT a, COUNT(*) AS n FROM input GROUP BY TUMBLINGWINDOW(second, 1)");
        }),
        ("line 1", |s| s["query"] = json!("SELECT COUNT(*) AS n FROM input GROUP BY TUMBLINGWINDOW(day, 8)")),
        ("line 1", |s| s["query"] = json!("SELECT a FROM input JOIN other ON a = b")),
        ("it reads FROM events, and input.alias is input", |s| s["query"] = json!("SELECT a FROM events")),
        ("it reads FROM input, and input.alias is events", |s| s["input"]["alias"] = json!("events")),
    ];
    for (message, change) in cases {
        let told = refused(*change);
        assert!(told.starts_with("query: ") && told.contains(message), "{message:?} is not in {told:?}");
    }
}

#[test]
fn a_spec_that_cannot_be_is_refused_with_its_field() {
    let cases: &[(&str, Change)] = &[
        ("either sink or outputs", |s| s["outputs"] = json!({"output": {"hub": {"exchange": "x"}}})),
        ("either sink or outputs", |s| {
            s.as_object_mut().unwrap().remove("sink");
        }),
        ("sink: exactly one of postgres and hub", |s| s["sink"] = json!({})),
        ("sink: exactly one of postgres and hub", |s| s["sink"]["hub"] = json!({"exchange": "x"})),
        ("sink.postgres.table: \"a.b.c\"", |s| s["sink"]["postgres"]["table"] = json!("a.b.c")),
        ("sink.postgres.table: \"\"", |s| s["sink"]["postgres"]["table"] = json!("")),
        ("sink.hub.routingKey: ", |s| s["sink"] = json!({"hub": {"exchange": "x", "routingKey": "a.{b"}})),
        ("sink.hub.routingKey: ", |s| s["sink"] = json!({"hub": {"exchange": "x", "routingKey": "a.{}"}})),
        ("there is none for INTO Alerts", |s| {
            s["query"] = json!(INTO);
            s.as_object_mut().unwrap().remove("sink");
            s["outputs"] = json!({"Others": {"hub": {"exchange": "x"}}});
        }),
        ("Others is no output of the query, which has Alerts", |s| {
            s["query"] = json!(INTO);
            s.as_object_mut().unwrap().remove("sink");
            s["outputs"] = json!({"Alerts": {"hub": {"exchange": "x"}}, "Others": {"hub": {"exchange": "x"}}});
        }),
        ("outputs.Alerts.postgres.table", |s| {
            s["query"] = json!(INTO);
            s.as_object_mut().unwrap().remove("sink");
            s["outputs"] = json!({"Alerts": {"postgres": {"secretRef": {"name": "w"}, "table": "."}}});
        }),
        ("sink: the query has outputs A, B", |s| {
            s["query"] = json!("SELECT a INTO A FROM input SELECT b INTO B FROM input");
        }),
        ("input.partitions: 1 to 256", |s| s["input"]["partitions"] = json!(0)),
        ("input.partitions: 1 to 256", |s| s["input"]["partitions"] = json!(257)),
        ("more workers than input.partitions", |s| s["scaling"] = json!({"minReplicas": 5})),
        ("more workers than input.partitions", |s| s["scaling"] = json!({"replicas": 5})),
        ("input.stream: a stream's name is longer than 255 bytes", |s| s["input"]["stream"] = json!("é".repeat(127))),
        ("input.stream: the exchange's name", |s| s["input"]["stream"] = json!("é".repeat(125))),
        ("input.bindings: an exchange's name", |s| {
            s["input"]["bindings"] = json!([{"exchange": "é".repeat(128)}]);
        }),
        ("input.bindings: a routing key", |s| {
            s["input"]["bindings"] = json!([{"exchange": "x", "routingKey": "é".repeat(128)}]);
        }),
        ("deadLetter.queue: the queue's name", |s| s["deadLetter"] = json!({"queue": "é".repeat(128)})),
        ("hub.exchange: the exchange's name", |s| s["sink"] = json!({"hub": {"exchange": "é".repeat(128)}})),
        ("store.postgres.schema: the schema's name is longer than 63 bytes", |s| {
            s["store"]["postgres"]["schema"] = json!("é".repeat(32));
        }),
        ("deadLetter.queue: s-3 is one of", |s| s["deadLetter"] = json!({"queue": "s-3"})),
        ("deadLetter.queue: s.drover is one of", |s| s["deadLetter"] = json!({"queue": "s.drover"})),
    ];
    assert!(cases.len() >= 25);
    for (message, change) in cases {
        let told = refused(*change);
        assert!(told.contains(message), "{message:?} is not in {told:?}");
    }
}

#[test]
fn what_is_left_out_has_defaults() {
    let plain = Query::resolve(&query(|_| {}).spec).unwrap();
    assert_eq!((plain.partitions, plain.max_age_seconds, plain.max_stream_bytes), (4, 86_400, 10_737_418_240));
    assert_eq!(
        (plain.schema.as_str(), plain.attempts, plain.deletion_policy),
        ("drover", 5, QueryDeletionPolicy::Retain)
    );
    assert_eq!((plain.dead_letter_queue.as_str(), plain.exchange().as_str()), ("s.dead", "s.drover"));
    assert_eq!(plain.streams(), ["s-0", "s-1", "s-2", "s-3"]);
    assert_eq!((plain.scaling.min_replicas, plain.scaling.max_replicas), (0, 4), "no more than partitions");
    assert!(matches!(&plain.outputs["output"], Output::Table(t) if t.table == "t"));
    assert_eq!(plain.delivery(), Delivery::EffectivelyOnce);
    let hub = Query::resolve(&query(|s| s["sink"] = json!({"hub": {"exchange": "x"}})).spec).unwrap();
    assert_eq!(hub.delivery(), Delivery::AtLeastOnce);
}
