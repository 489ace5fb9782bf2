//! How many workers each side has: the number that the load needs is given to whichever carries it. Pure.

use drover_crds::api::{Cutover, Proof, RolloutPhase, RolloutStatus};

/// What is there of each side.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Live {
    /// Workers that the new side's Deployment on the source asks for; 0 where it has none.
    pub new: i32,
    /// A pod of the old side is there, also one that ends.
    pub active_pods: bool,
    /// A pod of the new side is on the source, also one that ends.
    pub new_pods: bool,
}

/// Workers of each side; `None` where a side is not to have a Deployment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Of the revision that takes the messages, or stands by.
    pub active: i32,
    /// Of the one that takes over, on the source.
    pub new: Option<i32>,
    /// Of the one that works on copies.
    pub preview: Option<i32>,
}

/// True if the new revision has, or is to have, workers on the source.
pub(crate) fn is_on_source(state: &RolloutStatus) -> bool {
    matches!(state.phase, RolloutPhase::Promoting | RolloutPhase::Verifying)
}

/// True if a revision is active, or works on something.
pub(crate) fn has_started(state: &RolloutStatus, revision: &str) -> bool {
    state.active.as_deref() == Some(revision)
        || (state.preview.as_deref() == Some(revision)
            && (is_on_source(state) || state.phase == RolloutPhase::Previewing))
}

/// Workers of each side, where the load needs `need` and `most` are allowed; `previews` work on copies.
pub(crate) fn sizes(
    state: &RolloutStatus,
    cutover: Cutover,
    live: Live,
    need: i32,
    most: i32,
    suspended: bool,
    previews: i32,
) -> Sizes {
    let alone = Sizes { active: need, new: None, preview: None };
    match (state.phase, cutover) {
        (RolloutPhase::Previewing, _) => Sizes { preview: Some(if suspended { 0 } else { previews }), ..alone },
        (RolloutPhase::Promoting | RolloutPhase::Verifying, Cutover::Exclusive) if state.active.is_some() => {
            let new = (live.new_pods || !live.active_pods).then(|| taking_over(state, live, need, most, suspended));
            Sizes { active: 0, new, preview: None }
        }
        (RolloutPhase::Promoting | RolloutPhase::Verifying, _) => {
            Sizes { new: Some(taking_over(state, live, need, most, suspended)), ..alone }
        }
        (RolloutPhase::RollingBack, Cutover::Exclusive) if live.new_pods => Sizes { active: 0, ..alone },
        _ => alone,
    }
}

/// What takes over is never made smaller, and one that must prove something has somebody to prove it.
fn taking_over(state: &RolloutStatus, live: Live, need: i32, most: i32, suspended: bool) -> i32 {
    if suspended || state.active.is_none() {
        return need;
    }
    let base = need.max(i32::from(state.proof == Some(Proof::Preview)));
    let base = if state.scaled_up { base.saturating_add((base + 1) / 2).min(most.max(base)) } else { base };
    base.max(live.new)
}
