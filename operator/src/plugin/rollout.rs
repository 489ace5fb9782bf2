//! Where a rollout is and what it is judged by, on the status screen. Pure.

use drover_crds::api::{RolloutPhase, RolloutStatus, Status, Tally};
use k8s_openapi::jiff::Timestamp;

use super::table::{plain, since};

/// The rollout, while a revision is on its way or where the one that is asked for was given up.
fn current(status: &Status) -> Option<&RolloutStatus> {
    status.rollout.as_ref().filter(|r| r.phase != RolloutPhase::Stable || r.preview.is_some())
}

/// One line: which revision in place of which, where it is, since when and why.
pub(super) fn line(status: &Status, now: Timestamp) -> Option<String> {
    let rollout = current(status)?;
    let new = rollout.preview.as_ref().or(rollout.aborted_revision.as_ref()).map_or("?", String::as_str);
    let old = rollout.active.as_ref().map(|old| format!(" in place of {old}")).unwrap_or_default();
    let age = rollout.since.parse().ok().map(|at| format!(" for {}", since(Some(at), now))).unwrap_or_default();
    let phase = format!("{:?}", rollout.phase);
    let mut line = format!("{new}{old}: {phase}{age}");
    if !rollout.reason.is_empty() && rollout.reason != phase {
        line = format!("{line}, {}", plain(&rollout.reason));
    }
    // The status often says the same, some lines above.
    if !rollout.message.is_empty() && status.message.as_ref() != Some(&rollout.message) {
        line = format!("{line}: {}", plain(&rollout.message));
    }
    Some(line)
}

/// What both sides have done in this phase, below a title; empty while nothing is judged.
pub(super) fn figures(status: &Status) -> (String, Vec<Vec<String>>) {
    let Some((rollout, evidence)) = current(status).and_then(|r| Some((r, r.evidence?))) else {
        return (String::new(), Vec::new());
    };
    let side = |name: &Option<String>, tally: &Tally| {
        let numbers = [tally.processed, tally.failed, tally.dead_letters, tally.restarts];
        Some(std::iter::once(name.clone()?).chain(numbers.map(|n| n.to_string())).collect::<Vec<_>>())
    };
    let head = ["", "messages", "failed", "dead letters", "restarts"].map(str::to_owned).to_vec();
    let sides = [side(&rollout.active, &evidence.active), side(&rollout.preview, &evidence.preview)];
    let rows = std::iter::once(head).chain(sides.into_iter().flatten()).collect();
    (format!("Both sides in {:.0} s", evidence.seconds), rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-02T12:00:00Z";

    fn status(rollout: &serde_json::Value) -> Status {
        serde_json::from_value(serde_json::json!({ "message": "same", "rollout": rollout })).unwrap()
    }

    fn told(rollout: &serde_json::Value) -> Option<String> {
        line(&status(rollout), NOW.parse().unwrap())
    }

    #[test]
    fn one_that_was_given_up_says_why() {
        let aborted = serde_json::json!({
            "phase": "Aborted", "since": "2026-01-02T11:55:00Z", "reason": "TooManyErrors", "message": "12 failed",
            "active": "b1", "abortedRevision": "c2",
        });
        assert_eq!(told(&aborted).as_deref(), Some("c2 in place of b1: Aborted for 5m, TooManyErrors: 12 failed"));
    }

    #[test]
    fn one_that_waits_to_begin_is_on_its_way_too() {
        let waits = serde_json::json!({
            "phase": "Stable", "reason": "WaitsForItsTurn", "message": "same", "active": "b1", "preview": "c2",
        });
        assert_eq!(told(&waits).as_deref(), Some("c2 in place of b1: Stable, WaitsForItsTurn"));
    }

    #[test]
    fn where_nothing_is_on_its_way_nothing_is_told() {
        let stable = serde_json::json!({ "phase": "Stable", "reason": "RevisionActive", "active": "b1" });
        assert_eq!((told(&stable), figures(&status(&stable)).1), (None, Vec::<Vec<String>>::new()));
        assert_eq!(line(&Status::default(), NOW.parse().unwrap()), None);
    }
}
