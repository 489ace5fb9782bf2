//! How many unacknowledged messages to ask the hub for. Pure: it is told what was measured.

use std::time::Duration;

/// Credit to begin with, unless concurrency is larger: enough for a first batch, little for the first worker after zero.
const START: u16 = 16;
/// Growth where credit proves limiting.
const FACTOR: u16 = 4;
/// What a worker holds is at most its work of so long: longer helps no throughput and delays everybody else's messages.
const HORIZON: Duration = Duration::from_secs(3);
/// Bodies of unacknowledged messages take at most this part of the memory limit; a batch holds some of them twice.
const MEMORY_PART: u64 = 8;
/// The memory limit where none is known, in bytes: that of the operator's default.
const MEMORY: u64 = 256 * 1024 * 1024;

/// What does not change while a worker runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) concurrency: u16,
    /// The prefetch of the spec.
    pub(crate) ceiling: u16,
    pub(crate) grace: Duration,
    /// In bytes.
    pub(crate) memory: Option<u64>,
}

/// What was measured since the last look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// All credit was used.
    pub(crate) limiting: bool,
    /// Messages done per busy second, once it is known.
    pub(crate) rate: Option<f64>,
    /// Size of a body, in bytes.
    pub(crate) mean_bytes: u64,
}

impl Limits {
    /// Credit to begin with. A process cannot know whether one before it crashed: its first session begins with one message,
    /// so that a killer takes few along; two more steps of growth are hardly felt.
    pub(crate) fn start(&self, first: bool) -> u16 {
        if first { 1 } else { self.concurrency.max(START).min(self.ceiling) }
    }

    /// The credit to go on with, if another than `current`.
    pub(crate) fn next(&self, current: u16, facts: Facts) -> Option<u16> {
        let most = self.most(facts);
        if current > most.saturating_mul(2) {
            return Some(most);
        }
        (facts.limiting && current < most).then(|| current.saturating_mul(FACTOR).min(most))
    }

    fn most(&self, facts: Facts) -> u16 {
        let horizon = HORIZON.min(self.grace / 2).as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` ends at the type's limits")]
        let by_rate = facts.rate.map_or(u16::MAX, |rate| (rate * horizon) as u16);
        let by_memory = self.memory.unwrap_or(MEMORY) / MEMORY_PART / facts.mean_bytes.max(1);
        let by_memory = u16::try_from(by_memory).unwrap_or(u16::MAX);
        // Each slot keeps a message, whatever else says no.
        by_rate.min(by_memory).max(self.concurrency).min(self.ceiling)
    }
}

/// Messages per busy second, smoothed.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    messages: u64,
    busy: Duration,
    per_second: Option<f64>,
}

/// A shorter time says little.
const SAMPLE: Duration = Duration::from_millis(200);

impl Rate {
    /// Takes both counters as they stand now.
    pub(crate) fn sample(&mut self, messages: u64, busy: Duration) {
        let passed = busy.saturating_sub(self.busy);
        if passed < SAMPLE {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
        let rate = messages.saturating_sub(self.messages) as f64 / passed.as_secs_f64();
        self.per_second = Some(self.per_second.map_or(rate, |old| f64::midpoint(old, rate)));
        (self.messages, self.busy) = (messages, busy);
    }

    pub(crate) fn per_second(&self) -> Option<f64> {
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { concurrency: 4, ceiling: 200, grace: Duration::from_secs(30), memory: None };

    fn facts(limiting: bool, rate: f64) -> Facts {
        Facts { limiting, rate: Some(rate), mean_bytes: 200 }
    }

    #[test]
    fn credit_grows_fourfold_while_it_limits_and_never_above_the_ceiling() {
        assert_eq!((LIMITS.start(true), LIMITS.start(false)), (1, 16));
        assert_eq!(LIMITS.next(16, facts(false, 1e6)), None);
        assert_eq!(LIMITS.next(16, facts(true, 1e6)), Some(64));
        assert_eq!(LIMITS.next(64, facts(true, 1e6)), Some(200));
        assert_eq!(LIMITS.next(200, facts(true, 1e6)), None);
    }

    #[test]
    fn a_slow_sink_keeps_credit_small() {
        assert_eq!(LIMITS.next(16, facts(true, 1.0)), Some(4));
        assert_eq!(LIMITS.next(16, facts(true, 10.0)), Some(30));
        let hasty = Limits { grace: Duration::from_secs(2), ..LIMITS };
        assert_eq!(hasty.next(64, facts(true, 20.0)), Some(20));
    }

    #[test]
    fn large_bodies_take_no_more_than_their_share_of_memory() {
        let facts = Facts { limiting: true, rate: None, mean_bytes: 1024 * 1024 };
        assert_eq!(LIMITS.next(16, facts), Some(32));
        let small = Limits { memory: Some(64 * 1024 * 1024), ..LIMITS };
        assert_eq!(small.next(64, facts), Some(8));
    }

    #[test]
    fn a_rate_is_that_of_busy_time() {
        let mut rate = Rate::default();
        rate.sample(10, Duration::from_millis(100));
        assert_eq!(rate.per_second(), None);
        rate.sample(100, Duration::from_secs(1));
        assert_eq!(rate.per_second(), Some(100.0));
        rate.sample(400, Duration::from_secs(2));
        assert_eq!(rate.per_second(), Some(200.0));
    }

    proptest! {
        #[test]
        fn credit_is_at_least_one_and_at_most_the_ceiling(
            concurrency in 1..=64_u16, ceiling in 1..=u16::MAX, seconds in 0..600_u64, current in 1..=u16::MAX,
            limiting: bool, rate in proptest::option::of(0.0..1e9), mean_bytes in 0..u64::MAX,
        ) {
            let limits = Limits { concurrency, ceiling, grace: Duration::from_secs(seconds), memory: None };
            let start = limits.start(false);
            prop_assert!((1..=ceiling).contains(&start));
            if let Some(next) = limits.next(current.min(ceiling), Facts { limiting, rate, mean_bytes }) {
                prop_assert!((1..=ceiling).contains(&next));
                prop_assert!(next != current.min(ceiling));
            }
        }
    }
}
