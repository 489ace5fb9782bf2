//! `kubectl drover why`: the one reason that things are not right, and what to do. Pure.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::{
    advice::advice,
    seen::Seen,
    table::{plain, since, table},
};
use crate::condition::find;

/// Whether a condition is not as it should be.
type Wrong = fn(&Condition) -> bool;

/// Each is told only if those before it are well: what comes later is often their effect.
const CAUSES: [(&str, Wrong); 11] = [
    ("Accepted", is_not_true),
    ("HubReady", is_not_true),
    ("StoreReady", is_not_true),
    ("DeadLetterSafe", is_not_true),
    ("WorkersReady", is_not_true),
    ("Progressing", waits_for_someone),
    ("Stalled", is_not_false),
    ("InputSound", is_not_true),
    ("DataLoss", is_not_false),
    ("SinkLimited", is_not_false),
    ("Progressing", is_not_false),
];

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

/// What to say and to do where the operator has told nothing of an object.
pub(super) const UNSEEN: [&str; 2] =
    ["the operator has not looked at it yet", "see that it runs: kubectl get pods -A -l app.kubernetes.io/name=drover"];

/// True if the operator has told nothing of it.
pub(super) fn is_unseen(seen: &Seen) -> bool {
    seen.status.conditions.is_empty()
}

/// What to do about a condition of an object: in the page's words, which call any object NAME.
pub(super) fn remedy(seen: &Seen, condition: &Condition) -> Option<String> {
    let remedy = advice(&condition.type_, &condition.reason)?.remedy?;
    Some(remedy.replace("wq/NAME", "NAME").replace("NAME", &seen.name))
}

/// The first condition that is not as it should be.
pub(super) fn cause(seen: &Seen) -> Option<&Condition> {
    let conditions = &seen.status.conditions;
    let wrong = |(type_, wrong): &(&str, Wrong)| find(conditions, type_).filter(|c| wrong(c));
    // What is only unknown follows from what is wrong.
    let known = |c: &&Condition| c.status != "Unknown";
    let told = |c: &&Condition| !matches!(c.reason.as_str(), "NotChecked");
    CAUSES.iter().filter_map(wrong).find(known).or_else(|| CAUSES.iter().filter_map(wrong).find(told))
}

/// All that helps to find out.
pub(super) fn text(seen: &Seen, now: Timestamp) -> String {
    let mut text = match (cause(seen), is_unseen(seen)) {
        (_, true) => {
            let [what, remedy] = UNSEEN;
            format!("{}: {what}\n  Do:     {remedy}\n", seen.name)
        }
        (None, _) if seen.suspended => {
            format!("{}: it is suspended\n  Do:     kubectl drover resume {}\n", seen.name, seen.name)
        }
        (None, _) => format!("{}: nothing is wrong: {}\n", seen.name, health(seen)),
        (Some(condition), _) => told(seen, condition, now),
    };
    if seen.is_stale() {
        text.push_str("  Note:   the operator has not seen the newest spec yet\n");
    }
    let troubles: Vec<Vec<String>> = troubles(seen);
    if !troubles.is_empty() {
        text.push_str("\nPods that do not run:\n");
        text.push_str(&table(&troubles));
    }
    if !seen.events.is_empty() {
        text.push_str("\nWhat happened:\n");
        let row =
            |h: &super::seen::Happening| vec![format!("  {}", since(h.at, now)), plain(&h.reason), plain(&h.note)];
        text.push_str(&table(&seen.events.iter().map(row).collect::<Vec<_>>()));
    }
    text
}

fn told(seen: &Seen, condition: &Condition, now: Timestamp) -> String {
    let Condition { type_, reason, message, last_transition_time, .. } = condition;
    let mut rows = vec![
        vec!["  Because:".to_owned(), plain(message)],
        vec!["  Since:".to_owned(), since(Some(last_transition_time.0), now)],
    ];
    if let Some(advice) = advice(type_, reason) {
        rows.push(vec!["  Means:".to_owned(), advice.means]);
    }
    rows.extend(remedy(seen, condition).map(|remedy| vec!["  Do:".to_owned(), remedy]));
    format!("{}: {type_} is {}: {reason}\n{}", seen.name, condition.status, table(&rows))
}

/// What is worth knowing of one that is well.
fn health(seen: &Seen) -> String {
    let status = &seen.status;
    let workers = status.replicas.unwrap_or(0);
    let scale = status.scale.as_ref().map(|s| format!(" ({})", s.reason)).unwrap_or_default();
    let dead = status.dead_letters.filter(|n| *n > 0).map(|n| format!(", {n} dead letters: kubectl drover dead list"));
    format!("{workers} workers{scale}{}", dead.unwrap_or_default())
}

