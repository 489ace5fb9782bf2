//! What is told of a pipeline: status, conditions, events. Pure.

use std::time::Duration;

use drover_crds::api::{Phase, RedriveStatus, RolloutPhase, RolloutStatus, ScaleStatus, ScalingMode, Status};
use drover_worker::status::HoldingStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;

use super::{
    letters::{self, Life, RETENTION_ENDS},
    plan::Notice,
    pods, size,
    snapshot::{HubFacts, Snapshot},
};
use crate::{
    condition::find,
    finding::{Finding, accepted, both, summary, workers_unknown},
    lag_history,
    minted::Found,
    names,
    problem::{External, Problem},
    scaling::{self, Decision},
};

/// Numbers alone are written no more often than this.
const NUMBERS: Duration = Duration::from_secs(15);

/// Where the revisions are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rollout {
    /// The revision that takes messages.
    pub active: Option<String>,
    /// The revision that is to take over.
    pub starting: Option<String>,
    /// An older revision is still there.
    pub draining: bool,
    /// Workers of the wanted revision that consume; `None` where it has no Deployment.
    pub available: Option<i32>,
    /// All that it should have consume.
    pub consumes: bool,
    /// Why it does not.
    pub hindrance: Option<Problem>,
    /// Workers that it should have; `None` where the wanted revision is not known, and nothing is removed.
    pub need: Option<i32>,
    /// Where the rollout goes from here; `None` where nothing is known, and it stays.
    pub state: Option<RolloutStatus>,
    /// Ids of requests that are answered, where that is known.
    pub answers: Option<Vec<String>>,
}

impl Rollout {
    /// True if the wanted revision consumes and is alone.
    pub(super) fn settled(&self) -> bool {
        self.consumes && !self.draining
    }

    /// True if a revision must not be removed: it is active, or on its way.
    pub(super) fn keeps(&self, revision: &str) -> bool {
        self.active.as_deref() == Some(revision) || self.starting.as_deref() == Some(revision)
    }

    /// True if a revision is tried on copies of what arrives.
    pub(super) fn previews(&self, revision: Option<&str>) -> bool {
        let state = self.state.as_ref().filter(|s| s.phase == RolloutPhase::Previewing);
        revision.is_some() && state.is_some_and(|s| s.preview.as_deref() == revision)
    }

    /// The revision whose pods are to go at once.
    pub(super) fn failed(&self) -> Option<&str> {
        let state = self.state.as_ref().filter(|s| s.phase == RolloutPhase::RollingBack)?;
        state.preview.as_deref()
    }

    /// True if the revision that is asked for was given up.
    pub(super) fn is_aborted(&self) -> bool {
        self.phase() == RolloutPhase::Aborted
    }

    /// True if a revision is on its way, or waits to be.
    pub(super) fn moves(&self) -> bool {
        !matches!(self.phase(), RolloutPhase::Stable | RolloutPhase::Aborted)
            || self.state.as_ref().is_some_and(|s| s.preview.is_some())
    }

    /// True if what workers do decides what is next.
    pub(super) fn is_judged(&self) -> bool {
        matches!(
            self.phase(),
            RolloutPhase::Previewing | RolloutPhase::Promoting | RolloutPhase::Verifying | RolloutPhase::RollingBack
        )
    }

    fn phase(&self) -> RolloutPhase {
        self.state.as_ref().map(|s| s.phase).unwrap_or_default()
    }
}

