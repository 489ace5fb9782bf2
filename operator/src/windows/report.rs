//! What is told of a query: status, conditions, events. Pure.

use drover_crds::{
    api::{Phase, ScaleStatus, ScalingMode, Status},
    resolved_query::Query,
};
use drover_worker::stream::{
    schema::{Partition, State},
    status::{HoldingStatus, QueryStatus},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use super::{
    outside::{self, HubFacts},
    scale::{BEHIND, Decision},
    snapshot::Snapshot,
    verdict,
};
use crate::{
    condition::find,
    finding::{COUNTED, Finding, accepted, both, summary, workers_unknown},
    lag_history, names,
    pipeline::{plan::Notice, pods, report::connected},
    problem::{External, Problem},
    rollout::{Command, remember},
};

/// A loss is told for so long, in seconds: a day. The events of then stay lost; the count stays in the workers' metrics.
const TOLD_FOR: i64 = 24 * 3600;
/// Why a version must not take over.
const TOO_MANY_ERRORS: &str = "TooManyErrors";
/// Stages of a worker that wait for the hub.
const OF_HUB: [&str; 4] = ["hub", "partition", "tick", "relay"];

/// How far a version of the state has come in taking over from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Handover {
    /// It catches up with the one before, which emits.
    CatchesUp,
    /// It has caught up and must not take over; why.
    Refused(String),
    /// It emits the ends after this, in ticks of 100 ns since 1970.
    After(i64),
}

/// Where the revisions are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rollout {
    /// The revision that works.
    pub active: Option<String>,
    /// The revision that is to take over.
    pub starting: Option<String>,
    /// Another revision is still there.
    pub draining: bool,
    /// One version of the state is to take over from another, or does so, and is not done.
    pub handover: Option<Handover>,
    /// The wanted version of the state has not begun yet: a change before it ends first.
    pub awaits: bool,
    /// Workers of the wanted revision that work; `None` where it has no Deployment.
    pub available: Option<i32>,
    /// All that it should have work.
    pub works: bool,
    /// Why they do not.
    pub hindrance: Option<Problem>,
    /// Workers that it should have; `None` where the wanted revision is not known, and nothing is removed.
    pub need: Option<i32>,
}

impl Rollout {
    /// True if the wanted revision works and is alone.
    pub(super) fn settled(&self) -> bool {
        self.works && !self.draining && self.handover.is_none() && !self.awaits
    }

    /// True if the version that is asked for must not take over. One that awaits its turn is not the one that was refused.
    pub(super) fn is_given_up(&self) -> bool {
        matches!(self.handover, Some(Handover::Refused(_))) && !self.awaits
    }
}

/// How far the version that is asked for has come, while it is not alone.
pub(super) fn hands_over(facts: &State, wanted: &str) -> Option<Handover> {
    let emission = facts.emission.as_ref()?;
    match emission.at {
        None if emission.new != wanted => None,
        None if outside::has_caught_up(facts, &emission.old, wanted) => {
            let refusal = verdict::refusal(facts, &emission.old, wanted);
            Some(refusal.map_or(Handover::CatchesUp, Handover::Refused))
        }
        None => Some(Handover::CatchesUp),
        Some(at) => (!emission.old.is_empty() && !emission.passed).then_some(Handover::After(at)),
    }
}

/// True if workers of a version of the state have something to do: it emits, has ends left to emit, or is the wanted one that begins.
pub(super) fn lives(facts: &State, state: &str, wanted: &str) -> bool {
    let emission = facts.emission.as_ref();
    let ends = emission.is_some_and(|e| e.at.is_some() && e.old == state && !e.passed);
    let begins = state == wanted && emission.is_some_and(|e| e.at.is_none() && e.new == state);
    facts.revisions.iter().any(|r| r == state) && (facts.emitter() == Some(state) || ends || begins)
}

