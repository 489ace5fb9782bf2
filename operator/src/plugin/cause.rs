//! What there is to say of an object before all else. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{
    seen::{Deletion, Seen},
    worker::{Work, Worker},
};
use crate::condition::find;

/// Whether a condition is not as it should be.
type Wrong = fn(&Condition) -> bool;

/// Each is told only if those before it are well: what comes later is often their effect.
const CAUSES: [(&str, Wrong); 7] = [
    ("Accepted", is_not_true),
    ("HubReady", is_not_true),
    ("StoreReady", is_not_true),
    ("DeadLetterSafe", is_not_true),
    ("WorkersReady", is_not_true),
    ("Progressing", waits_for_someone),
    ("Stalled", is_not_false),
];
/// What is to be looked at though it is ready.
const LOOKS: [(&str, Wrong); 5] = [
    ("InputSound", is_not_true),
    ("DataLoss", is_not_false),
    ("DeadLetterSafe", drops_letters_soon),
    ("SinkLimited", is_not_false),
    ("HubReady", keeps_users),
];
/// Conditions that sum others up, as tools read them.
const SUMMARIES: [&str; 2] = ["Ready", "Reconciling"];

/// What there is to say.
#[derive(Debug, PartialEq)]
pub(super) enum Matter<'a> {
    /// It is to go.
    Deletion(&'a Deletion),
    /// The operator has told nothing of it.
    Unseen,
    /// This is not as it should be.
    Cause(&'a Condition),
    /// There are to be no workers.
    Suspended,
    /// The operator says that all is well, and so many pods do not run.
    PodsDown(usize),
    /// Nothing is wrong.
    Nothing,
}

pub(super) fn matter(seen: &Seen) -> Matter<'_> {
    if let Some(deletion) = &seen.deletion {
        return Matter::Deletion(deletion);
    }
    match (cause(seen), down(seen)) {
        _ if seen.status.conditions.is_empty() => Matter::Unseen,
        (Some(condition), _) => Matter::Cause(condition),
        _ if seen.suspended => Matter::Suspended,
        (None, 0) => Matter::Nothing,
        (None, pods) => Matter::PodsDown(pods),
    }
}

/// The first condition that is not as it should be.
fn cause(seen: &Seen) -> Option<&Condition> {
    let conditions = &seen.status.conditions;
    first(conditions, &CAUSES)
        .or_else(|| find(conditions, "Ready").filter(|c| is_not_true(c)))
        .or_else(|| first(conditions, &LOOKS))
        .or_else(|| conditions.iter().find(|c| c.status == "False" && !is_known(&c.type_)))
        .or_else(|| find(conditions, "Progressing").filter(|c| is_not_false(c)))
}

fn first<'a>(conditions: &'a [Condition], all: &[(&str, Wrong)]) -> Option<&'a Condition> {
    let wrong = |(type_, wrong): &(&str, Wrong)| find(conditions, type_).filter(|c| wrong(c));
    // What is only unknown follows from what is wrong.
    let known = |c: &&Condition| c.status != "Unknown";
    let told = |c: &&Condition| c.reason != "NotChecked";
    all.iter().filter_map(wrong).find(known).or_else(|| all.iter().filter_map(wrong).find(told))
}

/// True if this version knows what a condition is for. Of another it takes False for bad, as with most.
pub(super) fn is_known(type_: &str) -> bool {
    let mut judged = CAUSES.iter().chain(&LOOKS).map(|(known, _)| *known);
    judged.any(|known| known == type_) || SUMMARIES.contains(&type_)
}

fn is_not_true(condition: &Condition) -> bool {
    condition.status != "True"
}

fn is_not_false(condition: &Condition) -> bool {
    condition.status != "False"
}

/// True of `Progressing` where nothing goes on before a person acts: a revision was given up or refused, or has passed its preview.
fn waits_for_someone(progressing: &Condition) -> bool {
    match (progressing.status.as_str(), progressing.reason.as_str()) {
        ("False", reason) => !matches!(reason, "RevisionActive" | "NoRevision"),
        (_, reason) => reason == "AwaitingPromotion",
    }
}

fn drops_letters_soon(dead_letter_safe: &Condition) -> bool {
    dead_letter_safe.reason == "RetentionEnds"
}

/// True of `HubReady` where passwords are older than they should be.
fn keeps_users(hub_ready: &Condition) -> bool {
    hub_ready.reason == "UsersInUse"
}

