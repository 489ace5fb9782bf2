//! Whether a revision has proven itself, from what both sides did in the same time. Pure.

use drover_crds::{
    api::{Cutover, Evidence, Tally},
    resolved::Rollout,
};

use super::facts::Side;

/// Of fewer messages no share is told: one batch more or less would be all of it.
const SHARE_OF: i64 = 100;
/// What the old side has begun it finishes, and what it has prefetched it takes: before so many seconds nothing is said of shares.
const SHARE_AFTER: f64 = 10.0;
/// Share of the messages that a new side takes which can carry the load, in percent: priority is a preference, and lets some by.
const SHARE: i64 = 95;
/// A side that shares the load is slower than the other if its batches take so much longer. Both are where CPU or the sink are short.
const SLOWER: f64 = 1.5;
/// Fewer messages of the old side in the same time say nothing of its usual rate.
const RATE_OF: i64 = 20;
/// One that has messages in hand and is done with none for so many seconds hangs, and for twice the time that a message may take.
const HANGS_AFTER: f64 = 20.0;
/// One that waits instead of working, for so many seconds in which the old side does not, has found what is wrong with it.
const HOLDS_AFTER: f64 = 30.0;
/// A failure is no accident when there are more of them than expected by so many standard deviations, and by two more, since of a
/// few messages a deviation tells little: a good revision fails so less than once in ten thousand looks.
const DEVIATIONS: f64 = 3.0;