/// The status that follows from what was seen.
pub(super) fn status(seen: &Snapshot, rollout: &Rollout) -> Status {
    let old = seen.old_status();
    let generation = seen.object.metadata.generation;
    let findings = vec![
        accepted(&seen.admitted),
        hub_ready(seen),
        dead_letter_safe(seen),
        store_ready(seen),
        workers_ready(seen, rollout),
        progressing(rollout),
    ];
    let phase = phase(seen, rollout, &findings);
    let message = message(rollout, phase, &findings);
    let query = seen.admitted.as_ref().ok();
    let promotion = seen.promotion();
    let answered = promotion.as_ref().filter(|_| is_answered(seen, rollout)).map(|p| p.id.clone());
    let conditions = summary(&findings, changes(rollout), rollout.is_given_up().then_some(TOO_MANY_ERRORS), &message)
        .into_iter()
        .chain(findings)
        .chain(of_input(seen, &old))
        .map(|f| f.condition(&old.conditions, generation, seen.now))
        .collect();
    Status {
        observed_generation: generation,
        phase: Some(phase),
        message: Some(message),
        conditions,
        delivery: query.map(Query::delivery).or(old.delivery),
        replicas: Some(seen.owned.deployments.iter().map(|d| pods::counts(d).replicas).sum()),
        selector: Some(names::query_selector(seen.name())),
        active_revision: rollout.active.clone(),
        preview_revision: old.preview_revision.clone(),
        rollout: old.rollout.clone(),
        handled_requests: remember(&old.handled_requests, answered.as_slice(), answered.as_slice()),
        promotion: promotion.filter(|_| answered.is_none()),
        scale: scale(seen, &old).or_else(|| old.scale.clone().filter(|_| seen.admitted.is_ok())),
        dead_letters: match seen.hub {
            External::Fine(HubFacts { dead, .. }) => Some(i64::from(dead)),
            _ => old.dead_letters,
        },
        redrive: old.redrive.clone(),
        // Those of before stay until the hub is seen to have none of them.
        bindings: match (&seen.hub, query) {
            (External::Fine(_), Some(q)) => q.bindings.clone(),
            (_, Some(q)) => both(&old.bindings, &q.bindings),
            (_, None) => old.bindings,
        },
    }
}

/// True if a request is answered: the version that is asked for emits, be it that it did before, or is another one than the request is for.
fn is_answered(seen: &Snapshot, rollout: &Rollout) -> bool {
    let emits = matches!(rollout.handover, None | Some(Handover::After(_))) && !rollout.awaits && seen.store.is_fine();
    emits || (seen.admitted.is_ok() && !seen.promoted())
}

/// What `status.scale` tells of a decision, or of why there is none to act on.
fn scale(seen: &Snapshot, old: &Status) -> Option<ScaleStatus> {
    let (decision, query) = (seen.scale.as_ref()?, seen.admitted.as_ref().ok()?);
    let (desired, reason) = match query.scaling.mode {
        _ if query.suspend => (0, "Suspended"),
        ScalingMode::Off => (query.scaling.replicas, "Off"),
        ScalingMode::Auto | ScalingMode::Recommend => {
            (i32::try_from(decision.desired).unwrap_or(i32::MAX), decision.reason.as_str())
        }
    };
    let lag = decision.numbers.lag.map(shown);
    Some(ScaleStatus {
        arrival_rate: decision.numbers.arrival_rate.map(tenths),
        rate_per_replica: decision.numbers.rate_per_replica.map(tenths),
        lag_seconds: lag,
        lag_history: lag_history::goes_on(old.scale.as_ref(), lag, seen.now),
        desired,
        reason: reason.to_owned(),
        ..ScaleStatus::default()
    })
}

/// The age of what was read last goes up and down between two ticks: as long as the query is not behind, that says nothing.
fn shown(lag: f64) -> f64 {
    if lag <= BEHIND { 0.0 } else { tenths(lag) }
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// A decision in one line.
pub(super) fn why(decision: &Decision) -> String {
    let numbers = &decision.numbers;
    let told = [
        numbers.arrival_rate.map(|n| format!("{n:.1} events/s")),
        numbers.rate_per_replica.map(|n| format!("{n:.1}/s per replica")),
        numbers.lag.map(|n| format!("lag {n:.1} s")),
    ];
    let told: Vec<String> = told.into_iter().flatten().collect();
    let end = if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) };
    format!("{}{end}", decision.reason.as_str())
}

