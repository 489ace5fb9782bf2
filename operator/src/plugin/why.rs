//! `kubectl drover why`: the one reason that things are not right, and what to do. Pure.

use drover_crds::api::Phase;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::{
    advice::advice,
    cause::{Matter, is_known, matter},
    command::quoted,
    seen::{Deletion, Happening, Seen},
    table::{plain, since, table},
};
use crate::names::FINALIZER;

/// All that helps to find out.
pub(super) fn text(seen: &Seen, now: Timestamp) -> String {
    let mut text = match matter(seen) {
        Matter::Cause(condition) => told(seen, condition, now),
        matter => {
            let (what, remedy) = words(seen, &matter, now);
            let remedy = remedy.map(|remedy| format!("  Do:     {remedy}\n")).unwrap_or_default();
            format!("{}: {what}\n{remedy}", seen.name)
        }
    };
    text.extend(notes(seen).iter().map(|note| format!("  Note:   {note}\n")));
    let troubles: Vec<Vec<String>> = troubles(seen);
    if !troubles.is_empty() {
        text.push_str("\nPods that do not run:\n");
        text.push_str(&table(&troubles));
    }
    if !seen.events.is_empty() {
        text.push_str("\nWhat happened:\n");
        let row = |h: &Happening| vec![format!("  {}", since(h.at, now)), plain(&h.reason), plain(&h.note)];
        text.push_str(&table(&seen.events.iter().map(row).collect::<Vec<_>>()));
    }
    text
}

/// What a person should do now, in one line; None where there is nothing.
pub(super) fn next(seen: &Seen, now: Timestamp) -> Option<String> {
    let matter = matter(seen);
    let (what, remedy) = words(seen, &matter, now);
    let between = if what.ends_with('?') { " " } else { ": " };
    let line = remedy.map_or_else(|| what.clone(), |remedy| [&what, between, &remedy].concat());
    match matter {
        Matter::Nothing => None,
        Matter::Cause(_) => Some(format!("{line} ({})", seen.command("why"))),
        _ => Some(line),
    }
}

/// What there is to say, and what to do.
fn words(seen: &Seen, matter: &Matter, now: Timestamp) -> (String, Option<String>) {
    let operator = || Some(seen.scope.see_the_operator());
    match matter {
        Matter::Deletion(deletion) => goes(seen, deletion, now),
        Matter::Unseen => ("the operator has not looked at it yet".to_owned(), operator()),
        Matter::Cause(condition) => {
            let remedy = remedy(seen, condition).unwrap_or_else(|| plain(&condition.message));
            (format!("{} {}", condition.type_, condition.reason), Some(remedy))
        }
        Matter::Suspended => ("it is suspended".to_owned(), Some(seen.command("resume"))),
        Matter::PodsDown(pods) => {
            let pods = if *pods == 1 { "1 pod does".to_owned() } else { format!("{pods} pods do") };
            (format!("the operator's last word is that all is well, but {pods} not run: does it run?"), operator())
        }
        Matter::Nothing => (format!("nothing is wrong: {}", health(seen)), None),
    }
}

/// Since when it is to go, and what that waits for.
fn goes(seen: &Seen, deletion: &Deletion, now: Timestamp) -> (String, Option<String>) {
    let at = deletion.since;
    let since = format!("it is being deleted since {at} ({})", since(Some(at), now));
    if !deletion.finalizers.iter().any(|f| f == FINALIZER) {
        let others = plain(&deletion.finalizers.join(", "));
        return (format!("{since}: it waits for finalizers that are not the operator's: {others}"), None);
    }
    if seen.status.phase == Some(Phase::Deleting) {
        let message = seen.status.message.as_deref().unwrap_or("the operator does not say what it waits for");
        return (format!("{since}: {}", plain(message)), None);
    }
    let what = format!("{since}: the operator has not begun, and the finalizer {FINALIZER} waits for it");
    (what, Some(seen.scope.see_the_operator()))
}

