//! `kubectl drover status`: one screen. Pure.

use drover_crds::api::ScaleStatus;
use k8s_openapi::jiff::Timestamp;

use super::{
    lanes::lanes,
    rollout,
    seen::Seen,
    table::{plain, since, sparkline, table},
    why,
    worker::{Work, Worker},
};
use crate::lag_history;

/// Bars of the lag's history: each is of twenty seconds.
const BARS: i32 = 30;

/// The screen.
pub(super) fn text(seen: &Seen, now: Timestamp) -> String {
    let status = &seen.status;
    let mut head = vec![
        row("Name:", format!("{} in {}", seen.name, seen.scope.namespace)),
        row("Phase:", seen.phase.as_deref().map_or_else(|| "Unknown".to_owned(), plain)),
        row("Message:", plain(status.message.as_deref().unwrap_or("-"))),
        row("Workers:", workers(seen)),
    ];
    head.extend(status.scale.as_ref().map(|s| row("Scale:", scale(s))));
    head.extend(status.scale.as_ref().and_then(|s| lag(s, now)).map(|lag| row("Lag:", lag)));
    head.push(row("Dead:", dead(seen)));
    head.extend(rollout::line(status, now).map(|line| row("Rollout:", line)));
    head.extend(why::notes(seen).into_iter().map(|note| row("Note:", note)));
    let mut text = table(&head);
    text.push_str(&section("Revisions", &lanes(seen)));
    let (judged, figures) = rollout::figures(status);
    text.push_str(&section(&judged, &figures));
    let condition = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        vec![c.type_.clone(), c.status.clone(), c.reason.clone(), since(Some(c.last_transition_time.0), now)]
    };
    let conditions: Vec<_> = status.conditions.iter().map(condition).collect();
    text.push_str(&section("Conditions", &conditions));
    text.push_str(&section("Pods that do not run", &why::troubles(seen)));
    text + &format!("\nNext: {}\n", next(seen, now))
}

fn row(name: &str, value: String) -> Vec<String> {
    vec![name.to_owned(), value]
}

fn section(title: &str, rows: &[Vec<String>]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            row.iter()
                .enumerate()
                .map(|(n, c)| if n == 0 { format!("  {}", c.trim_start()) } else { c.clone() })
                .collect()
        })
        .collect();
    format!("\n{title}:\n{}", table(&rows))
}

fn workers(seen: &Seen) -> String {
    let desired = seen.status.scale.as_ref().map(|scale| scale.desired);
    let there = seen.status.replicas.unwrap_or(0);
    // Of those that are counted there: what tries a revision or works on suspects is not among them.
    let counts = |pod: &&Worker| pod.ready && matches!(pod.work, Work::Source(_));
    let ready = seen.pods.as_ref().map(|pods| pods.iter().filter(counts).count());
    let ready = ready.map(|ready| format!(", {ready} ready")).unwrap_or_default();
    match desired {
        Some(desired) if desired != there => format!("{there} of {desired}{ready}"),
        _ => format!("{there}{ready}"),
    }
}

fn scale(scale: &ScaleStatus) -> String {
    let number = |name: &str, value: Option<i64>| value.map(|v| format!("{v} {name}"));
    let rate = |name: &str, value: Option<f64>| value.map(|v| format!("{v:.1}/s {name}"));
    let numbers = [
        number("ready", scale.ready),
        number("unacknowledged", scale.unacked),
        rate("arrive", scale.arrival_rate),
        rate("per busy worker", scale.rate_per_replica),
    ];
    let numbers: Vec<String> = numbers.into_iter().flatten().collect();
    format!("{} wanted, {}: {}", scale.desired, scale.reason, numbers.join(", "))
}

/// Where it goes, and where it is.
fn lag(scale: &ScaleStatus, now: Timestamp) -> Option<String> {
    let line = sparkline(&lag_history::parts(scale, BARS, now));
    let told = scale.lag_seconds.map(|lag| format!("{lag:.1} s"));
    told.map(|told| [line, told].join("  ").trim_start().to_owned())
}

fn dead(seen: &Seen) -> String {
    match seen.status.dead_letters {
        None => "not known".to_owned(),
        Some(0) => "0".to_owned(),
        Some(n) => {
            let reasons = seen.reasons.iter().flatten().map(|(reason, n)| format!("{n} {}", plain(reason)));
            let reasons: Vec<String> = reasons.collect();
            let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
            format!("{n}{reasons} ({})", seen.command("dead list"))
        }
    }
}