fn statuses(seen: &Snapshot) -> impl Iterator<Item = &QueryStatus> {
    seen.workers.iter().filter_map(|(_, status)| status.as_ref())
}

/// A worker that waits at one of these stages, for what reason.
fn holding(seen: &Snapshot, at: impl Fn(&HoldingStatus) -> bool) -> Option<&HoldingStatus> {
    statuses(seen).flat_map(|s| &s.holding).find(|h| at(h))
}

fn holds(holding: &HoldingStatus) -> String {
    format!("workers hold, nothing is lost: {} ({})", holding.message, holding.reason)
}

fn hub_ready(seen: &Snapshot) -> Finding {
    let finding = |status, reason: &str, message: String| Finding::new("HubReady", status, reason, message);
    let waits = holding(seen, |h| OF_HUB.contains(&h.stage.as_str()) && h.stage != "relay");
    match (&seen.hub, waits) {
        (External::Problem(problem), _) => Finding::bad("HubReady", problem),
        (External::Fine(_), Some(holding)) => finding(Some(false), &holding.reason, holds(holding)),
        (External::Fine(facts), None) => {
            let there = format!("{} streams, exchanges and bindings are there", facts.routed);
            connected(&there, seen.secrets.as_ref().and_then(|s| s.minted.as_ref()))
        }
        (External::Unseen, _) if seen.admitted.is_ok() => {
            finding(None, "NotChecked", "not looked at: the store comes first".to_owned())
        }
        (External::Unseen, _) => finding(None, "NotChecked", "not looked at while the spec is refused".to_owned()),
    }
}

fn dead_letter_safe(seen: &Snapshot) -> Finding {
    let finding = |status, reason: &str, message: String| Finding::new("DeadLetterSafe", status, reason, message);
    match (&seen.hub, holding(seen, |h| h.stage == "relay")) {
        (External::Fine(_), None) => finding(Some(true), "Safe", "dead letters have a queue".to_owned()),
        (_, Some(holding)) => finding(Some(false), &holding.reason, holds(holding)),
        _ => finding(None, "NotChecked", "not looked at: the hub comes first".to_owned()),
    }
}

fn store_ready(seen: &Snapshot) -> Finding {
    let finding = |status, reason: &str, message: String| Finding::new("StoreReady", status, reason, message);
    match (&seen.store, holding(seen, |h| !OF_HUB.contains(&h.stage.as_str()))) {
        (External::Problem(problem), _) => Finding::bad("StoreReady", problem),
        (_, Some(holding)) => finding(Some(false), &holding.reason, holds(holding)),
        (External::Fine(_), None) => finding(Some(true), "StateKept", "the tables of state are there".to_owned()),
        (External::Unseen, None) => finding(None, "NotChecked", "not looked at yet".to_owned()),
    }
}

fn workers_ready(seen: &Snapshot, rollout: &Rollout) -> Finding {
    let finding = |status, reason, message: String| Finding::new("WorkersReady", status, reason, message);
    let revision = rollout.starting.as_ref().or(rollout.active.as_ref()).map_or("?", String::as_str);
    let Some(need) = rollout.need else {
        return workers_unknown(&seen.admitted);
    };
    let available = rollout.available;
    if need == 0 && available.is_some() {
        let suspended = seen.admitted.as_ref().is_ok_and(|q| q.suspend);
        return match (seen.owned.pods.is_empty(), suspended) {
            (true, true) => finding(Some(true), "Suspended", "suspend is true: no workers".to_owned()),
            (true, false) => finding(Some(true), "Running", "no workers are wanted until a message comes".to_owned()),
            (false, false) => finding(Some(true), "Running", "no workers are wanted; the last ones end".to_owned()),
            (false, true) => finding(Some(false), "Stopping", "workers set their partitions free, and end".to_owned()),
        };
    }
    match &rollout.hindrance {
        _ if rollout.awaits && rollout.active.is_some() => {
            finding(Some(true), "Running", "workers of the version before go on".to_owned())
        }
        _ if available.is_none() => finding(Some(false), "NotStarted", "workers wait for hub and store".to_owned()),
        _ if rollout.works => {
            finding(Some(true), "Running", format!("{need} of {need} workers of revision {revision} work"))
        }
        Some(problem) => Finding::bad("WorkersReady", problem),
        None if rollout.starting.is_none() && available > Some(0) => {
            let message = format!("{} of {need} workers of revision {revision} work", available.unwrap_or(0));
            finding(Some(true), "Running", message)
        }
        None => finding(Some(false), "Starting", format!("workers of revision {revision} start")),
    }
}