/// How far what is told can be relied on.
pub(super) fn notes(seen: &Seen) -> Vec<String> {
    let mut notes = Vec::new();
    // A deletion counts as a change of the spec, and is told of.
    if seen.is_stale() && seen.deletion.is_none() {
        notes.push("the operator has not seen the newest spec yet".to_owned());
    }
    if !seen.unread.is_empty() {
        let fields = plain(&seen.unread.join(", "));
        notes.push(format!("plugin and operator are of different versions: of the status it cannot read {fields}"));
    }
    notes
}

/// What to do about a condition of an object: in the page's words, which call any object NAME.
fn remedy(seen: &Seen, condition: &Condition) -> Option<String> {
    advice(&condition.type_, &condition.reason)?.remedy(|command| whole(seen, command))
}

/// A command of the page, whole.
fn whole(seen: &Seen, command: &str) -> String {
    let named = command.replace("wq/NAME", "NAME").replace("NAME", &seen.name);
    if command.starts_with("kubectl logs") {
        return seen.scope.command(&format!("{named} {}", ended(seen)));
    }
    seen.scope.command(&named)
}

/// The container that has ended, as kubectl is told of it; those of all workers where it is not known.
fn ended(seen: &Seen) -> String {
    let mut pods = seen.pods.iter().flatten();
    let pod = pods.find_map(|pod| Some(format!("{} -c {}", pod.name, pod.trouble.as_ref()?.container.as_ref()?)));
    pod.unwrap_or_else(|| format!("-l {}", quoted(seen.status.selector.as_deref().unwrap_or_default())))
}

fn told(seen: &Seen, condition: &Condition, now: Timestamp) -> String {
    let Condition { type_, reason, message, last_transition_time, .. } = condition;
    let mut rows = vec![
        vec!["  Because:".to_owned(), plain(message)],
        vec!["  Since:".to_owned(), since(Some(last_transition_time.0), now)],
    ];
    rows.extend(means(condition).map(|means| vec!["  Means:".to_owned(), means]));
    rows.extend(remedy(seen, condition).map(|remedy| vec!["  Do:".to_owned(), remedy]));
    format!("{}: {type_} is {}: {reason}\n{}", seen.name, condition.status, table(&rows))
}

fn means(condition: &Condition) -> Option<String> {
    let advice = advice(&condition.type_, &condition.reason).map(|advice| advice.means);
    let unknown = || "this version of kubectl drover does not know the condition".to_owned();
    advice.or_else(|| (!is_known(&condition.type_)).then(unknown))
}

/// What is worth knowing of one that is well.
fn health(seen: &Seen) -> String {
    let status = &seen.status;
    let workers = status.replicas.unwrap_or(0);
    let scale = status.scale.as_ref().map(|s| format!(" ({})", s.reason)).unwrap_or_default();
    let dead = status.dead_letters.filter(|n| *n > 0);
    let dead = dead.map(|n| format!(", {n} dead letters: {}", seen.command("dead list"))).unwrap_or_default();
    format!("{workers} workers{scale}{dead}")
}