/// Pods that do not run though they should. Suspects end by their nature, and one that is over is missed only while no other runs in
/// its place.
fn down(seen: &Seen) -> usize {
    let pods = || seen.pods.iter().flatten();
    let ready = pods().filter(|p| p.ready && matches!(p.work, Work::Source(_))).count();
    let wanted = seen.status.replicas.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
    let is_down = |pod: &&Worker| match (&pod.trouble, &pod.work) {
        (None, _) | (_, Work::Suspects(_)) => false,
        (Some(trouble), _) => !trouble.is_over || ready < wanted,
    };
    pods().filter(is_down).count()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::{
        minted::Found,
        pipeline::report::connected,
        plugin::{
            why::tests::{WELL, seen},
            worker::Trouble,
        },
    };

    /// One that is well but for this.
    fn but_for(condition: (&'static str, &'static str, &'static str, &'static str)) -> Seen {
        seen(&WELL.iter().filter(|c| c.0 != condition.0).copied().chain([condition]).collect::<Vec<_>>())
    }

    fn told(seen: &Seen) -> (&str, &str) {
        cause(seen).map_or(("", ""), |c| (&c.type_, &c.reason))
    }

    #[test]
    fn what_is_unknown_gives_way_to_what_is_wrong() {
        let seen = seen(&[
            ("Accepted", "True", "Accepted", ""),
            ("HubReady", "Unknown", "NotChecked", ""),
            ("StoreReady", "False", "SecretNotFound", ""),
        ]);
        assert_eq!(cause(&seen).unwrap().type_, "StoreReady");
    }

    #[test]
    fn a_loss_is_told_where_all_else_is_well() {
        assert_eq!(told(&but_for(("DataLoss", "True", "MessagesLost", ""))), ("DataLoss", "MessagesLost"));
    }

    #[test]
    fn a_revision_that_takes_over_is_told_where_nothing_is_wrong() {
        let starts = but_for(("Progressing", "True", "RevisionStarting", "b1 starts"));
        assert_eq!(told(&starts), ("Progressing", "RevisionStarting"));
    }

    #[test]
    fn what_stalls_is_a_cause_whatever_it_is() {
        assert_eq!(told(&but_for(("Stalled", "True", "Moon", "it is full"))), ("Stalled", "Moon"));
    }

    #[test]
    fn what_is_not_ready_is_told_though_nobody_knows_what_for() {
        let unready = ("Ready", "False", "Moon", "it is full");
        let mut seen = but_for(unready);
        assert_eq!(told(&seen), ("Ready", "Moon"));
        // Neither is its cause.
        for other in [("SinkLimited", "True", "MoreReplicasDoNotHelp", ""), ("Progressing", "True", "Previewing", "")] {
            seen = but_for(unready);
            seen.status.conditions.retain(|c| c.type_ != other.0);
            seen.status.conditions.extend(self::seen(&[other]).status.conditions);
            assert_eq!(told(&seen), ("Ready", "Moon"));
        }
    }

    #[test]
    fn a_condition_that_nobody_knows_is_told_where_it_is_false() {
        assert_eq!(told(&but_for(("TideReady", "False", "Ebb", ""))), ("TideReady", "Ebb"));
        assert_eq!(told(&but_for(("TideReady", "True", "Flood", ""))), ("", ""));
        for fine in [("Reconciling", "False", "Settled", ""), ("SinkLimited", "False", "NotLimited", "")] {
            assert_eq!(told(&but_for(fine)), ("", ""), "{fine:?}");
        }
    }

    #[test]
    fn dead_letters_that_are_dropped_soon_are_something_to_look_at() {
        let ends = but_for(("DeadLetterSafe", "True", "RetentionEnds", "the oldest goes within a day"));
        assert_eq!(told(&ends), ("DeadLetterSafe", "RetentionEnds"));
    }

    #[test]
    fn passwords_that_are_not_renewed_are_something_to_look_at() {
        let found = |held_up| Found { held_up, ..Found::default() };
        let hub_ready = |found: &Found| connected("queues are there", Some(found)).condition(&[], None, Timestamp::MIN);
        let mut seen = seen(&WELL);
        seen.status.conditions[2] = hub_ready(&found(Vec::new()));
        assert_eq!(told(&seen), ("", ""));
        seen.status.conditions[2] = hub_ready(&found(vec!["drover.n.t.0.worker-a".to_owned()]));
        assert_eq!(told(&seen), ("HubReady", "UsersInUse"));
    }

    fn pod(work: Work, ready: bool, trouble: Option<Trouble>) -> Worker {
        Worker { work, ready, trouble, ..Worker::default() }
    }

    #[test]
    fn pods_that_do_not_run_are_told_where_the_operator_says_that_all_is_well() {
        let mut seen = seen(&WELL);
        assert_eq!(matter(&seen), Matter::Nothing);
        let crashes = || pod(Work::default(), false, Some(Trouble::default()));
        seen.pods = Some(vec![crashes(), crashes(), pod(Work::default(), true, None)]);
        assert_eq!(matter(&seen), Matter::PodsDown(2));
        seen.pods = Some(vec![pod(Work::Suspects("1".into()), false, Some(Trouble::default()))]);
        assert_eq!(matter(&seen), Matter::Nothing, "suspects end by their nature");
    }

    #[test]
    fn an_evicted_pod_is_missed_until_another_runs_in_its_place() {
        let mut seen = seen(&WELL);
        seen.status.replicas = Some(1);
        let evicted = pod(Work::default(), false, Some(Trouble { is_over: true, ..Trouble::default() }));
        seen.pods = Some(vec![evicted.clone()]);
        assert_eq!(matter(&seen), Matter::PodsDown(1));
        seen.pods = Some(vec![evicted, pod(Work::default(), true, None)]);
        assert_eq!(matter(&seen), Matter::Nothing);
    }

    #[test]
    fn that_it_is_to_go_comes_before_all() {
        let mut seen = but_for(("HubReady", "False", "Unreachable", ""));
        seen.deletion = Some(Deletion::default());
        assert_eq!(matter(&seen), Matter::Deletion(&Deletion::default()));
    }
}
