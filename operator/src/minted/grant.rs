//! What each role may do at the hub, as the hub reads it: exact patterns of escaped names. Pure.
//!
//! No user may configure anything. Reading is of queues and streams, writing of exchanges: a worker that acknowledges, publishes and looks
//! passively needs no more, and what the broker dead-letters by itself is by right of who has declared the queue, which is the operator.

use std::collections::{BTreeMap, BTreeSet};

use drover_crds::{
    api::Binding,
    resolved::{Pipeline, SUSPECT_STEPS, mirror_queue, suspects_queue},
    resolved_query::Query,
};

use super::role::Role;
use crate::pipeline::revision;

/// Rights of a user in the hub's virtual host. An empty pattern is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Exchanges that it may publish to.
    pub write: String,
    /// Queues and streams that it may consume.
    pub read: String,
    /// Of exchanges, by name: routing keys that it may publish with. The hub asks only topic exchanges for them.
    pub topics: BTreeMap<String, String>,
}

/// What the users of a pipeline may do; `kept` are exchanges that revisions which still run publish to.
#[must_use]
pub fn of_pipeline(pipeline: &Pipeline, kept: &BTreeSet<String>) -> Vec<(Role, Grant)> {
    let mut reads = vec![pipeline.queue.clone()];
    reads.extend((1..=SUSPECT_STEPS).map(|step| suspects_queue(&pipeline.queue, step)));
    let sink = pipeline.sink.hub.iter().map(|hub| hub.exchange.clone());
    let worker = Grant {
        write: exactly(std::iter::once(pipeline.exchange()).chain(sink).chain(kept.iter().cloned())),
        read: exactly(reads),
        topics: BTreeMap::new(),
    };
    let mut all = vec![(Role::Worker, worker)];
    if !pipeline.bindings.is_empty() {
        let mirrors = format!("{}[0-9a-f]{{{}}}", escaped(&mirror_queue(&pipeline.queue, "")), revision::DIGITS);
        all.push((Role::Mirror, Grant { read: whole(&mirrors), ..Grant::default() }));
        all.push((Role::Publisher, publisher(&pipeline.bindings)));
    }
    all
}

/// What the users of a query may do; `kept` are exchanges that revisions which still run publish to.
#[must_use]
pub fn of_query(query: &Query, kept: &BTreeSet<String>) -> Vec<(Role, Grant)> {
    let outputs = query.hub_outputs().map(|hub| hub.exchange.clone());
    let worker = Grant {
        write: exactly(std::iter::once(query.exchange()).chain(outputs).chain(kept.iter().cloned())),
        read: exactly(query.streams()),
        topics: BTreeMap::new(),
    };
    let mut all = vec![(Role::Query, worker)];
    if !query.bindings.is_empty() {
        all.push((Role::QueryPublisher, publisher(&query.bindings)));
    }
    all
}

/// Publishes what the bindings let through, and nothing else, where the exchange is a topic exchange.
fn publisher(bindings: &[Binding]) -> Grant {
    let mut patterns: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for binding in bindings {
        patterns.entry(&binding.exchange).or_default().insert(topic(&binding.routing_key));
    }
    let topics = patterns.into_iter().map(|(exchange, patterns)| (exchange.to_owned(), any(patterns)));
    Grant { write: exactly(bindings.iter().map(|b| b.exchange.clone())), read: String::new(), topics: topics.collect() }
}

/// One of these names, whole.
fn exactly(names: impl IntoIterator<Item = String>) -> String {
    any(names.into_iter().map(|name| escaped(&name)).collect())
}

fn any(patterns: BTreeSet<String>) -> String {
    whole(&patterns.into_iter().collect::<Vec<_>>().join("|"))
}

/// From the first byte to the last: `$` would let a newline after it pass.
fn whole(pattern: &str) -> String {
    format!("^({pattern})\\z")
}

/// As it is: nothing in it means anything, nor is it replaced (the hub puts a user's name for `{username}`).
fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() && !c.is_ascii_alphanumeric() && c != '_' {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// The routing keys that a binding of a topic exchange lets through: `*` is a word, `#` any number of them.
fn topic(key: &str) -> String {
    let mut words: Vec<&str> = key.split('.').collect();
    // Two in a row say no more than one, and would each ask for a dot.
    words.dedup_by(|a, b| *a == "#" && *b == "#");
    if words == ["#"] {
        return ".*".to_owned();
    }
    let mut pattern = String::new();
    // Before the next word comes a dot, unless there is no word before it, or one that brings its own.
    let mut dot = false;
    for word in words {
        if word == "#" {
            pattern.push_str(if dot { "(\\..*)?" } else { "(.*\\.)?" });
            continue;
        }
        if dot {
            pattern.push_str("\\.");
        }
        pattern.push_str(&if word == "*" { "[^.]*".to_owned() } else { escaped(word) });
        dot = true;
    }
    pattern
}

#[cfg(test)]
mod tests;
