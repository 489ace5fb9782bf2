//! How one phase is left for another. Pure.

use drover_crds::api::{DUE_REDRIVES, Evidence, Proof, RevisionLetters, RolloutPhase, RolloutStatus, Tally};

use super::{facts::Facts, sizes::is_on_source};

/// Enters a phase. What was gathered in the one before is gone, but for the old side's usual rate.
pub(super) fn enter(state: &mut RolloutStatus, phase: RolloutPhase, now: &str, reason: &str, message: String) {
    let before = state.evidence.unwrap_or_default();
    state.evidence =
        is_judged(phase).then(|| Evidence { before: sum(before.before, before.active), ..Evidence::default() });
    state.phase = phase;
    now.clone_into(&mut state.since);
    tell(state, reason, message);
    state.scaled_up = false;
    match phase {
        RolloutPhase::Promoting => {
            state.on_source_since.get_or_insert_with(|| now.to_owned());
        }
        RolloutPhase::Verifying | RolloutPhase::RollingBack => {}
        _ => state.on_source_since = None,
    }
}

/// Says why it is where it is.
pub(super) fn tell(state: &mut RolloutStatus, reason: &str, message: String) {
    reason.clone_into(&mut state.reason);
    state.message = message;
}

/// True of a phase in which both sides are watched.
fn is_judged(phase: RolloutPhase) -> bool {
    matches!(phase, RolloutPhase::Previewing | RolloutPhase::Promoting | RolloutPhase::Verifying)
}

/// What two spans of time have come to.
pub(super) fn sum(a: Tally, b: Tally) -> Tally {
    Tally {
        processed: a.processed + b.processed,
        failed: a.failed + b.failed,
        dead_letters: a.dead_letters + b.dead_letters,
        restarts: a.restarts + b.restarts,
        busy_seconds: a.busy_seconds + b.busy_seconds,
    }
}

/// One revision, and nothing on its way.
pub(super) fn settle(state: &mut RolloutStatus, now: &str, reason: &str, message: String) {
    enter(state, RolloutPhase::Stable, now, reason, message);
    (state.preview, state.proof, state.cause) = (None, None, None);
}

/// The new revision is the one that takes the messages from now on; the one before goes.
pub(super) fn take_over(state: &mut RolloutStatus, now: &str, reason: &str, message: String) {
    state.retained = state.active.take();
    state.active = state.preview.take();
    // The very first has nobody above whom it would have to stand.
    state.priority = state.priority.saturating_add(i32::from(state.retained.is_some()));
    state.aborted_revision = None;
    settle(state, now, reason, message);
}

/// The new revision is given up. What is on the source must go before that is all.
pub(super) fn give_up(state: &mut RolloutStatus, now: &str, reason: &str, message: String) {
    state.aborted_revision.clone_from(&state.preview);
    if is_on_source(state) {
        enter(state, RolloutPhase::RollingBack, now, reason, message);
    } else {
        aborted(state, now);
        tell(state, reason, message);
    }
}

/// The same of one that was on the source: what it has dead-lettered there goes back to the old revision, where that is wanted.
pub(super) fn rolled_back(state: &mut RolloutStatus, facts: &Facts) {
    let letters = state.preview.clone().zip(state.on_source_since.clone());
    if let Some((revision, since)) = letters.filter(|_| facts.policy.redrive_on_abort) {
        state.redrives.push(RevisionLetters { revision, since, until: Some(facts.now.clone()) });
        let surplus = state.redrives.len().saturating_sub(DUE_REDRIVES);
        state.redrives.drain(..surplus);
    }
    aborted(state, &facts.now);
}

/// Nothing of the new revision is left; why it was given up stays to be read.
fn aborted(state: &mut RolloutStatus, now: &str) {
    let (reason, message) = (state.reason.clone(), state.message.clone());
    enter(state, RolloutPhase::Aborted, now, &reason, message);
    (state.preview, state.proof, state.cause) = (None, None, None);
}

/// The new side consumes: it is watched on the source if there is more to prove, and has taken over if there is not.
pub(super) fn consumes(state: &mut RolloutStatus, now: &str) {
    let name = state.preview.clone().unwrap_or_default();
    if state.proof == Some(Proof::Preview) {
        let message = format!("revision {name} takes the messages; the old one stays until it is proven");
        enter(state, RolloutPhase::Verifying, now, "TakesMessages", message);
    } else {
        take_over(state, now, "Consumes", format!("revision {name} consumes and is active"));
    }
}
