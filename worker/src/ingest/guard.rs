//! Tells a flood of dead letters from the usual few, and then lets only a trickle through. Pure.
//!
//! A broken producer or a wrong transform makes most messages unfit. To move them all to the dead letters would empty the
//! source and say nothing; so the source stops, with a reason, and one message now and then tells whether it is over.

use std::time::{Duration, Instant};

/// What is compared: messages that came to an end in this time.
const SPAN: Duration = Duration::from_mins(1);
/// So many dead letters in a span are nothing to stop for.
const LEAST: u64 = 100;
/// A flood is so many times the usual of a span.
const FACTOR: f64 = 10.0;
/// While it lasts one dead letter is let through in this time, so that the end of it is seen.
const TRICKLE: Duration = Duration::from_secs(10);
/// Weight of the last span in the usual.
const WEIGHT: f64 = 0.2;

/// What came to an end, and how.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    since: Option<Instant>,
    ended: u64,
    dead: u64,
    usual: f64,
    let_through: Option<Instant>,
}

impl Guard {
    /// Messages that came to a good end.
    pub(crate) fn good(&mut self, messages: u64, now: Instant) {
        self.turn(now);
        self.ended += messages;
    }

    /// How many of so many dead letters may go now.
    pub(crate) fn admit(&mut self, wanted: usize, now: Instant) -> usize {
        self.turn(now);
        let admitted = if self.is_flood() {
            let due = self.let_through.is_none_or(|last| now.saturating_duration_since(last) >= TRICKLE);
            usize::from(due && wanted > 0)
        } else {
            wanted.min(usize::try_from(self.limit().saturating_sub(self.dead)).unwrap_or(usize::MAX).max(1))
        };
        if admitted > 0 {
            self.let_through = Some(now);
        }
        self.dead += admitted as u64;
        self.ended += admitted as u64;
        admitted
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few times a count of messages")]
    fn limit(&self) -> u64 {
        LEAST.max((self.usual * FACTOR) as u64)
    }

    /// Far more than usual, and more than half of what ends.
    fn is_flood(&self) -> bool {
        self.dead >= self.limit() && self.dead * 2 > self.ended
    }

    /// A flood is never the usual: its span lasts until it is over.
    fn turn(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed < SPAN || self.is_flood() {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
        let rate = self.dead as f64 * SPAN.as_secs_f64() / passed.as_secs_f64();
        self.usual += (rate - self.usual) * WEIGHT;
        (self.since, self.ended, self.dead) = (Some(now), 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn few_dead_letters_or_few_among_many_messages_stop_nothing() {
        let (mut guard, start) = (Guard::default(), super::super::clock::now());
        assert_eq!(guard.admit(100, start), 100);
        guard.good(10_000, start);
        for _ in 0..500 {
            assert_eq!(guard.admit(1, start), 1);
        }
    }

    #[test]
    fn a_flood_becomes_a_trickle_until_messages_are_good_again() {
        let (mut guard, start) = (Guard::default(), super::super::clock::now());
        assert_eq!(guard.admit(500, start), 100);
        assert_eq!(guard.admit(400, at(start, 1)), 0);
        assert_eq!(guard.admit(400, at(start, 10)), 1);
        assert_eq!(guard.admit(400, at(start, 15)), 0);
        assert_eq!(guard.admit(400, at(start, 90)), 1, "it lasts as long as it does");
        guard.good(200, at(start, 91));
        assert_eq!(guard.admit(5, at(start, 92)), 5);
    }

    #[test]
    fn what_is_usual_is_learnt() {
        let (mut guard, start) = (Guard::default(), super::super::clock::now());
        for minute in 0..20 {
            let now = at(start, minute * 60);
            assert_eq!(guard.admit(90, now), 90);
        }
        assert_eq!(guard.admit(700, at(start, 1200)), 700, "ten times the usual is still let through");
    }
}