/// What can be said of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has proven itself; how.
    Passed(&'static str, String),
    /// It has not, and does not.
    Failed(&'static str, String),
    /// It cannot be said yet; what is waited for.
    Inconclusive(&'static str, String),
}

use Verdict::{Failed, Inconclusive, Passed};

/// Of one that works on copies.
pub(crate) fn of_preview(policy: &Rollout, evidence: &Evidence, side: &Side) -> Verdict {
    if let Some(failed) = fault(policy, evidence, side) {
        return failed;
    }
    if !side.consumes {
        return of_readiness(policy, evidence, side);
    }
    let done = evidence.preview.processed;
    let over = evidence.seconds >= f64::from(policy.max_seconds);
    let unlucky = excess(policy, evidence) > 0.0;
    if done >= i64::from(policy.min_messages) && !unlucky {
        return Passed("PreviewPassed", format!("{done} copies, {} of them failed", evidence.preview.failed));
    }
    match () {
        () if !over => Inconclusive("Previewing", format!("until {} copies are worked on", policy.min_messages)),
        () if excess(policy, evidence) > 2.0 => Failed("TooManyErrors", failures(evidence)),
        () => {
            Passed("ProvenByReadiness", format!("{done} copies in {} s: that it is ready decides", policy.max_seconds))
        }
    }
}

/// Of one that takes the messages, while the old one stands by.
pub(crate) fn of_takeover(policy: &Rollout, evidence: &Evidence, side: &Side, scaled_up: bool) -> Verdict {
    if let Some(failed) = fault(policy, evidence, side) {
        return failed;
    }
    if !side.consumes {
        return of_readiness(policy, evidence, side);
    }
    let both = evidence.preview.processed + evidence.active.processed;
    let shares = policy.cutover == Cutover::Overlap && both >= SHARE_OF;
    let told = shares && evidence.seconds >= SHARE_AFTER;
    let share = evidence.preview.processed.saturating_mul(100) / both.max(1);
    let deadline = policy.progress_deadline_seconds.max(policy.scale_down_delay_seconds);
    let late = evidence.seconds >= f64::from(deadline);
    if told && share < SHARE {
        let message = format!("it takes {share} % of the messages, the old revision has to take the rest");
        return match () {
            () if !scaled_up => Inconclusive("TakesTooFew", message),
            () if side.pace.is_none_or(|pace| pace >= SLOWER) => Failed("TooSlow", message),
            () if late => Failed("ProgressDeadlineExceeded", format!("not proven: {message}")),
            () => {
                // No share: it changes with each look.
                let why = "the old revision has to take a part of the messages, and is no faster in the same time: both lack CPU, or their sink is slow";
                Inconclusive("SharesLoad", why.to_owned())
            }
        };
    }
    // While both sides work, the old one may be what carries the load.
    let warm = evidence.seconds >= f64::from(policy.scale_down_delay_seconds) && shares == told;
    let done = evidence.preview.processed;
    let enough = done >= i64::from(policy.min_messages) && excess(policy, evidence) <= 0.0;
    let over = evidence.seconds >= f64::from(policy.max_seconds);
    match () {
        () if warm && enough => Passed("Verified", format!("{done} messages, {}", failures(evidence))),
        () if warm && over && excess(policy, evidence) <= 2.0 => Passed(
            "ProvenByReadiness",
            format!("{done} messages in {} s: that it is ready decides", policy.max_seconds),
        ),
        () if late => Failed("ProgressDeadlineExceeded", format!("not proven: {}", failures(evidence))),
        () => Inconclusive("Verifying", "it takes the messages; the old one stays until it is proven".to_owned()),
    }
}

/// What ends it at once.
fn fault(policy: &Rollout, evidence: &Evidence, side: &Side) -> Option<Verdict> {
    let (new, old) = (&evidence.preview, &evidence.active);
    if new.restarts > i64::from(policy.max_restarts) + old.restarts {
        let why = side.hindrance.as_ref().map_or_else(String::new, |p| format!(": {}", p.message));
        return Some(Failed("Restarts", format!("its pods have restarted {} times{why}", new.restarts)));
    }
    if too_many(policy, evidence) {
        return Some(Failed("TooManyErrors", failures(evidence)));
    }
    if let Some(why) = side.holding.as_ref().filter(|_| evidence.seconds >= HOLDS_AFTER) {
        return Some(Failed("Holds", format!("it waits instead of working, and the old revision does not: {why}")));
    }
    let still = evidence.seconds - evidence.progress_at_seconds;
    let limit = HANGS_AFTER.max(2.0 * f64::from(side.timeout));
    let hangs = side.in_hand > 0 && still >= limit && side.holding.is_none();
    hangs.then(|| Failed("Hangs", format!("{} messages in hand, and none done with in {still:.0} s", side.in_hand)))
}

/// Of one that does not consume yet.
pub(crate) fn of_readiness(policy: &Rollout, evidence: &Evidence, side: &Side) -> Verdict {
    let why = side.hindrance.as_ref().map_or_else(|| "workers start".to_owned(), |p| p.message.clone());
    if evidence.waiting_seconds >= f64::from(policy.progress_deadline_seconds) {
        let seconds = policy.progress_deadline_seconds;
        return Failed("ProgressDeadlineExceeded", format!("it does not consume after {seconds} s: {why}"));
    }
    let reason = side.hindrance.as_ref().map_or("Starting", |p| known(&p.reason));
    Inconclusive(reason, why)
}

/// Reasons why pods do not run are a closed set.
fn known(reason: &str) -> &'static str {
    const ALL: [&str; 6] =
        ["ImagePullFailed", "CrashLooping", "ContainerNotStarted", "Unschedulable", "QuotaExceeded", "PodsRefused"];
    ALL.into_iter().find(|r| *r == reason).unwrap_or("Starting")
}

/// Failures that it has more than it may.
fn excess(policy: &Rollout, evidence: &Evidence) -> f64 {
    real(evidence.preview.failed) - expected(policy, evidence)
}

fn too_many(policy: &Rollout, evidence: &Evidence) -> bool {
    exceeds(evidence.preview.failed, expected(policy, evidence))
}

/// More failures than chance explains.
pub(crate) fn exceeds(failed: i64, expected: f64) -> bool {
    real(failed) > DEVIATIONS.mul_add(expected.sqrt(), expected) + 2.0
}

/// Failures that the old side would have had, and those that are allowed above.
fn expected(policy: &Rollout, evidence: &Evidence) -> f64 {
    real(evidence.preview.processed) * (usual(evidence) + policy.max_error_ratio)
}

/// The old side's share of failures: in the same time where it had enough to do, and never less than what is usual for it.
fn usual(evidence: &Evidence) -> f64 {
    let long = super::enter::sum(evidence.before, evidence.active);
    let now = if evidence.active.processed >= RATE_OF { ratio(&evidence.active) } else { 0.0 };
    ratio(&long).max(now)
}

pub(crate) fn ratio(tally: &Tally) -> f64 {
    if tally.processed > 0 { real(tally.failed) / real(tally.processed) } else { 0.0 }
}

fn failures(evidence: &Evidence) -> String {
    let percent = |ratio: f64| (ratio * 1_000.0).round() / 10.0;
    let (new, usual) = (&evidence.preview, usual(evidence));
    format!("{} failed ({} %, the old revision {} %)", new.failed, percent(ratio(new)), percent(usual))
}

#[expect(clippy::cast_precision_loss, reason = "rounded above 2^53, which no ratio can tell")]
pub(crate) fn real(count: i64) -> f64 {
    count as f64
}
