//! The time of one partition: which time an event counts at, and the watermark after it. Pure.
//!
//! With `TIMESTAMP BY … OVER k` each key has a watermark of its own above the partition's, which then moves by arrivals and ticks
//! alone: another key may still be that far behind.

use std::collections::{HashMap, HashSet};

use crate::query::{Counters, Ordering, Reason, Tolerance, Verdict, ordering::EARLY};

/// Watermarks by key of OVER.
type Keys = HashMap<Vec<u8>, i64>;

/// Where a partition's time is.
#[derive(Debug)]
pub(crate) struct Time {
    tolerance: Tolerance,
    watermark: i64,
    over: Option<Keys>,
    touched: HashSet<Vec<u8>>,
    counters: Counters,
}

impl Time {
    pub(crate) fn new(tolerance: Tolerance, watermark: i64, over: Option<Keys>) -> Self {
        Self { tolerance, watermark, over, touched: HashSet::new(), counters: Counters::default() }
    }

    /// No event of the partition counts at an earlier time than this from now on.
    pub(crate) fn watermark(&self) -> i64 {
        self.watermark
    }

    fn ordering(&self, key: &[u8]) -> Ordering {
        let own = self.over.as_ref().and_then(|keys| keys.get(key)).copied();
        Ordering::new(self.tolerance, own.unwrap_or(i64::MIN).max(self.watermark))
    }

    /// Something arrived.
    pub(crate) fn arrived(&mut self, arrival: i64) {
        if self.over.is_some() {
            self.tick(arrival);
        }
    }

    /// Judges an event. One that says nothing of its arrival has arrived by now, whenever that was.
    pub(crate) fn judge(&self, key: &[u8], time: i64, arrival: Option<i64>, now: i64) -> Verdict {
        if arrival.is_none() && time > now.saturating_add(EARLY) {
            return Verdict::Dropped(Reason::Early);
        }
        self.ordering(key).judge(time, arrival)
    }

    /// Takes an event as it was judged.
    pub(crate) fn take(&mut self, key: Vec<u8>, verdict: Verdict) {
        let mut ordering = self.ordering(&key);
        ordering.take(verdict);
        let c = ordering.counters();
        self.counters.on_time += c.on_time;
        self.counters.adjusted += c.adjusted;
        self.counters.dropped += c.dropped;
        self.counters.dead_lettered += c.dead_lettered;
        match &mut self.over {
            None => self.watermark = ordering.watermark(),
            Some(keys) => {
                keys.insert(key.clone(), ordering.watermark());
                self.touched.insert(key);
            }
        }
    }

    /// An event in error: it moves no time.
    pub(crate) fn reject(&mut self) {
        self.counters.dead_lettered += 1;
    }

    /// A tick was read: silence up to then is known.
    pub(crate) fn tick(&mut self, time: i64) {
        self.watermark = self.watermark.max(time.saturating_sub(self.tolerance.late));
    }

    /// What was counted, and the keys of OVER whose time moved, since this was asked last.
    pub(crate) fn settle(&mut self) -> (Counters, Vec<(Vec<u8>, i64)>) {
        let watermark = self.watermark;
        let mut moved = Vec::new();
        if let Some(keys) = &mut self.over {
            keys.retain(|_, own| *own > watermark);
            moved.extend(self.touched.drain().filter_map(|key| keys.get(&key).map(|own| (key.clone(), *own))));
            moved.sort_unstable();
        }
        self.touched.clear();
        (std::mem::take(&mut self.counters), moved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Policy;

    const TOLERANCE: Tolerance = Tolerance { policy: Policy::Adjust, late: 5, out_of_order: 0 };

    fn push(time: &mut Time, key: &[u8], at: i64, arrival: i64) -> Verdict {
        time.arrived(arrival);
        let verdict = time.judge(key, at, Some(arrival), arrival);
        time.take(key.to_vec(), verdict);
        verdict
    }

    #[test]
    fn a_tick_moves_the_watermark_and_never_back() {
        let mut time = Time::new(TOLERANCE, 10, None);
        time.tick(20);
        assert_eq!(time.watermark(), 15);
        time.tick(3);
        assert_eq!(time.watermark(), 15);
    }

    #[test]
    fn a_key_of_over_is_not_late_by_what_another_key_sent() {
        let mut time = Time::new(TOLERANCE, i64::MIN, Some(Keys::new()));
        assert_eq!(push(&mut time, b"a", 20, 20), Verdict::OnTime(20));
        assert_eq!(push(&mut time, b"b", 16, 20), Verdict::OnTime(16));
        assert_eq!(push(&mut time, b"a", 18, 20), Verdict::Adjusted(20));
        assert_eq!(time.watermark(), 15);
        assert_eq!(push(&mut time, b"c", 12, 16), Verdict::Adjusted(15));
    }

    #[test]
    fn keys_of_over_are_kept_while_they_are_ahead_of_the_partition() {
        let mut time = Time::new(TOLERANCE, i64::MIN, Some(Keys::new()));
        push(&mut time, b"a", 20, 20);
        assert_eq!(time.settle().1, [(b"a".to_vec(), 20)]);
        push(&mut time, b"b", 30, 30);
        assert_eq!(time.settle().1, [(b"b".to_vec(), 30)]);
        assert!(!time.over.as_ref().unwrap().contains_key(&b"a"[..]));
    }

    #[test]
    fn without_an_arrival_only_the_readers_clock_tells_early() {
        let time = Time::new(TOLERANCE, i64::MIN, None);
        assert_eq!(time.judge(b"", 101 + EARLY, None, 100), Verdict::Dropped(Reason::Early));
        assert_eq!(time.judge(b"", 100 + EARLY, None, 100), Verdict::OnTime(100 + EARLY));
        assert_eq!(time.judge(b"", 1, None, 100), Verdict::OnTime(1));
    }
}