/// The status that follows from what was seen.
pub(super) fn status(seen: &Snapshot, rollout: &Rollout) -> Status {
    let old = seen.old_status();
    let generation = seen.object.metadata.generation;
    let findings = findings(seen, rollout);
    let phase = phase(seen, rollout, &findings);
    let message = message(rollout, phase, &findings);
    let pipeline = seen.admitted.as_ref().ok();
    let conditions = summary(&findings, changes(rollout), rollout.is_aborted().then_some("RolloutAborted"), &message)
        .into_iter()
        .chain(findings)
        .map(|f| f.condition(&old.conditions, generation, seen.now))
        .collect();
    Status {
        observed_generation: generation,
        phase: Some(phase),
        message: Some(message),
        conditions,
        delivery: pipeline.map(drover_crds::resolved::Pipeline::delivery).or(old.delivery),
        replicas: Some(seen.owned.deployments.iter().map(|d| pods::counts(d).replicas).sum()),
        selector: Some(names::selector(seen.name())),
        active_revision: rollout.active.clone(),
        preview_revision: match &rollout.state {
            Some(state) => state.preview.clone().or_else(|| state.aborted_revision.clone()),
            None => old.preview_revision.clone(),
        },
        rollout: rollout.state.clone().or_else(|| old.rollout.clone()),
        promotion: None,
        handled_requests: rollout.answers.clone().unwrap_or_else(|| old.handled_requests.clone()),
        scale: scale(seen, &old).or_else(|| old.scale.clone().filter(|_| seen.admitted.is_ok())),
        dead_letters: match seen.hub {
            External::Fine(HubFacts { dead, .. }) => Some(i64::from(dead)),
            _ => old.dead_letters,
        },
        redrive: old.redrive.clone(),
        // Those of before stay until the hub is seen to have none of them.
        bindings: match (&seen.hub, pipeline) {
            (External::Fine(_), Some(p)) => p.bindings.clone(),
            (_, Some(p)) => both(&old.bindings, &p.bindings),
            (_, None) => old.bindings,
        },
    }
}

fn findings(seen: &Snapshot, rollout: &Rollout) -> Vec<Finding> {
    let mut findings = vec![
        accepted(&seen.admitted),
        hub_ready(seen),
        dead_letter_safe(seen),
        store_ready(seen),
        workers_ready(seen, rollout),
        progressing(rollout),
    ];
    findings.extend(seen.scale.as_ref().map(sink_limited));
    findings
}

fn sink_limited(decision: &Decision) -> Finding {
    if decision.sink_limited {
        let message =
            "more workers have not made it faster: the sink is the limit; it is tried again from time to time";
        Finding::new("SinkLimited", Some(true), "MoreReplicasDoNotHelp", message)
    } else {
        Finding::new("SinkLimited", Some(false), "NotLimited", "nothing tells that the sink is the limit")
    }
}

/// What `status.scale` tells of a decision, or of why there is none to act on.
fn scale(seen: &Snapshot, old: &Status) -> Option<ScaleStatus> {
    let (decision, pipeline) = (seen.scale.as_ref()?, seen.admitted.as_ref().ok()?);
    let numbers = &decision.numbers;
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let (desired, reason) = match pipeline.scaling.mode {
        _ if pipeline.suspend => (0, "Suspended"),
        ScalingMode::Off => (pipeline.scaling.replicas, "Off"),
        ScalingMode::Auto | ScalingMode::Recommend => (size::desired(decision), decision.reason.as_str()),
    };
    let lag = numbers.lag.map(tenths);
    Some(ScaleStatus {
        backlog: numbers.backlog.map(|n| count(u64::from(scaling::whole(n)))),
        ready: numbers.ready.map(count),
        unacked: numbers.unacked.map(count),
        arrival_rate: numbers.arrival_rate.map(tenths),
        rate_per_replica: numbers.rate_per_replica.map(tenths),
        lag_seconds: lag,
        lag_history: lag_history::goes_on(old.scale.as_ref(), lag, seen.now),
        desired,
        reason: reason.to_owned(),
    })
}

/// To a tenth, or to three digits where it is less: more would say nothing.
fn tenths(number: f64) -> f64 {
    let scale = if number.abs() < 10.0 { 1_000.0 } else { 10.0 };
    (number * scale).round() / scale
}