/// What a person should do now.
fn next(seen: &Seen, now: Timestamp) -> String {
    let letters = || seen.status.dead_letters.filter(|n| *n > 0);
    let look = || Some(format!("look at the dead letters: {}", letters().map(|_| seen.command("dead list"))?));
    why::next(seen, now).or_else(look).unwrap_or_else(|| "nothing to do".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{command::Scope, seen::Deletion};

    fn now() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    fn tally(processed: i64, failed: i64) -> serde_json::Value {
        serde_json::json!({
            "processed": processed, "failed": failed, "deadLetters": failed, "restarts": 0, "busySeconds": 1.0,
        })
    }

    fn condition(type_: &str, status: &str, reason: &str) -> serde_json::Value {
        serde_json::json!({
            "type": type_, "status": status, "reason": reason, "message": "revision c2 works on a copy of what arrives",
            "lastTransitionTime": "2026-01-02T11:00:00Z",
        })
    }

    fn seen() -> Seen {
        let pod = |name: &str, work: Work, ready| Worker {
            name: name.into(),
            work,
            images: vec!["drover-worker:1 (0123456789ab)".into(), "handler acme/rules:3 (fedcba987654)".into()],
            ready,
            ..Worker::default()
        };
        let (old, new) = (Work::Source("b1".into()), Work::Preview("c2".into()));
        let status = serde_json::json!({
            "phase": "Progressing", "message": "revision c2 works on a copy of what arrives", "replicas": 2,
            "activeRevision": "b1", "deadLetters": 7,
            "scale": { "desired": 3, "reason": "Load", "ready": 1200, "unacked": 40, "arrivalRate": 512.4, "lagSeconds": 2.5,
                "lagHistory": [
                    { "at": "2026-01-02T11:55:00Z", "seconds": 0.0 }, { "at": "2026-01-02T11:58:30Z", "seconds": 1.0 },
                    { "at": "2026-01-02T11:59:50Z", "seconds": 2.5 },
                ],
            },
            "rollout": {
                "phase": "Previewing", "since": "2026-01-02T11:59:00Z", "reason": "Previewing", "active": "b1",
                "message": "revision c2 works on a copy of what arrives", "preview": "c2", "evidence": {
                    "seconds": 42.3, "active": tally(9_000, 3), "preview": tally(430, 1),
                },
            },
            "conditions": [condition("Ready", "True", "Ready"), condition("Progressing", "True", "Previewing")],
        });
        Seen {
            name: "ingestpipeline.drover.dev/telemetry".into(),
            scope: Scope { namespace: "iot".into(), cluster: String::new() },
            phase: Some("Progressing".into()),
            status: serde_json::from_value(status).unwrap(),
            pods: Some(vec![pod("t-a", new, true), pod("t-b", old.clone(), true), pod("t-c", old, false)]),
            preview: Some("c2".into()),
            reasons: Some([("ColumnMissing".to_owned(), 5), ("NotJson".to_owned(), 2)].into()),
            ..Seen::default()
        }
    }

    #[test]
    fn one_screen_says_it_all() {
        insta::assert_snapshot!(text(&seen(), now()));
    }

    #[test]
    fn where_all_is_well_dead_letters_are_next() {
        let mut seen = seen();
        (seen.status.conditions[1].status, seen.status.conditions[1].reason) =
            ("False".into(), "RevisionActive".into());
        assert!(next(&seen, now()).contains("kubectl drover dead list"));
        seen.status.dead_letters = Some(0);
        assert_eq!(next(&seen, now()), "nothing to do");
    }

    #[test]
    fn one_that_waits_to_be_promoted_is_told_how() {
        let mut seen = seen();
        seen.status.conditions[1].reason = "AwaitingPromotion".into();
        assert!(
            next(&seen, now()).contains("kubectl drover promote ingestpipeline.drover.dev/telemetry"),
            "{}",
            next(&seen, now())
        );
    }

    #[test]
    fn what_was_given_up_or_refused_is_something_to_do() {
        let mut seen = seen();
        seen.status.conditions[1].status = "False".into();
        for (reason, command) in [("RolloutAborted", "retry"), ("TooManyErrors", "promote")] {
            seen.status.conditions[1].reason = reason.into();
            assert!(
                next(&seen, now()).contains(&format!("kubectl drover {command} ingest")),
                "{reason}: {}",
                next(&seen, now())
            );
        }
    }

    #[test]
    fn one_that_is_to_go_has_nothing_before_that() {
        let mut seen = seen();
        let since = "2026-01-02T11:55:00Z".parse().unwrap();
        seen.deletion = Some(Deletion { since, finalizers: vec![crate::names::FINALIZER.to_owned()] });
        seen.generation = Some(2);
        let told = text(&seen, now());
        assert!(told.contains("\nNext: it is being deleted since 2026-01-02T11:55:00Z (5m): "), "{told}");
        assert!(!told.contains("newest spec"), "{told}");
    }

    #[test]
    fn a_phase_of_another_version_is_told_as_it_is_written() {
        let mut seen = seen();
        (seen.phase, seen.unread) = (Some("Pondering".into()), vec!["phase".into()]);
        let told = text(&seen, now());
        assert!(told.contains("Phase:     Pondering\n") && told.contains("of different versions"), "{told}");
    }

    #[test]
    fn where_nothing_is_known_it_says_so() {
        let unseen = Seen {
            name: "windowquery.drover.dev/q".into(),
            scope: Scope { namespace: "iot".into(), cluster: String::new() },
            ..Seen::default()
        };
        insta::assert_snapshot!(text(&unseen, now()));
    }
}
