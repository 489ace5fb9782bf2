//! How many messages arrive per second: from everything that was finished, plus what has grown.

use std::collections::VecDeque;

/// Seconds that are averaged over while the rate is steady.
const WINDOW: f64 = 30.0;
/// Seconds that tell a new rate.
const GLANCE: f64 = 1.0;
/// A rate has changed when a glance at it is off by this share of it…
const SHARE: f64 = 0.25;
/// …and by so many standard deviations of a count of messages that come independently.
const DEVIATIONS: f64 = 4.0;
/// A gap in the samples longer than this begins anew.
const GAP: f64 = 10.0;

/// Arrivals, summed, at each look.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Arrivals {
    points: VecDeque<(f64, f64)>,
}

impl Arrivals {
    /// So many have arrived in all, since some beginning.
    pub(super) fn note(&mut self, at: f64, total: f64) {
        match self.points.back() {
            Some((last, _)) if at <= *last => return,
            Some((last, _)) if at - last > GAP => self.points.clear(),
            _ => {}
        }
        self.points.push_back((at, total));
        while self.points.get(1).is_some_and(|(t, _)| at - t >= WINDOW) {
            self.points.pop_front();
        }
        if let (Some(steady), Some((from, glance))) = (self.rate(), self.glance(at)) {
            let noise = SHARE * steady + DEVIATIONS * (steady.max(1.0) / GLANCE).sqrt();
            // A burst is a backlog; a higher rate is one that lasts.
            let lasts = || self.glance(from).is_some_and(|(_, before)| before > steady + noise);
            if glance < steady - noise || glance > steady + noise && lasts() {
                self.points.retain(|(t, _)| *t >= from);
            }
        }
    }

    /// The sum cannot be continued.
    pub(super) fn restart(&mut self) {
        self.points.clear();
    }

    /// Messages per second; `None` before there are two looks, a second apart.
    pub(super) fn rate(&self) -> Option<f64> {
        let ((t0, a0), (t1, a1)) = (self.points.front()?, self.points.back()?);
        (t1 - t0 >= GLANCE - 1e-9).then(|| ((a1 - a0) / (t1 - t0)).max(0.0))
    }

    /// The rate of the moment before `end`, and when that moment began.
    fn glance(&self, end: f64) -> Option<(f64, f64)> {
        let mut before = self.points.iter().rev().skip_while(|(t, _)| *t > end);
        let (t1, a1) = before.next()?;
        let (t0, a0) = before.find(|(t, _)| t1 - t >= GLANCE - 1e-9)?;
        Some((*t0, ((a1 - a0) / (t1 - t0)).max(0.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(rates: &[(f64, u32)]) -> Arrivals {
        let (mut arrivals, mut at, mut total) = (Arrivals::default(), 0.0, 0.0);
        arrivals.note(at, total);
        for (rate, seconds) in rates {
            for _ in 0..*seconds {
                at += 1.0;
                total += rate;
                arrivals.note(at, total);
            }
        }
        arrivals
    }

    #[test]
    fn a_higher_rate_is_seen_in_two_seconds_a_lower_one_in_one_and_a_steady_one_is_averaged() {
        assert_eq!(fed(&[(500.0, 60), (2000.0, 2)]).rate(), Some(2000.0));
        assert_eq!(fed(&[(2000.0, 60), (500.0, 1)]).rate(), Some(500.0));
        let steady = fed(&[(480.0, 29), (530.0, 1)]).rate().unwrap();
        assert!((steady - 481.7).abs() < 1.0, "{steady}");
    }

    #[test]
    fn a_burst_is_no_rate() {
        assert!(fed(&[(10.0, 60), (9_000.0, 1)]).rate().unwrap() < 320.0);
        assert_eq!(fed(&[(10.0, 60), (9_000.0, 1), (10.0, 1)]).rate(), Some(10.0));
    }

    #[test]
    fn one_look_is_no_rate_and_a_gap_begins_anew() {
        assert_eq!(fed(&[]).rate(), None);
        let mut arrivals = fed(&[(100.0, 5)]);
        arrivals.note(60.0, 9_000.0);
        assert_eq!(arrivals.rate(), None);
        arrivals.note(61.0, 9_010.0);
        assert_eq!(arrivals.rate(), Some(10.0));
    }
}
