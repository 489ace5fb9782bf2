//! `kubectl drover status`: one screen. Pure.

use std::collections::BTreeMap;

use drover_crds::api::ScaleStatus;
use k8s_openapi::jiff::Timestamp;

use super::{
    advice::advice,
    seen::{Seen, Worker},
    table::{plain, since, sparkline, table},
    why,
};

/// The screen; `lags` are those of this look and the ones before, in seconds.
pub(super) fn text(seen: &Seen, lags: &[f64], now: Timestamp) -> String {
    let status = &seen.status;
    let phase = status.phase.map_or_else(|| "Unknown".to_owned(), |phase| format!("{phase:?}"));
    let mut head = vec![
        row("Name:", format!("{} in {}", seen.name, seen.namespace)),
        row("Phase:", phase),
        row("Message:", plain(status.message.as_deref().unwrap_or("-"))),
        row("Workers:", workers(seen)),
    ];
    head.extend(status.scale.as_ref().map(|s| row("Scale:", scale(s))));
    if !lags.is_empty() {
        let line = if lags.len() > 1 { format!("{}  ", sparkline(lags)) } else { String::new() };
        let lag = lags.last().map(|lag| format!("{line}{lag:.1} s")).unwrap_or_default();
        head.push(row("Lag:", lag));
    }
    head.push(row("Dead:", dead(seen)));
    let mut text = table(&head);
    text.push_str(&section("Revisions", &revisions(seen)));
    let condition = |c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
        vec![c.type_.clone(), c.status.clone(), c.reason.clone(), since(Some(c.last_transition_time.0), now)]
    };
    let conditions: Vec<_> = status.conditions.iter().map(condition).collect();
    text.push_str(&section("Conditions", &conditions));
    text.push_str(&section("Pods that do not run", &why::troubles(seen)));
    text + &format!("\nNext: {}\n", next(seen))
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
    let ready = seen.pods.as_ref().map(|pods| pods.iter().filter(|p| p.ready).count());
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

fn dead(seen: &Seen) -> String {
    match seen.status.dead_letters {
        None => "not known".to_owned(),
        Some(0) => "0".to_owned(),
        Some(n) => {
            let reasons = seen.reasons.iter().flatten().map(|(reason, n)| format!("{n} {}", plain(reason)));
            let reasons: Vec<String> = reasons.collect();
            let reasons = if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) };
            format!("{n}{reasons} (kubectl drover dead list {})", seen.name)
        }
    }
}

/// A lane for each revision that has pods, the active one first.
fn revisions(seen: &Seen) -> Vec<Vec<String>> {
    let active = seen.status.active_revision.clone().unwrap_or_default();
    let mut lanes: BTreeMap<(bool, &str), Vec<&Worker>> = BTreeMap::new();
    for pod in seen.pods.iter().flatten() {
        lanes.entry((pod.revision != active, &pod.revision)).or_default().push(pod);
    }
    let lane = |((other, revision), pods): ((bool, &str), Vec<&Worker>)| {
        let ready = pods.iter().filter(|p| p.ready).count();
        let restarts: i32 = pods.iter().map(|p| p.restarts).sum();
        let mut images: Vec<&str> = pods.iter().map(|p| p.image.as_str()).collect();
        images.sort_unstable();
        images.dedup();
        vec![
            revision.to_owned(),
            role(other, seen.preview.as_deref() == Some(revision)).to_owned(),
            format!("{ready}/{} ready", pods.len()),
            format!("{restarts} restarts"),
            images.join(", "),
        ]
    };
    lanes.into_iter().map(lane).collect()
}

fn role(other: bool, preview: bool) -> &'static str {
    match (other, preview) {
        (false, _) => "active",
        (true, true) => "preview",
        (true, false) => "other",
    }
}

/// What a person should do now.
fn next(seen: &Seen) -> String {
    if let Some(cause) = why::cause(seen) {
        let remedy = advice(&cause.type_, &cause.reason).and_then(|a| a.remedy);
        let remedy = remedy.unwrap_or_else(|| plain(&cause.message));
        return format!("{} {}: {remedy} (kubectl drover why {})", cause.type_, cause.reason, seen.name);
    }
    if seen.suspended {
        return format!("it is suspended: kubectl drover resume {}", seen.name);
    }
    match seen.status.dead_letters {
        Some(n) if n > 0 => format!("look at the dead letters: kubectl drover dead list {}", seen.name),
        _ => "nothing to do".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        let pod = |name: &str, revision: &str, ready| Worker {
            name: name.into(),
            revision: revision.into(),
            image: "drover-worker:1 (0123456789ab)".into(),
            ready,
            ..Worker::default()
        };
        let status = serde_json::json!({
            "phase": "Running", "message": "3 workers", "replicas": 2, "activeRevision": "b1", "deadLetters": 7,
            "scale": { "desired": 3, "reason": "Load", "ready": 1200, "unacked": 40, "arrivalRate": 512.4, "lagSeconds": 2.5 },
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Running", "message": "", "lastTransitionTime": "2026-01-02T11:00:00Z",
            }],
        });
        Seen {
            name: "ingestpipeline.drover.dev/telemetry".into(),
            namespace: "iot".into(),
            status: serde_json::from_value(status).unwrap(),
            pods: Some(vec![pod("t-a", "c2", true), pod("t-b", "b1", true), pod("t-c", "b1", false)]),
            preview: Some("c2".into()),
            reasons: Some([("ColumnMissing".to_owned(), 5), ("NotJson".to_owned(), 2)].into()),
            ..Seen::default()
        }
    }

    #[test]
    fn one_screen_says_it_all() {
        insta::assert_snapshot!(text(&seen(), &[0.0, 1.0, 2.5], "2026-01-02T12:00:00Z".parse().unwrap()));
    }

    #[test]
    fn where_nothing_is_known_it_says_so() {
        let unseen = Seen { name: "windowquery.drover.dev/q".into(), namespace: "iot".into(), ..Seen::default() };
        insta::assert_snapshot!(text(&unseen, &[], "2026-01-02T12:00:00Z".parse().unwrap()));
    }
}
