//! What follows from a state and what is known. Total and pure.

use drover_crds::api::{Cause, Cutover, Proof, RolloutPhase, RolloutStatus};

use super::{
    enter::{consumes, enter, give_up, rolled_back, settle, take_over, tell},
    facts::{Facts, Mirror, Wanted},
    requests::answer,
    sizes::is_on_source,
    verdict::{Verdict, of_preview, of_readiness, of_takeover},
};
use crate::problem::Problem;

/// Reason: the active revision was deleted with all that it could be made from.
const ACTIVE_GONE: &str = "ActiveGone";

/// Reason: the hub does not let the mirror queue be made.
const MIRROR_REFUSED: &str = "MirrorRefused";

/// The state that follows, with the reason in it. Whoever asks must write it before acting on it.
pub(crate) fn next(state: &RolloutStatus, facts: &Facts) -> RolloutStatus {
    let mut state = mended(state, facts);
    if facts.retained_gone {
        state.retained = None;
    }
    // What was seen of one phase says nothing about another.
    let before = (state.phase, state.preview.clone());
    if let Some(evidence) = facts.evidence.filter(|_| state.evidence.is_some()) {
        state.evidence = Some(evidence);
    }
    if state.phase != RolloutPhase::Previewing && facts.mirror == Mirror::Gone {
        state.mirror = None;
    }
    answer(&mut state, facts);
    let Some(wanted) = &facts.wanted else { return state };
    if state.phase != RolloutPhase::RollingBack && state.preview.as_deref().is_some_and(|p| p != wanted.name) {
        turn_away(&mut state, facts, wanted);
    }
    if facts.active_lost && state.active.as_ref() != Some(&wanted.name) {
        alone(&mut state, facts);
    }
    if matches!(state.phase, RolloutPhase::Stable | RolloutPhase::Aborted) {
        begin(&mut state, facts, wanted);
    } else if before == (state.phase, state.preview.clone()) {
        go_on(&mut state, facts);
    }
    state
}

/// A state that lacks what its phase needs is one that somebody has edited: it begins anew.
fn mended(state: &RolloutStatus, facts: &Facts) -> RolloutStatus {
    let mut state = state.clone();
    let rests = matches!(state.phase, RolloutPhase::Stable | RolloutPhase::Aborted);
    let previews = state.phase == RolloutPhase::Previewing;
    if !rests && state.preview.is_none() || previews && state.mirror.is_none() {
        settle(&mut state, &facts.now, "StatusEdited", "the rollout begins anew: its status was edited".to_owned());
    }
    if previews || matches!(state.phase, RolloutPhase::Promoting | RolloutPhase::Verifying) {
        state.evidence.get_or_insert_default();
    }
    state
}

/// Another revision is asked for than the one that is on its way.
fn turn_away(state: &mut RolloutStatus, facts: &Facts, wanted: &Wanted) {
    let message = format!("revision {} is asked for instead", wanted.name);
    if is_on_source(state) && facts.policy.cutover == Cutover::Exclusive && state.active.is_some() {
        // The other must not take its first message before this one holds none.
        enter(state, RolloutPhase::RollingBack, &facts.now, "SpecChanged", message);
    } else {
        settle(state, &facts.now, "SpecChanged", message);
    }
}

/// There is nothing left to compare with, and nothing to go back to: that it is ready decides. One that was given up stays so.
fn alone(state: &mut RolloutStatus, facts: &Facts) {
    let gone = state.active.clone().unwrap_or_default();
    match state.phase {
        RolloutPhase::Stable | RolloutPhase::RollingBack => {}
        RolloutPhase::Aborted if state.reason == ACTIVE_GONE => {}
        RolloutPhase::Aborted => {
            let message = format!(
                "{}; revision {gone} was deleted, and nothing runs: change the spec, or kubectl drover retry",
                state.message
            );
            tell(state, ACTIVE_GONE, message);
        }
        RolloutPhase::Previewing
        | RolloutPhase::AwaitingPromotion
        | RolloutPhase::Promoting
        | RolloutPhase::Verifying => {
            // Those of its workers that are on the source stay as they are.
            state.priority = state.priority.saturating_add(i32::from(is_on_source(state)));
            without(state, &facts.now, &gone);
        }
    }
}