/// A decision in one line.
pub(super) fn why(decision: &Decision) -> String {
    let numbers = &decision.numbers;
    let told = [
        numbers.arrival_rate.map(|n| format!("{n:.1}/s arrive")),
        numbers.rate_per_replica.map(|n| format!("{n:.1}/s per replica")),
        numbers.backlog.filter(|n| *n >= 0.5).map(|n| format!("backlog {n:.0}")),
        numbers.lag.map(|n| format!("lag {n:.1} s")),
    ];
    let told: Vec<String> = told.into_iter().flatten().collect();
    let end = if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) };
    format!("{}{end}", decision.reason.as_str())
}

fn hub_ready(seen: &Snapshot) -> Finding {
    match &seen.hub {
        External::Fine(_) => {
            connected("queues, exchange and bindings are there", seen.secrets.as_ref().and_then(|s| s.minted.as_ref()))
        }
        External::Problem(problem) => Finding::bad("HubReady", problem),
        External::Unseen => Finding::new("HubReady", None, "NotChecked", "not looked at while the spec is refused"),
    }
}

/// All is there, and perhaps passwords are in use that should not be.
pub(crate) fn connected(there: &str, minted: Option<&Found>) -> Finding {
    let mut told = vec![there.to_owned()];
    let users = minted.map_or_else(String::new, |found| found.held_up.join(", "));
    if !users.is_empty() {
        told.push(format!(
            "something is still told of, or connected as, users that others have followed, and they are not followed again before that ends: {users}"
        ));
    }
    told.extend(minted.iter().flat_map(|found| &found.unmade).map(|(secret, [a, b])| {
        format!(
            "secret {secret} is gone and is made again once nothing is connected as {a} or as {b}, or one of them is deleted at the hub"
        )
    }));
    let reason = if told.len() > 1 { "UsersInUse" } else { "Connected" };
    Finding::new("HubReady", Some(true), reason, told.join("; "))
}

fn store_ready(seen: &Snapshot) -> Finding {
    let needed = seen.admitted.as_ref().map_or(true, |p| p.sink.postgres.is_some());
    let holding = holding(seen, &["sink"]);
    match (&seen.store, holding) {
        (External::Problem(problem), _) => Finding::bad("StoreReady", problem),
        (_, Some(holding)) => Finding::new(
            "StoreReady",
            Some(false),
            "SinkRefuses",
            format!("workers hold, nothing is lost: {} ({})", holding.message, holding.reason),
        ),
        (External::Fine(()), None) => {
            Finding::new("StoreReady", Some(true), "TableFits", "the table takes what the pipeline writes")
        }
        (External::Unseen, None) if !needed => {
            Finding::new("StoreReady", Some(true), "NotNeeded", "the sink is no database")
        }
        (External::Unseen, None) => Finding::new("StoreReady", None, "NotChecked", "not looked at yet"),
    }
}

/// What a worker waits for at one of these stages; one that works on copies stops nothing.
fn holding<'s>(seen: &'s Snapshot, stages: &[&str]) -> Option<&'s HoldingStatus> {
    let previews: Vec<String> =
        seen.owned.pods.iter().filter(|p| p.labels().contains_key(names::PREVIEW)).map(|p| p.name_any()).collect();
    seen.workers
        .iter()
        .filter(|w| !previews.contains(&w.pod))
        .filter_map(|w| w.status.as_ref()?.holding.as_ref())
        .find(|holding| stages.contains(&&*holding.stage))
}

/// False where a message that leaves the stream has nowhere to go; then the source stops rather than loses.
fn dead_letter_safe(seen: &Snapshot) -> Finding {
    let finding = |status, reason: &str, message: String| Finding::new("DeadLetterSafe", status, reason, message);
    if let Some(holding) = holding(seen, &["deadLetter", "delay", "suspects"]) {
        let message = format!("the source stops, nothing is lost: {}", holding.message);
        return finding(Some(false), &holding.reason, message);
    }
    match (&seen.hub, &seen.admitted) {
        (External::Fine(HubFacts { dead, .. }), Ok(pipeline)) if *dead >= pipeline.max_dead_letters => {
            let message = format!(
                "queue {} is full with {dead} messages, so the source stops at the next: redrive or purge some",
                pipeline.dead_letter_queue
            );
            finding(Some(false), "DeadLettersFull", message)
        }
        (External::Fine(facts), Ok(pipeline))
            if letters::life(facts, pipeline, seen.now).is_some_and(Life::is_ending) =>
        {
            finding(Some(true), RETENTION_ENDS, letters::ending(facts, pipeline))
        }
        (External::Fine(_), _) => finding(Some(true), "Safe", "dead letters have a queue with room".to_owned()),
        _ => finding(None, "NotChecked", "not looked at while the hub is not ready".to_owned()),
    }
}

