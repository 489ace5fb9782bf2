//! How many unacknowledged messages to ask the hub for. Pure: it is told what was measured.

use std::time::Duration;

/// Credit to begin with where the rate is known, unless concurrency is larger.
const START: u16 = 16;
/// Growth where credit proves limiting.
const FACTOR: u16 = 4;
/// What a worker holds is at most its work of so long: longer helps no throughput and delays everybody else's messages.
const HORIZON: Duration = Duration::from_secs(3);
/// A batch is at most the work of so long.
const BATCH: Duration = Duration::from_secs(5);
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
    /// Credit to begin with. A process that does not know its rate begins with one message: the one before it may have crashed,
    /// and messages may be slow, which others could take. Two more steps of growth are hardly felt.
    pub(crate) fn start(&self, rate: Option<f64>) -> u16 {
        rate.map_or(1, |rate| self.by_rate(rate).min(START).max(self.concurrency).min(self.ceiling))
    }

    /// The credit to go on with, if another than `current`.
    pub(crate) fn next(&self, current: u16, facts: Facts) -> Option<u16> {
        let most = self.most(facts);
        if current > most.saturating_mul(2) {
            return Some(most);
        }
        (facts.limiting && facts.rate.is_some() && current < most).then(|| current.saturating_mul(FACTOR).min(most))
    }

    fn most(&self, facts: Facts) -> u16 {
        let by_rate = facts.rate.map_or(u16::MAX, |rate| self.by_rate(rate));
        let by_memory = self.memory.unwrap_or(MEMORY) / MEMORY_PART / facts.mean_bytes.max(1);
        let by_memory = u16::try_from(by_memory).unwrap_or(u16::MAX);
        // Each slot keeps a message, whatever else says no.
        by_rate.min(by_memory).max(self.concurrency).min(self.ceiling)
    }

    fn by_rate(&self, rate: f64) -> u16 {
        let horizon = HORIZON.min(self.grace / 2).as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` ends at the type's limits")]
        let messages = (rate * horizon) as u16;
        messages
    }
}

/// Most messages of a batch, where so many batches share this rate: so few that it ends well before its sink is taken for dead.
pub(crate) fn batch_of(rate: f64, batches: u16) -> usize {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` ends at the type's limits")]
    let messages = (rate * BATCH.as_secs_f64() / f64::from(batches.max(1))) as usize;
    messages.max(1)
}

/// Messages per busy second, smoothed.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    messages: u64,
    busy: Duration,
    per_second: Option<f64>,
}

/// A shorter time says little…
const SAMPLE: Duration = Duration::from_millis(200);
/// …but something where nothing is known.
const FIRST_SAMPLE: Duration = Duration::from_millis(20);

impl Rate {
    /// Takes both counters as they stand now.
    pub(crate) fn sample(&mut self, messages: u64, busy: Duration) {
        let passed = busy.saturating_sub(self.busy);
        let done = messages.saturating_sub(self.messages);
        if passed < if self.per_second.is_none() { FIRST_SAMPLE } else { SAMPLE } {
            return;
        }
        if done == 0 {
            // Less than one in all this time; when it ends, it counts with the time that it took.
            if passed >= SAMPLE {
                let most = passed.as_secs_f64().recip();
                self.per_second = Some(self.per_second.map_or(most, |old| old.min(most)));
            }
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
        let rate = done as f64 / passed.as_secs_f64();
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
        assert_eq!(LIMITS.next(1, Facts { limiting: true, rate: None, mean_bytes: 200 }), None);
        assert_eq!(LIMITS.next(16, facts(false, 1e6)), None);
        assert_eq!(LIMITS.next(16, facts(true, 1e6)), Some(64));
        assert_eq!(LIMITS.next(64, facts(true, 1e6)), Some(200));
        assert_eq!(LIMITS.next(200, facts(true, 1e6)), None);
    }

    #[test]
    fn credit_begins_with_one_and_after_that_with_what_the_rate_allows() {
        let of = |rate| LIMITS.start(rate);
        assert_eq!((of(None), of(Some(1e6)), of(Some(2.0)), of(Some(0.1))), (1, 16, 6, 4));
    }

    #[test]
    fn a_batch_is_work_of_seconds_and_at_least_a_message() {
        assert_eq!((batch_of(0.1, 1), batch_of(2.0, 1), batch_of(2.0, 4), batch_of(1e4, 2)), (1, 10, 2, 25_000));
        assert_eq!(batch_of(f64::MAX, 0), usize::MAX);
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
        let facts = Facts { limiting: true, rate: Some(1e6), mean_bytes: 1024 * 1024 };
        assert_eq!(LIMITS.next(16, facts), Some(32));
        let small = Limits { memory: Some(64 * 1024 * 1024), ..LIMITS };
        assert_eq!(small.next(64, facts), Some(8));
    }

    #[test]
    fn a_rate_is_that_of_busy_time() {
        let mut rate = Rate::default();
        rate.sample(1, Duration::from_millis(10));
        assert_eq!(rate.per_second(), None);
        rate.sample(5, Duration::from_millis(50));
        assert_eq!(rate.per_second(), Some(100.0));
        rate.sample(6, Duration::from_millis(100));
        assert_eq!(rate.per_second(), Some(100.0));
        rate.sample(5 + 300, Duration::from_millis(1_050));
        assert_eq!(rate.per_second(), Some(200.0));
    }

    #[test]
    fn a_message_that_lasts_lowers_the_rate_while_it_does() {
        let mut rate = Rate::default();
        rate.sample(0, Duration::from_millis(100));
        assert_eq!(rate.per_second(), None);
        for seconds in 1..=10 {
            rate.sample(0, Duration::from_secs(seconds));
        }
        assert_eq!(rate.per_second(), Some(0.1));
        rate.sample(1, Duration::from_secs(10));
        assert_eq!(rate.per_second(), Some(0.1));
    }

    proptest! {
        #[test]
        fn credit_is_at_least_one_and_at_most_the_ceiling(
            concurrency in 1..=64_u16, ceiling in 1..=u16::MAX, seconds in 0..600_u64, current in 1..=u16::MAX,
            limiting: bool, rate in proptest::option::of(0.0..1e9), mean_bytes in 0..u64::MAX,
        ) {
            let limits = Limits { concurrency, ceiling, grace: Duration::from_secs(seconds), memory: None };
            prop_assert!((1..=ceiling).contains(&limits.start(rate)));
            if let Some(next) = limits.next(current.min(ceiling), Facts { limiting, rate, mean_bytes }) {
                prop_assert!((1..=ceiling).contains(&next));
                prop_assert!(next != current.min(ceiling));
            }
        }
    }
}