/// The new revision starts as the first one did.
fn without(state: &mut RolloutStatus, now: &str, gone: &str) {
    (state.active, state.proof) = (None, Some(Proof::Readiness));
    let name = state.preview.clone().unwrap_or_default();
    let message = format!("revision {gone} was deleted, and nothing runs: that revision {name} is ready decides");
    enter(state, RolloutPhase::Promoting, now, ACTIVE_GONE, message);
}

/// Nothing is on its way: is there something to begin?
fn begin(state: &mut RolloutStatus, facts: &Facts, wanted: &Wanted) {
    let name = &wanted.name;
    if state.active.as_ref() == Some(name) {
        state.aborted_revision = None;
        if state.phase == RolloutPhase::Aborted || state.preview.is_some() {
            settle(state, &facts.now, "SpecChangedBack", format!("revision {name} is active"));
        } else if state.reason.is_empty() {
            tell(state, "RevisionActive", format!("revision {name} is active"));
        }
        return;
    }
    if state.aborted_revision.as_ref() == Some(name) {
        if state.phase == RolloutPhase::Stable {
            enter(state, RolloutPhase::Aborted, &facts.now, "AbortedBefore", format!("revision {name} was given up"));
        }
        return;
    }
    if state.phase == RolloutPhase::Aborted {
        settle(state, &facts.now, "SpecChanged", format!("revision {name} is asked for"));
    }
    if state.preview.as_ref() != Some(name) {
        (state.preview, state.proof, state.cause) = (Some(name.clone()), Some(wanted.proof), Some(wanted.cause));
    }
    match waits(state, facts) {
        Some((reason, why)) => tell(state, reason, format!("revision {name} waits for {why}")),
        None => match state.active.clone().filter(|_| facts.active_lost) {
            Some(gone) => without(state, &facts.now, &gone),
            None => start(state, facts, wanted),
        },
    }
}

/// What a revision waits for before it starts.
fn waits(state: &RolloutStatus, facts: &Facts) -> Option<(&'static str, &'static str)> {
    let first = state.active.is_none() || facts.active_lost;
    match () {
        () if !facts.may_start => Some(("RevisionWaiting", "hub and store")),
        () if first => None,
        () if facts.suspended && state.proof == Some(Proof::Preview) => Some(("Suspended", "suspend to be false")),
        () if state.cause == Some(Cause::Operator) && !facts.turn => {
            Some(("WaitsForItsTurn", "other pipelines: few change at a time of what the operator itself causes"))
        }
        () if state.mirror.is_some() => Some(("MirrorRemains", "the mirror queue of another to be removed")),
        () => None,
    }
}

fn start(state: &mut RolloutStatus, facts: &Facts, wanted: &Wanted) {
    let name = &wanted.name;
    if state.active.is_none() {
        // There is nothing to compare the very first with, and nothing to go back to.
        state.proof = Some(Proof::Readiness);
        return enter(state, RolloutPhase::Promoting, &facts.now, "FirstRevision", format!("revision {name} starts"));
    }
    let mut promote = |reason, message| enter(state, RolloutPhase::Promoting, &facts.now, reason, message);
    match (&wanted.mirror, wanted.proof) {
        (_, Proof::Readiness) => {
            promote("ReadinessDecides", format!("revision {name} starts; that it is ready decides"));
        }
        (None, Proof::Preview) => {
            let message = format!("revision {name} starts on the source: it has no binding that could be mirrored");
            promote("NothingToMirror", message);
        }
        (Some(mirror), Proof::Preview) => {
            state.mirror = Some(mirror.clone());
            let message = format!("revision {name} works on a copy of what arrives");
            enter(state, RolloutPhase::Previewing, &facts.now, "Previewing", message);
        }
    }
}