fn progressing(rollout: &Rollout) -> Finding {
    let finding = |status, reason, message| Finding::new("Progressing", Some(status), reason, message);
    if rollout.awaits && rollout.need.is_some() {
        let message = "a change of the query is under way: the next one follows when it has ended".to_owned();
        return finding(true, "RevisionWaiting", message);
    }
    match &rollout.handover {
        Some(Handover::CatchesUp) => {
            let message = "the new version of the query reads the streams from their beginning; the one before goes on until it has caught up";
            return finding(true, "CatchingUp", message.to_owned());
        }
        Some(Handover::After(at)) => {
            let message = format!(
                "windows that end up to {} are of the version before, later ones of the new one; both work until then",
                instant(*at)
            );
            return finding(true, "TakingOver", message);
        }
        Some(Handover::Refused(why)) => {
            let message = format!(
                "{why}: the one before goes on. Put the query right, or have the new version take over with the annotation {}: <id>",
                Command::Promote.annotation()
            );
            return finding(false, TOO_MANY_ERRORS, message);
        }
        None => {}
    }
    match (&rollout.starting, &rollout.active) {
        (Some(new), Some(old)) if rollout.available.is_some() => {
            finding(true, "RevisionStarting", format!("revision {new} starts; {old} goes on until it works"))
        }
        (Some(new), None) if rollout.available.is_some() => {
            finding(true, "RevisionStarting", format!("revision {new} starts"))
        }
        (Some(new), _) => finding(true, "RevisionWaiting", format!("revision {new} waits for hub and store")),
        (None, Some(active)) if rollout.draining => {
            finding(true, "RevisionDraining", format!("revision {active} works; an older one ends"))
        }
        (None, Some(active)) => finding(false, "RevisionActive", format!("revision {active} is active")),
        (None, None) => finding(false, "NoRevision", "nothing has run yet".to_owned()),
    }
}

/// Ticks of 100 ns as people read them.
fn instant(ticks: i64) -> String {
    let microseconds = Timestamp::from_microsecond(ticks.div_euclid(10));
    microseconds.map_or_else(|_| "the end of time".to_owned(), |t| t.to_string())
}

/// What is told of the input while the state is seen; what was told before stays while it is not.
fn of_input(seen: &Snapshot, old: &Status) -> Vec<Finding> {
    if let External::Fine(facts) = &seen.store {
        return vec![data_loss(facts, seen.now), input_sound(facts)];
    }
    let kept = ["DataLoss", "InputSound"].into_iter().filter_map(|type_| {
        let before = find(&old.conditions, type_)?;
        let status = match before.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        };
        Some(Finding::new(type_, status, &before.reason, before.message.clone()))
    });
    kept.collect()
}

/// The most that any version has of each partition: they read the same.
fn most(facts: &State, count: impl Fn(&Partition) -> i64) -> i64 {
    let mut parts: std::collections::BTreeMap<i32, i64> = std::collections::BTreeMap::new();
    for partition in &facts.partitions {
        let known = parts.entry(partition.part).or_default();
        *known = (*known).max(count(partition));
    }
    parts.values().sum()
}

fn data_loss(facts: &State, now: Timestamp) -> Finding {
    let noticed = facts.partitions.iter().filter_map(|p| p.lost_at).max();
    let lost = most(facts, |p| p.lost);
    match noticed.filter(|at| now.as_second() - at < TOLD_FOR) {
        Some(at) => {
            let at = Timestamp::from_second(at).map_or_else(|_| String::new(), |t| format!(", last at {t}"));
            let message = format!(
                "{lost} losses: streams were declared anew, or retention took messages before they were read{at}; windows of then lack events"
            );
            Finding::new("DataLoss", Some(true), "MessagesLost", message)
        }
        None => Finding::new("DataLoss", Some(false), "NothingLost", "every message of the streams was read"),
    }
}