fn workers_ready(seen: &Snapshot, rollout: &Rollout) -> Finding {
    let finding = |status, reason, message: String| Finding::new("WorkersReady", status, reason, message);
    let revision = rollout.starting.as_ref().or(rollout.active.as_ref()).map_or("?", String::as_str);
    let Some(need) = rollout.need else {
        return workers_unknown(&seen.admitted);
    };
    if need == 0 && rollout.available.is_some() {
        let suspended = seen.admitted.as_ref().is_ok_and(|p| p.suspend);
        let of_source = seen.owned.pods.iter().filter(|p| !p.labels().contains_key(names::PREVIEW));
        return match of_source.count() {
            0 if suspended => finding(Some(true), "Suspended", "suspend is true: no workers".to_owned()),
            0 => finding(Some(true), "Running", "no workers are wanted".to_owned()),
            // A load that has ended is no disturbance.
            _ if !suspended && seen.admitted.as_ref().is_ok_and(|p| p.scaling.mode == ScalingMode::Auto) => {
                finding(Some(true), "Running", "no workers are wanted; the last finish what they hold".to_owned())
            }
            _ => finding(Some(false), "Stopping", "workers finish what they hold, and end".to_owned()),
        };
    }
    if let Some(holding) = holding(seen, &["handler"]) {
        return finding(Some(false), "HandlerFails", format!("workers hold, nothing is lost: {}", holding.message));
    }
    match &rollout.hindrance {
        _ if rollout.available.is_none() => {
            finding(Some(false), "NotStarted", "workers wait for hub and store".to_owned())
        }
        _ if rollout.consumes => {
            finding(Some(true), "Running", format!("{need} of {need} workers of revision {revision} consume"))
        }
        Some(problem) => Finding::bad("WorkersReady", problem),
        None if rollout.starting.is_none() && rollout.available > Some(0) => finding(
            Some(true),
            "Running",
            format!("{} of {need} workers of revision {revision} consume", rollout.available.unwrap_or(0)),
        ),
        None => finding(Some(false), "Starting", format!("workers of revision {revision} start")),
    }
}

fn progressing(rollout: &Rollout) -> Finding {
    let finding = |status, reason, message| Finding::new("Progressing", Some(status), reason, message);
    if let Some(state) = &rollout.state {
        let under_way = match state.phase {
            RolloutPhase::Stable => None,
            RolloutPhase::Previewing => Some("Previewing"),
            RolloutPhase::AwaitingPromotion => Some("AwaitingPromotion"),
            RolloutPhase::Promoting => Some("RevisionStarting"),
            RolloutPhase::Verifying => Some("Verifying"),
            RolloutPhase::RollingBack => Some("RollingBack"),
            RolloutPhase::Aborted => return finding(false, "RolloutAborted", state.message.clone()),
        };
        if let Some(reason) = under_way {
            return finding(true, reason, state.message.clone());
        }
    }
    match (&rollout.starting, &rollout.active) {
        (Some(new), _) => {
            let state = rollout.state.as_ref();
            let why = state.map_or_else(|| format!("revision {new} waits"), |s| s.message.clone());
            finding(true, state.map_or("RevisionWaiting", |s| waiting(&s.reason)), why)
        }
        (None, Some(active)) if rollout.draining => {
            finding(true, "RevisionDraining", format!("revision {active} consumes; an older one drains"))
        }
        (None, Some(active)) => finding(false, "RevisionActive", format!("revision {active} is active")),
        (None, None) => finding(false, "NoRevision", "nothing has run yet".to_owned()),
    }
}