/// A line for each pod that does not run.
pub(super) fn troubles(seen: &Seen) -> Vec<Vec<String>> {
    let pods = seen.pods.iter().flatten();
    let row = |worker: &super::worker::Worker| {
        let trouble = worker.trouble.as_ref()?;
        Some(vec![format!("  {}", worker.name), plain(&trouble.reason), plain(&trouble.message)])
    };
    pods.filter_map(row).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::plugin::{
        command::Scope,
        worker::{Trouble, Worker},
    };

    fn now() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    /// One with conditions: type, status, reason, message.
    pub(in super::super) fn seen(conditions: &[(&str, &str, &str, &str)]) -> Seen {
        let condition = |(type_, status, reason, message): &(&str, &str, &str, &str)| {
            serde_json::json!({
                "type": type_, "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-02T11:56:00Z",
            })
        };
        let conditions: Vec<_> = conditions.iter().map(condition).collect();
        Seen {
            name: "ingestpipeline.drover.dev/telemetry".into(),
            scope: Scope { namespace: "iot".into(), cluster: String::new() },
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
        insta::assert_snapshot!(text(&seen, now()));
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
        insta::assert_snapshot!(text(&seen, now()));
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
        insta::assert_snapshot!(text(&seen, now()));
    }

    #[test]
    fn one_that_waits_to_be_promoted_says_so_before_what_is_no_hurry() {
        let seen = seen(&[
            ("Progressing", "True", "AwaitingPromotion", "revision c2 has passed its preview"),
            ("SinkLimited", "True", "MoreReplicasDoNotHelp", ""),
        ]);
        let told = text(&seen, now());
        let command = |verb| format!("kubectl drover {verb} ingestpipeline.drover.dev/telemetry -n iot");
        let advice = format!("Do:        {}, or {}", command("promote"), command("abort"));
        assert!(told.contains("AwaitingPromotion") && told.contains(&advice), "{told}");
    }

    #[test]
    fn pods_and_events_are_told_too() {
        let mut seen = seen(&[("WorkersReady", "False", "ImagePullFailed", "drover-worker:9 cannot be pulled")]);
        seen.pods = Some(vec![Worker {
            name: "telemetry-abc-1".into(),
            trouble: Some(trouble("ImagePullBackOff", "not found")),
            ..Worker::default()
        }]);
        seen.events = vec![Happening {
            at: Some("2026-01-02T11:59:00Z".parse().unwrap()),
            reason: "RevisionStarted".into(),
            note: "abc starts".into(),
        }];
        insta::assert_snapshot!(text(&seen, now()));
    }

    pub(in super::super) const WELL: [(&str, &str, &str, &str); 8] = [
        ("Ready", "True", "Ready", ""),
        ("Accepted", "True", "Accepted", ""),
        ("HubReady", "True", "Connected", ""),
        ("DeadLetterSafe", "True", "Safe", ""),
        ("StoreReady", "True", "TableFits", ""),
        ("WorkersReady", "True", "Running", ""),
        ("Progressing", "False", "RevisionActive", ""),
        ("SinkLimited", "False", "NotLimited", ""),
    ];

    #[test]
    fn one_that_is_well_says_so_and_one_that_is_suspended_how_to_go_on() {
        let mut well = seen(&WELL);
        assert!(text(&well, now()).contains("nothing is wrong: 0 workers"));
        assert_eq!(next(&well, now()), None);
        well.status.dead_letters = Some(7);
        let letters = "7 dead letters: kubectl drover dead list ingestpipeline.drover.dev/telemetry -n iot";
        assert!(text(&well, now()).contains(letters), "{}", text(&well, now()));
        well.suspended = true;
        assert!(text(&well, now()).contains("kubectl drover resume ingestpipeline.drover.dev/telemetry -n iot"));
    }

    #[test]
    fn where_the_operator_has_told_nothing_it_is_to_be_found() {
        let told = text(&seen(&[]), now());
        assert!(told.contains("has not looked") && told.contains("-l app.kubernetes.io/part-of=drover"), "{told}");
        assert!(told.contains("watchNamespaces is set, it must have iot"), "{told}");
    }

    /// One that is to go, and is well by what was told last.
    fn going(finalizers: &[&str]) -> Seen {
        let mut seen = seen(&WELL);
        let finalizers = finalizers.iter().map(|f| (*f).to_owned()).collect();
        seen.deletion = Some(Deletion { since: "2026-01-02T11:55:00Z".parse().unwrap(), finalizers });
        (seen.generation, seen.status.observed_generation) = (Some(2), Some(1));
        seen
    }

    #[test]
    fn one_that_is_to_go_says_since_when_and_what_it_waits_for() {
        let mut seen = going(&["drover.dev/queues"]);
        seen.status.phase = Some(Phase::Deleting);
        seen.status.message = Some("the source still has 12 messages".into());
        let expected = "it is being deleted since 2026-01-02T11:55:00Z (5m): the source still has 12 messages";
        assert_eq!(next(&seen, now()).as_deref(), Some(expected));
        assert_eq!(text(&seen, now()), format!("ingestpipeline.drover.dev/telemetry: {expected}\n"));
    }

    #[test]
    fn one_whose_end_the_operator_has_not_begun_says_who_is_waited_for() {
        insta::assert_snapshot!(text(&going(&["drover.dev/queues", "foregroundDeletion"]), now()));
    }

    #[test]
    fn one_that_others_hold_back_names_them() {
        let told = next(&going(&["foregroundDeletion", "acme.dev/audit"]), now()).unwrap();
        assert!(told.ends_with("finalizers that are not the operator's: foregroundDeletion, acme.dev/audit"), "{told}");
    }

    fn trouble(reason: &str, message: &str) -> Trouble {
        Trouble { reason: reason.into(), message: message.into(), container: Some("handler".into()), is_over: false }
    }

    #[test]
    fn pods_that_do_not_run_are_no_sign_that_nothing_is_wrong() {
        let mut seen = seen(&WELL);
        let crash = Some(trouble("CrashLoopBackOff", "OOMKilled (exit code 137)"));
        seen.pods = Some(vec![Worker { name: "telemetry-b1-x".into(), trouble: crash, ..Worker::default() }]);
        insta::assert_snapshot!(text(&seen, now()));
        let next = next(&seen, now()).unwrap();
        assert!(next.contains("1 pod does not run: does it run? see that it runs"), "{next}");
    }

    #[test]
    fn a_log_is_that_of_the_container_that_ends() {
        let mut seen = seen(&[("WorkersReady", "False", "CrashLooping", "handler ends")]);
        seen.status.selector = Some("drover.dev/pipeline=telemetry,!drover.dev/suspects".into());
        let log = "kubectl logs --previous -l 'drover.dev/pipeline=telemetry,!drover.dev/suspects' -n iot";
        assert!(text(&seen, now()).contains(log), "{}", text(&seen, now()));
        let crash = Some(trouble("CrashLoopBackOff", "Error (exit code 1)"));
        seen.pods = Some(vec![Worker { name: "telemetry-b1-x".into(), trouble: crash, ..Worker::default() }]);
        let log = "kubectl logs --previous telemetry-b1-x -c handler -n iot";
        assert!(text(&seen, now()).contains(log), "{}", text(&seen, now()));
    }

    #[test]
    fn what_is_ready_and_yet_to_be_looked_at_says_what_to_do() {
        let users =
            ("HubReady", "True", "UsersInUse", "queues are there; something is connected as drover.iot.t.0.worker-a");
        insta::assert_snapshot!(text(&seen(&[users]), now()));
        let ends = ("DeadLetterSafe", "True", "RetentionEnds", "the oldest is dropped at noon");
        insta::assert_snapshot!(text(&seen(&[ends]), now()));
    }

    #[test]
    fn what_nobody_here_knows_is_told_in_the_operators_words() {
        let told = text(&seen(&[("TideReady", "False", "Ebb", "no water")]), now());
        assert!(told.contains("TideReady is False: Ebb") && told.contains("no water"), "{told}");
        assert!(told.contains("this version of kubectl drover does not know"), "{told}");
        let told = text(&seen(&[("Ready", "False", "TideIsOut", "no water")]), now());
        assert!(told.contains("Ready is False: TideIsOut") && !told.contains("does not know"), "{told}");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let mut seen = seen(&WELL);
        seen.unread = vec!["phase".into()];
        let told = text(&seen, now());
        assert!(told.contains("plugin and operator are of different versions") && told.contains("phase"), "{told}");
    }
}
