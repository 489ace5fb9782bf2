//! How long the oldest dead letter of a pipeline stays. Pure.

use std::time::Duration;

use drover_crds::resolved::Pipeline;
use k8s_openapi::jiff::Timestamp;

use super::snapshot::HubFacts;

/// Reason of a condition: a dead letter is about to be dropped.
pub(super) const RETENTION_ENDS: &str = "RetentionEnds";
/// So long before a dead letter is dropped a person is told: time to see it at work.
const LAST: Duration = Duration::from_hours(24);

/// How long the oldest dead letter has been there, and how long it stays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Life {
    pub(super) age: Duration,
    pub(super) left: Duration,
}

impl Life {
    /// A person is to be told. Where retention is short, in the second half of it.
    pub(super) fn is_ending(self) -> bool {
        self.left < LAST && self.left < self.age
    }
}

/// `None` where nobody knows.
pub(super) fn life(facts: &HubFacts, pipeline: &Pipeline, now: Timestamp) -> Option<Life> {
    let age = now.duration_since(facts.oldest?).try_into().unwrap_or_default();
    let retention = Duration::from_secs(pipeline.retention_seconds.into());
    Some(Life { age, left: retention.saturating_sub(age) })
}

/// What is told then.
pub(super) fn ending(facts: &HubFacts, pipeline: &Pipeline) -> String {
    let retention = i64::from(pipeline.retention_seconds);
    let end = facts.oldest.and_then(|oldest| Timestamp::from_second(oldest.as_second() + retention).ok());
    let end = end.map_or_else(|| "soon".to_owned(), |end| format!("at {end}"));
    format!(
        "the oldest of {} messages in queue {} is dropped {end}: redrive, purge or save some",
        facts.dead, pipeline.dead_letter_queue
    )
}
