//! What a person asks for by annotation, each once. Pure.

use drover_crds::api::{LONGEST_REQUEST, RolloutPhase, RolloutStatus};
use kube::ResourceExt;

use super::{
    enter::{consumes, enter, give_up, settle, take_over, tell},
    facts::{Command, Facts},
};

/// Ids of answered requests that are kept, as the schema allows.
const KEPT: usize = drover_crds::api::HANDLED_REQUESTS;

/// The id that an annotation carries, where the schema allows it.
pub(crate) fn request(object: &impl ResourceExt, annotation: &str) -> Option<String> {
    let id = object.meta().annotations.as_ref()?.get(annotation)?;
    (!id.is_empty() && id.chars().count() <= LONGEST_REQUEST).then(|| id.clone())
}

/// Answers every request; the newest state of one is what the next is asked of.
pub(super) fn answer(state: &mut RolloutStatus, facts: &Facts) {
    for (command, _) in &facts.requests {
        match command {
            Command::Abort => abort(state, facts),
            Command::Promote => promote(state, facts),
            Command::Retry => retry(state, facts),
        }
    }
}

/// The ids that were answered, with these. One that an annotation still carries is never forgotten, or it would be done again.
pub(crate) fn remember(before: &[String], answered: &[String], asked: &[String]) -> Vec<String> {
    let mut all = before.to_vec();
    all.extend(answered.iter().filter(|id| !before.contains(id)).cloned());
    let mut surplus = all.len().saturating_sub(KEPT);
    all.retain(|id| {
        let goes = surplus > 0 && !asked.contains(id);
        surplus -= usize::from(goes);
        !goes
    });
    all
}

fn abort(state: &mut RolloutStatus, facts: &Facts) {
    let Some(name) = state.preview.clone() else { return };
    // There is nothing to go back to from the very first, and one that is being taken away already is.
    if state.active.is_some() && state.phase != RolloutPhase::RollingBack {
        give_up(state, &facts.now, "AbortRequested", format!("revision {name} was given up as a person asked"));
    }
}

fn promote(state: &mut RolloutStatus, facts: &Facts) {
    let Some(name) = state.preview.clone() else { return };
    match state.phase {
        RolloutPhase::Previewing | RolloutPhase::AwaitingPromotion => {
            let message = format!("revision {name} starts on the source as a person asked");
            enter(state, RolloutPhase::Promoting, &facts.now, "PromoteRequested", message);
        }
        RolloutPhase::Promoting if facts.new.consumes => consumes(state, &facts.now),
        RolloutPhase::Verifying => {
            take_over(state, &facts.now, "PromoteRequested", format!("revision {name} is active as a person asked"));
        }
        _ => {}
    }
}

fn retry(state: &mut RolloutStatus, facts: &Facts) {
    let Some(name) = state.aborted_revision.take() else { return };
    match state.phase {
        RolloutPhase::Aborted => {
            settle(state, &facts.now, "RetryRequested", format!("revision {name} is tried again as a person asked"));
        }
        RolloutPhase::RollingBack => {
            tell(state, "RetryRequested", format!("revision {name} is tried again once it is gone"));
        }
        _ => {}
    }
}