/// What a revision waits for before it starts.
fn waiting(reason: &str) -> &'static str {
    let all = ["Suspended", "WaitsForItsTurn", "MirrorRemains"];
    all.into_iter().find(|r| *r == reason).unwrap_or("RevisionWaiting")
}

fn changes(rollout: &Rollout) -> bool {
    rollout.starting.is_some() || rollout.draining || rollout.moves()
}

fn phase(seen: &Snapshot, rollout: &Rollout, findings: &[Finding]) -> Phase {
    let is = |type_, status| findings.iter().any(|f| f.type_ == type_ && f.status == status);
    if is("Accepted", Some(false)) {
        Phase::Refused
    } else if !is("HubReady", Some(true)) {
        Phase::Waiting
    } else if !is("StoreReady", Some(true)) || is("DeadLetterSafe", Some(false)) {
        if rollout.active.is_some() && !seen.owned.deployments.is_empty() { Phase::Holding } else { Phase::Waiting }
    } else if seen.admitted.as_ref().is_ok_and(|p| p.suspend) && rollout.settled() && is("WorkersReady", Some(true)) {
        Phase::Suspended
    } else if changes(rollout) || !is("WorkersReady", Some(true)) {
        Phase::Progressing
    } else {
        Phase::Running
    }
}

/// The first thing that is not as it should be, else what there is.
fn message(rollout: &Rollout, phase: Phase, findings: &[Finding]) -> String {
    let of = |type_| findings.iter().find(|f| f.type_ == type_).map(|f| f.message.clone()).unwrap_or_default();
    if let Some(f) = findings.iter().take(4).find(|f| f.status != Some(true)) {
        return f.message.clone();
    }
    match phase {
        Phase::Holding => of("DeadLetterSafe"),
        _ if rollout.is_aborted() => of("Progressing"),
        Phase::Progressing if rollout.hindrance.is_none() && changes(rollout) => of("Progressing"),
        _ => of("WorkersReady"),
    }
}

/// True if the status says that all is well.
pub(crate) fn is_ready(status: &Status) -> bool {
    find(&status.conditions, "Ready").is_some_and(|c| c.status == "True")
}

/// Events for conditions that have changed, and for a revision that has taken over.
pub(crate) fn notices(old: &Status, new: &Status, mode: ScalingMode) -> Vec<Notice> {
    let mut notices: Vec<Notice> =
        new.conditions.iter().filter_map(|c| notice(find(&old.conditions, &c.type_), c)).collect();
    if let Some(active) = new.active_revision.as_ref().filter(|a| old.active_revision.as_ref() != Some(a)) {
        notices.push(Notice {
            warning: false,
            reason: "RevisionActive".to_owned(),
            action: "Promote",
            note: format!("revision {active} consumes and is active"),
        });
    }
    notices.extend(transition(old, new));
    let recommended = |s: &Status| s.scale.as_ref().map(|s| s.desired);
    if recommended(old) != recommended(new)
        && let Some(scale) = &new.scale
        && new.replicas != Some(scale.desired)
        && mode == ScalingMode::Recommend
    {
        notices.push(Notice {
            warning: false,
            reason: "Recommended".to_owned(),
            action: "Recommend",
            note: format!("replicas {}: {}", scale.desired, scale.reason),
        });
    }
    notices
}

