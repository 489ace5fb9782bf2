use drover_crds::api::{IngestPipelineSpec, WindowQuerySpec};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pipeline(change: impl FnOnce(&mut serde_json::Value)) -> Pipeline {
    let mut spec = json!({
        "hub": {"secretRef": {"name": "hub"}, "credentials": "Minted"},
        "source": {"queue": "a.b+c", "bindings": [{"exchange": "amq.topic", "routingKey": "devices.#"}]},
        "sink": {"hub": {"exchange": "clean", "routingKey": "k"}},
    });
    change(&mut spec);
    Pipeline::resolve(&serde_json::from_value::<IngestPipelineSpec>(spec).unwrap()).unwrap()
}

fn grant(all: &[(Role, Grant)], role: Role) -> &Grant {
    &all.iter().find(|(of, _)| *of == role).unwrap().1
}

/// As the hub matches; its engine and this one agree on all that is used here.
fn allows(pattern: &str, name: &str) -> bool {
    let pattern = if pattern.is_empty() { "^$" } else { pattern };
    regex::Regex::new(pattern).unwrap().is_match(name)
}

/// Whether a binding of a topic exchange lets a routing key through, word by word.
fn routes(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, None) => true,
        (Some((&"#", rest)), _) => routes(rest, key) || (!key.is_empty() && routes(pattern, &key[1..])),
        (Some((word, rest)), Some((own, others))) => (*word == "*" || word == own) && routes(rest, others),
        _ => false,
    }
}

#[test]
fn a_worker_reads_its_queues_and_writes_its_exchange_and_sink_and_nothing_else() {
    let all = of_pipeline(&pipeline(|_| {}), &BTreeSet::new());
    let worker = grant(&all, Role::Worker);
    for queue in ["a.b+c", "a.b+c.suspects-1", "a.b+c.suspects-2"] {
        assert!(allows(&worker.read, queue), "{queue}: {}", worker.read);
    }
    for other in ["", "a.b+c.dead", "axb+c", "a.bbc", "a.b+cd", "xa.b+c", "a.b+c\n", "a.b+c.suspects-3", "amq.default"]
    {
        assert!(!allows(&worker.read, other), "{other:?}: {}", worker.read);
    }
    assert!(allows(&worker.write, "a.b+c.drover") && allows(&worker.write, "clean"));
    for other in ["", "amq.default", "amq.topic", "a.b+c", "clean2", "clean\n"] {
        assert!(!allows(&worker.write, other), "{other:?}: {}", worker.write);
    }
    let database = pipeline(|s| s["sink"] = json!({"discard": {}}));
    let kept = BTreeSet::from(["clean".to_owned()]);
    assert!(!allows(&grant(&of_pipeline(&database, &BTreeSet::new()), Role::Worker).write, "clean"));
    assert!(allows(&grant(&of_pipeline(&database, &kept), Role::Worker).write, "clean"), "a revision that still runs");
}

#[test]
fn a_mirrors_user_reads_mirrors_of_its_source_and_writes_nowhere() {
    let all = of_pipeline(&pipeline(|_| {}), &BTreeSet::new());
    let mirror = grant(&all, Role::Mirror);
    assert!(allows(&mirror.read, &mirror_queue("a.b+c", "0123456789")), "{}", mirror.read);
    for other in ["a.b+c", "a.b+c.mirror-", "a.b+c.mirror-01234567890", "axb+c.mirror-0123456789"] {
        assert!(!allows(&mirror.read, other), "{other}");
    }
    assert!(!allows(&mirror.write, "a.b+c.drover") && !allows(&mirror.write, "amq.default"));
}

#[test]
fn a_publisher_publishes_what_its_bindings_let_through() {
    let bindings = json!([
        {"exchange": "amq.topic", "routingKey": "devices.#"},
        {"exchange": "amq.topic", "routingKey": "gateways.*.up"},
        {"exchange": "direct{username}"},
    ]);
    let all = of_pipeline(&pipeline(|s| s["source"]["bindings"] = bindings), &BTreeSet::new());
    let publisher = grant(&all, Role::Publisher);
    assert_eq!(publisher.read, "");
    assert!(allows(&publisher.write, "amq.topic") && !allows(&publisher.write, "amq.default"));
    assert!(!allows(&publisher.write, "a.b+c.drover"), "it cannot dead-letter");
    let topics = &publisher.topics["amq.topic"];
    assert!(allows(topics, "devices.1.up") && allows(topics, "devices") && allows(topics, "gateways.7.up"));
    assert!(!allows(topics, "devicesx") && !allows(topics, "gateways.7.x.up") && !allows(topics, "other"));
    assert!(!publisher.write.contains("{username}"), "the hub would put a name for it");
}

#[test]
fn without_a_binding_nothing_is_published_nor_mirrored() {
    let all = of_pipeline(&pipeline(|s| s["source"]["bindings"] = json!([])), &BTreeSet::new());
    assert_eq!(all.iter().map(|(role, _)| *role).collect::<Vec<_>>(), [Role::Worker]);
}

#[test]
fn a_querys_user_reads_each_of_its_streams() {
    let spec: WindowQuerySpec = serde_json::from_value(json!({
        "hub": {"secretRef": {"name": "hub"}, "credentials": "Minted"},
        "input": {"stream": "s", "partitions": 2, "bindings": [{"exchange": "amq.topic", "routingKey": "#"}]},
        "query": "SELECT COUNT(*) AS c FROM input GROUP BY TUMBLINGWINDOW(second, 1)",
        "store": {"postgres": {"secretRef": {"name": "store"}}},
        "sink": {"hub": {"exchange": "results"}},
    }))
    .unwrap();
    let all = of_query(&Query::resolve(&spec).unwrap(), &BTreeSet::new());
    let query = grant(&all, Role::Query);
    assert!(allows(&query.read, "s-0") && allows(&query.read, "s-1"));
    assert!(!allows(&query.read, "s-2") && !allows(&query.read, "s-10") && !allows(&query.read, "s.dead"));
    assert!(allows(&query.write, "s.drover") && allows(&query.write, "results"));
    assert!(!allows(&query.write, "s"), "who writes there writes to the streams");
    assert!(allows(&grant(&all, Role::QueryPublisher).topics["amq.topic"], "whatever.it.is"));
}

proptest! {
    #[test]
    fn a_pattern_allows_exactly_what_the_binding_routes(
        pattern in prop::collection::vec(prop_oneof![Just("a"), Just("b+"), Just("*"), Just("#"), Just("")], 1..6),
        key in prop::collection::vec(prop_oneof![Just("a"), Just("b+"), Just("bb"), Just("")], 1..6),
    ) {
        let (binding, sent) = (pattern.join("."), key.join("."));
        prop_assert_eq!(allows(&whole(&topic(&binding)), &sent), routes(&pattern, &key), "{} {}", binding, sent);
    }
}
