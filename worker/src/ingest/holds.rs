//! Who waits for what: slots that cannot go on, and since when. Decides nothing.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::Notify;

/// Why a slot waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holding {
    /// `sink`, `handler`, `deadLetter`, `delay` or `suspects`.
    pub(crate) stage: &'static str,
    /// In `CamelCase`.
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) since: Instant,
}

/// All slots that wait. While there is one, no batch starts.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    slots: Mutex<BTreeMap<usize, Holding>>,
    left: Notify,
}

impl Holds {
    fn slots(&self) -> MutexGuard<'_, BTreeMap<usize, Holding>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot waits, or still waits, maybe for something else.
    pub(crate) fn enter(&self, slot: usize, stage: &'static str, reason: &str, message: &str, now: Instant) {
        let mut slots = self.slots();
        let first = slots.is_empty();
        let since = slots.get(&slot).map_or(now, |before| before.since);
        let changed = slots.get(&slot).is_none_or(|before| before.reason != reason);
        slots.insert(slot, Holding { stage, reason: reason.to_owned(), message: message.to_owned(), since });
        if first || changed {
            tracing::warn!(stage, reason, slot, "holding: {message}");
        }
    }

    /// A slot goes on. Those that wait try at once.
    pub(crate) fn leave(&self, slot: usize) {
        let mut slots = self.slots();
        if slots.remove(&slot).is_some() {
            if slots.is_empty() {
                tracing::info!("holding is over");
            }
            self.left.notify_waiters();
        }
    }

    /// All wait as one, since the first of them.
    pub(crate) fn merge(&self, slot: usize) {
        let oldest = self.oldest();
        let mut slots = self.slots();
        slots.clear();
        slots.extend(oldest.map(|holding| (slot, holding)));
    }

    pub(crate) fn clear(&self) {
        self.slots().clear();
        self.left.notify_waiters();
    }

    /// What is waited for the longest.
    pub(crate) fn oldest(&self) -> Option<Holding> {
        self.slots().values().min_by_key(|holding| holding.since).cloned()
    }

    pub(crate) fn any(&self) -> bool {
        !self.slots().is_empty()
    }

    /// Ends when some slot goes on after this call.
    pub(crate) fn left(&self) -> impl Future<Output = ()> {
        self.left.notified()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn holding_lasts_since_the_first_and_until_the_last() {
        let (holds, now) = (Holds::default(), super::super::clock::now());
        holds.enter(1, "sink", "Unreachable", "m", now + Duration::from_secs(1));
        holds.enter(0, "sink", "Timeout", "m", now);
        holds.enter(0, "sink", "Unreachable", "m", now + Duration::from_secs(9));
        let oldest = holds.oldest().unwrap();
        assert_eq!((oldest.since, oldest.reason.as_str()), (now, "Unreachable"));
        holds.leave(0);
        assert!(holds.any());
        holds.leave(1);
        assert!(!holds.any());
    }
}
