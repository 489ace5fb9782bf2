//! Which deliveries may be acknowledged, and with how few frames. Pure: it sends nothing.
//!
//! Tags of a channel ascend by one; where one is left out, nobody was given its message, and no frame may cover it. What is done up to the first gap is acknowledged at once with `multiple`; what is done
//! behind a gap waits a moment for the gap to close and is then acknowledged one by one, so that one slow batch keeps
//! nobody else's messages unacknowledged for long.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long what is done waits for a gap before it to close. Longer than batches usually differ, far shorter than
/// anybody waits for credit.
pub(crate) const PATIENCE: Duration = Duration::from_millis(200);

/// One frame of acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) tag: u64,
    pub(crate) multiple: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Done(Instant),
}

/// Deliveries were given to nobody: those after one tag and before another. Only the channel's end brings them again.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("deliveries between {after} and {tag} were given to nobody: they come again with another channel")]
pub(crate) struct Gap {
    after: u64,
    tag: u64,
}

/// The deliveries of a channel that are not acknowledged yet.
#[derive(Debug, Default)]
pub(crate) struct Acks {
    tags: BTreeMap<u64, State>,
    done: usize,
    last: u64,
}

impl Acks {
    /// A delivery came. One that does not follow the last is not taken: `multiple` would cover what is between them.
    pub(crate) fn received(&mut self, tag: u64) -> Result<(), Gap> {
        if tag != self.last + 1 {
            return Err(Gap { after: self.last, tag });
        }
        self.last = tag;
        self.tags.insert(tag, State::Open);
        Ok(())
    }

    /// The effect of a delivery is confirmed.
    pub(crate) fn done(&mut self, tag: u64, now: Instant) {
        if let Some(state @ State::Open) = self.tags.get_mut(&tag) {
            *state = State::Done(now);
            self.done += 1;
        }
    }

    /// A delivery is no longer ours to acknowledge: it was given back.
    pub(crate) fn forget(&mut self, tag: u64) {
        if let Some(State::Done(_)) = self.tags.remove(&tag) {
            self.done -= 1;
        }
    }

    /// Deliveries that are not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.tags.len()
    }

    /// Of these, those that came after `tag`.
    pub(crate) fn unacknowledged_after(&self, tag: u64) -> usize {
        self.tags.range(tag.saturating_add(1)..).count()
    }

    /// Whether something is done and not yet taken.
    pub(crate) fn pending(&self) -> bool {
        self.done > 0
    }

    /// What to acknowledge now.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<Ack> {
        let mut acks = Vec::new();
        let mut prefix = 0;
        let mut last = None;
        while let Some(entry) = self.tags.first_entry() {
            if *entry.get() == State::Open {
                break;
            }
            last = Some(entry.remove_entry().0);
            prefix += 1;
        }
        self.done -= prefix;
        acks.extend(last.map(|tag| Ack { tag, multiple: prefix > 1 }));
        if self.done > 0 {
            self.take_stragglers(now, &mut acks);
        }
        acks
    }

    fn take_stragglers(&mut self, now: Instant, acks: &mut Vec<Ack>) {
        let waited = |state: &State| matches!(state, State::Done(at) if now.duration_since(*at) >= PATIENCE);
        let late: Vec<u64> = self.tags.iter().filter(|(_, s)| waited(s)).map(|(tag, _)| *tag).collect();
        for tag in late {
            self.tags.remove(&tag);
            self.done -= 1;
            acks.push(Ack { tag, multiple: false });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a test needs some moment to count from")]
    fn now() -> Instant {
        Instant::now()
    }

    fn tracker(tags: std::ops::RangeInclusive<u64>) -> Acks {
        let mut acks = Acks::default();
        tags.for_each(|tag| acks.received(tag).unwrap());
        acks
    }

    #[test]
    fn a_prefix_is_acknowledged_with_one_frame() {
        let (mut acks, now) = (tracker(1..=5), now());
        for tag in [2, 1, 3, 5] {
            acks.done(tag, now);
        }
        assert_eq!(acks.take(now), [Ack { tag: 3, multiple: true }]);
        assert_eq!((acks.unacknowledged(), acks.pending()), (2, true));
    }

    #[test]
    fn what_nobody_was_given_is_never_covered() {
        let (mut acks, now) = (tracker(1..=2), now());
        for tag in [4, 2, 5] {
            assert_eq!(acks.received(tag), Err(Gap { after: 2, tag }));
            acks.done(tag, now);
        }
        acks.done(1, now);
        assert_eq!(acks.take(now), [Ack { tag: 2, multiple: true }]);
        assert_eq!(Acks::default().received(2), Err(Gap { after: 0, tag: 2 }));
    }

    #[test]
    fn what_is_done_behind_a_gap_waits_a_moment_only() {
        let (mut acks, now) = (tracker(1..=3), now());
        for tag in [2, 3] {
            acks.done(tag, now);
        }
        assert_eq!(acks.take(now), []);
        let one = |tag| Ack { tag, multiple: false };
        assert_eq!(acks.take(now + PATIENCE), [one(2), one(3)]);
        acks.done(1, now);
        assert_eq!(acks.take(now), [one(1)]);
        assert_eq!(acks.unacknowledged(), 0);
    }

    proptest! {
        #[test]
        fn nothing_open_is_acknowledged_and_nothing_done_is_forgotten(
            order in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(),
            taken in 0..40_usize,
            pause in 0..300_u64,
        ) {
            let (mut acks, start) = (tracker(1..=40), now());
            let mut done = BTreeSet::new();
            let mut acknowledged = BTreeSet::new();
            for (n, tag) in order.iter().enumerate() {
                let at = start + Duration::from_millis(pause * n as u64);
                acks.done(*tag, at);
                done.insert(*tag);
                if n >= taken {
                    for ack in acks.take(at) {
                        let from = if ack.multiple { 1 } else { ack.tag };
                        for covered in from..=ack.tag {
                            prop_assert!(done.contains(&covered), "{covered} is acknowledged while open");
                            prop_assert!(acknowledged.insert(covered) || ack.multiple);
                        }
                    }
                }
            }
            prop_assert_eq!(acknowledged, done);
            prop_assert_eq!(acks.unacknowledged(), 0);
        }
    }
}