/// The next step of one that is on its way.
fn go_on(state: &mut RolloutStatus, facts: &Facts) {
    let name = state.preview.clone().unwrap_or_default();
    match state.phase {
        RolloutPhase::Stable | RolloutPhase::Aborted | RolloutPhase::AwaitingPromotion => {}
        RolloutPhase::Previewing => match &facts.mirror {
            Mirror::Declared => previewed(state, facts, &name),
            Mirror::Refused(problem) => refused(state, facts, &name, problem),
            Mirror::Unknown | Mirror::Gone => {
                tell(state, "WaitsForMirror", format!("revision {name} waits for its mirror queue"));
            }
        },
        RolloutPhase::Promoting => promoted(state, facts, &name),
        RolloutPhase::Verifying => verified(state, facts, &name),
        RolloutPhase::RollingBack if facts.new.exists => {}
        RolloutPhase::RollingBack if state.aborted_revision.as_ref() == Some(&name) => rolled_back(state, facts),
        RolloutPhase::RollingBack => settle(state, &facts.now, "RolledBack", format!("revision {name} is gone")),
    }
}

/// Whoever relies on the preview is not served by a promotion without one: it is given up when its time is over, and tells what to mend.
fn refused(state: &mut RolloutStatus, facts: &Facts, name: &str, problem: &Problem) {
    let evidence = state.evidence.unwrap_or_default();
    let message = format!("revision {name} cannot be previewed: {}", problem.message);
    if evidence.seconds + evidence.waiting_seconds < f64::from(facts.policy.progress_deadline_seconds) {
        return tell(state, MIRROR_REFUSED, message);
    }
    give_up(state, &facts.now, MIRROR_REFUSED, format!("{message}; then kubectl drover retry"));
}

fn previewed(state: &mut RolloutStatus, facts: &Facts, name: &str) {
    let now = &facts.now;
    match of_preview(&facts.policy, &state.evidence.unwrap_or_default(), &facts.preview) {
        Verdict::Passed(reason, why) if facts.policy.auto_promotion => {
            let message = format!("revision {name} has passed its preview ({why}) and starts on the source");
            enter(state, RolloutPhase::Promoting, now, reason, message);
        }
        Verdict::Passed(reason, why) => {
            let message =
                format!("revision {name} has passed its preview ({why}) and waits for kubectl drover promote");
            enter(state, RolloutPhase::AwaitingPromotion, now, reason, message);
        }
        Verdict::Failed(reason, why) => {
            give_up(state, now, reason, format!("revision {name} has failed its preview: {why}"));
        }
        Verdict::Inconclusive(reason, why) => tell(state, reason, format!("preview of revision {name}: {why}")),
    }
}

fn promoted(state: &mut RolloutStatus, facts: &Facts, name: &str) {
    // With no workers wanted nothing would prove what must be proven.
    if facts.suspended && state.proof == Some(Proof::Preview) {
        return tell(state, "Suspended", format!("revision {name} waits for suspend to be false"));
    }
    if facts.new.consumes {
        return consumes(state, &facts.now);
    }
    let evidence = state.evidence.unwrap_or_default();
    let verdict = match state.proof {
        Some(Proof::Preview) => of_takeover(&facts.policy, &evidence, &facts.new, false),
        _ => of_readiness(&facts.policy, &evidence, &facts.new),
    };
    match verdict {
        Verdict::Failed(reason, why) if state.active.is_some() => {
            give_up(state, &facts.now, reason, format!("revision {name} was given up: {why}"));
        }
        Verdict::Passed(reason, why) | Verdict::Failed(reason, why) | Verdict::Inconclusive(reason, why) => {
            tell(state, reason, format!("revision {name} starts: {why}"));
        }
    }
}

fn verified(state: &mut RolloutStatus, facts: &Facts, name: &str) {
    if facts.suspended {
        return tell(state, "Suspended", format!("revision {name} waits for suspend to be false"));
    }
    let evidence = state.evidence.unwrap_or_default();
    match of_takeover(&facts.policy, &evidence, &facts.new, state.scaled_up) {
        Verdict::Passed(reason, why) => {
            take_over(state, &facts.now, reason, format!("revision {name} is active: {why}"));
        }
        Verdict::Failed(reason, why) => {
            give_up(state, &facts.now, reason, format!("revision {name} was given up: {why}"));
        }
        Verdict::Inconclusive("TakesTooFew", why) => {
            // Once, and what it does then is measured anew.
            let message = format!("revision {name} is given more workers: {why}");
            enter(state, RolloutPhase::Verifying, &facts.now, "ScaledUp", message);
            state.scaled_up = true;
        }
        Verdict::Inconclusive(reason, why) => tell(state, reason, format!("revision {name}: {why}")),
    }
}