/// A rollout that goes on, with the reason.
fn transition(old: &Status, new: &Status) -> Option<Notice> {
    let state = new.rollout.as_ref()?;
    let told = |s: &RolloutStatus| (s.phase, s.preview.clone(), s.scaled_up);
    let before = old.rollout.clone().unwrap_or_default();
    let action = match state.phase {
        _ if told(&before) == told(state) => return None,
        // The very first, and one that has become active, are told of by another event.
        RolloutPhase::Stable if old.active_revision != new.active_revision || state.preview.is_some() => return None,
        RolloutPhase::Stable => "Settle",
        RolloutPhase::Previewing => "Preview",
        RolloutPhase::AwaitingPromotion => "Await",
        RolloutPhase::Promoting => "Promote",
        RolloutPhase::Verifying => "Verify",
        RolloutPhase::RollingBack => "RollingBack",
        RolloutPhase::Aborted => "Abort",
    };
    let warning = matches!(state.phase, RolloutPhase::RollingBack | RolloutPhase::Aborted);
    Some(Notice { warning, reason: state.reason.clone(), action, note: state.message.clone() })
}

fn notice(old: Option<&Condition>, new: &Condition) -> Option<Notice> {
    let told = matches!(&*new.type_, "Accepted" | "HubReady" | "StoreReady" | "WorkersReady" | "DeadLetterSafe");
    if new.type_ == "SinkLimited" {
        return limited(old, new);
    }
    let changed = old.is_none_or(|o| (&o.status, &o.reason) != (&new.status, &new.reason));
    let bad = (new.status == "False" && !matches!(&*new.reason, "Starting" | "Stopping" | "NotStarted"))
        || new.reason == RETENTION_ENDS;
    let mended = new.status == "True" && old.is_some_and(|o| o.status == "False");
    (told && changed && (bad || mended)).then(|| Notice {
        warning: bad,
        reason: new.reason.clone(),
        action: "Observe",
        note: format!("{}: {}", new.type_, new.message),
    })
}

/// Here it is `True` that a person should look at.
fn limited(old: Option<&Condition>, new: &Condition) -> Option<Notice> {
    let (was, is) = (old.is_some_and(|o| o.status == "True"), new.status == "True");
    (was != is).then(|| Notice {
        warning: is,
        reason: if is { "SinkLimited" } else { "SinkNotLimited" }.to_owned(),
        action: "Observe",
        note: new.message.clone(),
    })
}

/// What was decided and a condition are written at once; numbers, and a reason that changes nothing, at most every 15 s, and numbers
/// only when one moved by a tenth.
pub(crate) fn must_write(old: &Status, new: &Status, age: Option<Duration>) -> bool {
    if without_numbers(old) != without_numbers(new) {
        return true;
    }
    let reason = |s: &Status| s.scale.as_ref().map(|s| s.reason.clone());
    let moved = numbers(old).iter().zip(numbers(new)).any(|(before, after)| match (*before, after) {
        (Some(a), Some(b)) => (a - b).abs() * 10.0 >= a.abs().max(1.0) && (a - b).abs() > f64::EPSILON,
        (a, b) => a.is_some() != b.is_some(),
    });
    let evidence = |s: &Status| s.rollout.as_ref().and_then(|r| r.evidence);
    (moved || reason(old) != reason(new) || evidence(old) != evidence(new)) && age.is_none_or(|a| a >= NUMBERS)
}

fn without_numbers(status: &Status) -> Status {
    let desired = status.scale.as_ref().map(|s| ScaleStatus { desired: s.desired, ..ScaleStatus::default() });
    let redrive = status.redrive.clone().map(|r| RedriveStatus { redriven: 0, remaining: None, ..r });
    let rollout = status.rollout.clone().map(|r| RolloutStatus { evidence: None, ..r });
    Status { dead_letters: None, scale: desired, redrive, rollout, ..status.clone() }
}

#[expect(clippy::cast_precision_loss, reason = "compared by tenths")]
fn numbers(status: &Status) -> [Option<f64>; 8] {
    let scale = status.scale.clone().unwrap_or_default();
    let count = |n: Option<i64>| n.map(|n| n as f64);
    [
        count(status.dead_letters),
        count(status.redrive.as_ref().map(|r| r.redriven)),
        count(scale.backlog),
        count(scale.ready),
        count(scale.unacked),
        scale.arrival_rate,
        scale.rate_per_replica,
        scale.lag_seconds,
    ]
}
