//! Whose turn it is, of the revisions that the operator itself causes: a new default image or a rotated secret changes many pipelines
//! at the same moment, and few of them go at a time.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use drover_crds::api::{Cause, RolloutPhase, RolloutStatus};

/// Pipelines that were given a turn by this process, by their UID.
#[derive(Debug)]
pub(crate) struct Turns {
    most: usize,
    given: Mutex<HashSet<String>>,
}

impl Turns {
    /// So many at a time.
    #[must_use]
    pub(crate) fn new(most: u32) -> Self {
        Self { most: usize::try_from(most).unwrap_or(usize::MAX).max(1), given: Mutex::default() }
    }

    /// Whether an object may go on with what its status tells of; `others` are those whose status tells that they are on their way.
    pub(crate) fn ask(&self, uid: &str, state: &RolloutStatus, others: impl Iterator<Item = String>) -> bool {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_asked_for(state) {
            given.remove(uid);
            return false;
        }
        if given.contains(uid) || is_under_way(state) {
            given.insert(uid.to_owned());
            return true;
        }
        let busy: HashSet<String> = given.iter().cloned().chain(others).filter(|other| other != uid).collect();
        let free = busy.len() < self.most;
        if free {
            given.insert(uid.to_owned());
        }
        free
    }

    /// The object is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

fn is_asked_for(state: &RolloutStatus) -> bool {
    state.cause == Some(Cause::Operator) && state.preview.is_some()
}

/// True if a revision that the operator caused is on its way.
pub(crate) fn is_under_way(state: &RolloutStatus) -> bool {
    is_asked_for(state) && !matches!(state.phase, RolloutPhase::Stable | RolloutPhase::Aborted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(phase: RolloutPhase) -> RolloutStatus {
        RolloutStatus { phase, preview: Some("b".to_owned()), cause: Some(Cause::Operator), ..RolloutStatus::default() }
    }

    #[test]
    fn no_more_than_the_limit_go_at_a_time_and_one_that_is_done_makes_room() {
        let turns = Turns::new(2);
        let waiting = state(RolloutPhase::Stable);
        let ask = |uid: &str, state: &RolloutStatus| turns.ask(uid, state, std::iter::empty());
        assert!(ask("a", &waiting) && ask("b", &waiting) && !ask("c", &waiting));
        assert!(ask("a", &waiting), "it keeps its turn");
        assert!(!ask("a", &RolloutStatus::default()), "it is done");
        assert!(ask("c", &waiting) && !ask("a", &waiting));
        turns.forget("b");
        assert!(ask("a", &waiting));
    }

    #[test]
    fn those_on_their_way_before_the_operator_started_count() {
        let turns = Turns::new(2);
        let others = || ["x".to_owned(), "y".to_owned()].into_iter();
        assert!(!turns.ask("a", &state(RolloutPhase::Stable), others()));
        assert!(turns.ask("y", &state(RolloutPhase::Verifying), others()));
    }
}
