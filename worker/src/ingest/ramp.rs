//! How many requests the handler is given at once: all that it may have, but after a death one, and twice as many after each
//! that went well. So a handler that starts again meets one message, not the neighbours of the next killer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Turns that are taken and those that may be.
#[derive(Debug)]
pub(crate) struct Ramp {
    most: usize,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct State {
    allowed: usize,
    taken: usize,
}

/// A turn; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'r>(&'r Ramp);

impl Ramp {
    pub(crate) fn new(most: usize) -> Self {
        let state = Mutex::new(State { allowed: most, taken: 0 });
        Self { most, state, changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> bool {
        let mut state = self.state();
        let free = state.taken < state.allowed;
        state.taken += usize::from(free);
        free
    }

    /// Waits until a turn is free.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.take() {
                return Turn(self);
            }
            changed.await;
        }
    }
}

impl Turn<'_> {
    /// Twice as many may follow.
    pub(crate) fn went_well(&self) {
        let mut state = self.0.state();
        state.allowed = (state.allowed * 2).min(self.0.most);
    }

    /// One may follow.
    pub(crate) fn went_wrong(&self) {
        self.0.state().allowed = 1;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().taken -= 1;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn taken(ramp: &Ramp) -> Vec<Turn<'_>> {
        std::iter::from_fn(|| ramp.turn().now_or_never()).collect()
    }

    #[test]
    fn after_a_death_one_goes_and_then_twice_as_many() {
        let ramp = Ramp::new(4);
        let all = taken(&ramp);
        assert_eq!(all.len(), 4);
        all[0].went_wrong();
        drop(all);
        for expected in [1, 2, 4, 4] {
            let turns = taken(&ramp);
            assert_eq!(turns.len(), expected);
            turns[0].went_well();
        }
    }

    #[tokio::test]
    async fn who_waits_goes_when_a_turn_is_given_back() {
        let ramp = Ramp::new(1);
        let first = ramp.turn().await;
        let second = ramp.turn();
        tokio::pin!(second);
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        second.await;
    }
}