/// A line for each pod that waits for something.
pub(super) fn troubles(seen: &Seen) -> Vec<Vec<String>> {
    let pods = seen.pods.iter().flatten();
    let row = |worker: &super::seen::Worker| {
        let (reason, message) = worker.waiting.as_ref()?;
        Some(vec![format!("  {}", worker.name), plain(reason), plain(message)])
    };
    pods.filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::seen::{Happening, Worker};

    const NOW: &str = "2026-01-02T12:00:00Z";

    fn seen(conditions: &[(&str, &str, &str, &str)]) -> Seen {
        let condition = |(type_, status, reason, message): &(&str, &str, &str, &str)| {
            serde_json::json!({
                "type": type_, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-02T11:56:00Z",
            })
        };
        let conditions: Vec<_> = conditions.iter().map(condition).collect();
        Seen {
            name: "ingestpipeline.drover.dev/telemetry".into(),
            status: serde_json::from_value(serde_json::json!({ "conditions": conditions })).unwrap(),
            ..Seen::default()
        }
    }

    #[test]
    fn the_first_cause_is_told_and_not_its_effects() {
        let seen = seen(&[
            ("Ready", "False", "AccessRefused", "x"),
            ("Accepted", "True", "Accepted", ""),
            ("HubReady", "False", "AccessRefused", "hub.example: wrong user or password"),
            ("StoreReady", "True", "TableFits", ""),
            ("WorkersReady", "False", "NotStarted", "workers wait"),
        ]);
        assert_eq!(cause(&seen).unwrap().type_, "HubReady");
        insta::assert_snapshot!(text(&seen, NOW.parse().unwrap()));
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
        let seen = seen(&[("Accepted", "True", "Accepted", ""), ("DataLoss", "True", "MessagesLost", "")]);
        assert_eq!(cause(&seen).unwrap().type_, "DataLoss");
    }

    #[test]
    fn a_revision_that_takes_over_is_told_where_nothing_is_wrong() {
        let seen =
            seen(&[("Accepted", "True", "Accepted", ""), ("Progressing", "True", "RevisionStarting", "b1 starts")]);
        assert_eq!(cause(&seen).unwrap().reason, "RevisionStarting");
    }

    #[test]
    fn a_revision_that_was_given_up_is_a_cause_though_the_old_one_works() {
        let seen = seen(&[
            ("Ready", "False", "RolloutAborted", "revision c2 has failed its preview"),
            ("Stalled", "True", "RolloutAborted", "revision c2 has failed its preview"),
            ("Accepted", "True", "Accepted", ""),
            ("WorkersReady", "True", "Running", ""),
            ("Progressing", "False", "RolloutAborted", "revision c2 has failed its preview"),
            ("SinkLimited", "True", "MoreReplicasDoNotHelp", ""),
        ]);
        insta::assert_snapshot!(text(&seen, NOW.parse().unwrap()));
    }

    #[test]
    fn a_refused_text_of_a_query_is_a_cause_before_what_its_input_lacks() {
        let mut seen = seen(&[
            ("Ready", "False", "TooManyErrors", "75 % of the events cannot be taken: the one before goes on"),
            ("Stalled", "True", "TooManyErrors", "75 % of the events cannot be taken: the one before goes on"),
            ("Accepted", "True", "Accepted", ""),
            ("WorkersReady", "True", "Running", ""),
            ("Progressing", "False", "TooManyErrors", "75 % of the events cannot be taken: the one before goes on"),
            ("InputSound", "False", "ArrivalMissing", ""),
        ]);
        seen.name = "windowquery.drover.dev/q".into();
        insta::assert_snapshot!(text(&seen, NOW.parse().unwrap()));
    }

    #[test]
    fn what_stalls_is_a_cause_whatever_it_is() {
        let seen = seen(&[("Accepted", "True", "Accepted", ""), ("Stalled", "True", "Moon", "it is full")]);
        assert_eq!(cause(&seen).unwrap().reason, "Moon");
    }

    #[test]
    fn one_that_waits_to_be_promoted_says_so_before_what_is_no_hurry() {
        let seen = seen(&[
            ("Progressing", "True", "AwaitingPromotion", "revision c2 has passed its preview"),
            ("SinkLimited", "True", "MoreReplicasDoNotHelp", ""),
        ]);
        let cause = cause(&seen).unwrap();
        assert_eq!(cause.reason, "AwaitingPromotion");
        assert!(remedy(&seen, cause).unwrap().contains("kubectl drover promote ingestpipeline.drover.dev/telemetry"));
    }

    #[test]
    fn pods_and_events_are_told_too() {
        let mut seen = seen(&[("WorkersReady", "False", "ImagePullFailed", "drover-worker:9 cannot be pulled")]);
        seen.pods = Some(vec![Worker {
            name: "telemetry-abc-1".into(),
            waiting: Some(("ImagePullBackOff".into(), "not found".into())),
            ..Worker::default()
        }]);
        seen.events = vec![Happening {
            at: Some("2026-01-02T11:59:00Z".parse().unwrap()),
            reason: "RevisionStarted".into(),
            note: "abc starts".into(),
        }];
        insta::assert_snapshot!(text(&seen, NOW.parse().unwrap()));
    }

    #[test]
    fn one_that_is_well_says_so_and_one_that_is_suspended_how_to_go_on() {
        let mut well = seen(&[
            ("Ready", "True", "Ready", ""),
            ("Accepted", "True", "Accepted", ""),
            ("HubReady", "True", "Connected", ""),
            ("DeadLetterSafe", "True", "Safe", ""),
            ("StoreReady", "True", "TableFits", ""),
            ("WorkersReady", "True", "Running", ""),
            ("Progressing", "False", "RevisionActive", ""),
            ("SinkLimited", "False", "NotLimited", ""),
        ]);
        assert!(text(&well, NOW.parse().unwrap()).contains("nothing is wrong: 0 workers"));
        well.suspended = true;
        assert!(text(&well, NOW.parse().unwrap()).contains("kubectl drover resume"));
        assert!(text(&seen(&[]), NOW.parse().unwrap()).contains("has not looked"));
    }
}