fn input_sound(facts: &State) -> Finding {
    let (skipped, unknown) = (most(facts, |p| p.skipped), most(facts, |p| p.without_arrival));
    if skipped > 0 {
        let message = format!("{skipped} messages ended their workers again and again, and are dead letters");
        return Finding::new("InputSound", Some(false), "MessagesPassedOver", message);
    }
    if unknown > 0 {
        let message = format!(
            "{unknown} messages said nothing of their arrival: they are never late. Have the hub stamp them \
             (message_interceptors.incoming.set_header_timestamp), or publish them with the property timestamp"
        );
        return Finding::new("InputSound", Some(false), "ArrivalMissing", message);
    }
    Finding::new("InputSound", Some(true), "Sound", "messages say when they arrived, and none ends its worker")
}

fn changes(rollout: &Rollout) -> bool {
    let moves = rollout.starting.is_some() || rollout.draining || rollout.handover.is_some() || rollout.awaits;
    moves && !rollout.is_given_up()
}

fn phase(seen: &Snapshot, rollout: &Rollout, findings: &[Finding]) -> Phase {
    let is = |type_, status| findings.iter().any(|f| f.type_ == type_ && f.status == status);
    let ran = rollout.active.is_some() && !seen.owned.deployments.is_empty();
    if is("Accepted", Some(false)) {
        Phase::Refused
    } else if !is("StoreReady", Some(true)) || !is("HubReady", Some(true)) || is("DeadLetterSafe", Some(false)) {
        if ran { Phase::Holding } else { Phase::Waiting }
    } else if seen.admitted.as_ref().is_ok_and(|q| q.suspend)
        && (rollout.settled() || rollout.is_given_up())
        && is("WorkersReady", Some(true))
    {
        Phase::Suspended
    } else if changes(rollout) || !is("WorkersReady", Some(true)) {
        Phase::Progressing
    } else {
        Phase::Running
    }
}

/// The first thing that is not as it should be, else what there is. The store comes before the hub, which is not looked at without it.
fn message(rollout: &Rollout, phase: Phase, findings: &[Finding]) -> String {
    let of = |type_| findings.iter().find(|f| f.type_ == type_).map(|f| f.message.clone()).unwrap_or_default();
    let outside = || findings.iter().take(COUNTED - 1);
    let bad = outside().find(|f| f.status == Some(false)).or_else(|| outside().find(|f| f.status.is_none()));
    if let Some(f) = bad {
        return f.message.clone();
    }
    match phase {
        _ if rollout.is_given_up() => of("Progressing"),
        Phase::Progressing if rollout.hindrance.is_none() && changes(rollout) => of("Progressing"),
        _ => of("WorkersReady"),
    }
}

/// Events for what happened to the input, and for a version that must not take over.
pub(super) fn losses(seen: &Snapshot, old: &Status, new: &Status) -> Vec<Notice> {
    let told = |type_: &str, bad: &str| {
        let after = find(&new.conditions, type_).filter(|c| c.status == bad)?;
        let before = find(&old.conditions, type_);
        let news = |b: &Condition| {
            b.status != bad || b.reason != after.reason || (type_ == "DataLoss" && b.message != after.message)
        };
        before.is_none_or(news).then(|| Notice {
            warning: true,
            reason: after.reason.clone(),
            action: "Observe",
            note: format!("{type_}: {}", after.message),
        })
    };
    let refused = told("Progressing", "False").filter(|n| n.reason == TOO_MANY_ERRORS);
    [told("DataLoss", "True"), told("InputSound", "False"), refused, lapsed(seen, new)].into_iter().flatten().collect()
}

/// A request that ends because the query was changed after it.
fn lapsed(seen: &Snapshot, new: &Status) -> Option<Notice> {
    let promotion = seen
        .promotion()
        .filter(|p| seen.admitted.is_ok() && !seen.promoted() && new.handled_requests.contains(&p.id))?;
    Some(Notice {
        warning: true,
        reason: "PromotionLapsed".to_owned(),
        action: "Observe",
        note: format!(
            "request {} to promote was for the text before: ask anew where this one is to take over whatever is said of it",
            promotion.id
        ),
    })
}
