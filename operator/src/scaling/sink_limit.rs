//! Whether more replicas help: where the sink, not their number, is the limit, more of them make it worse.
//!
//! Judged only over replicas that are all busy with messages left waiting, and only by what all of them do together.

/// Seconds at full load over which what is done is measured.
const MEASURE: f64 = 8.0;
/// And messages of each replica: what takes long is measured for longer.
const MESSAGES: f64 = 2.0;
/// Of what more replicas should add, they must add this share.
const HELPS: f64 = 0.25;
/// So many scale-ups without help are the limit.
const FAILURES: u32 = 2;
/// A limit that does this much more than it did is none.
const FASTER: f64 = 1.25;
/// Times the cooldown that a probe waits at most, when probes go on failing.
const LONGEST_PAUSE: f64 = 32.0;

/// What was learned of the sink.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SinkLimit {
    /// Since when so many replicas have been at full load, and what had been finished by then.
    window: Option<(f64, f64, u32)>,
    /// The last measurement: replicas, and messages per second of all of them.
    measured: Option<(u32, f64)>,
    /// It is of the replicas that there are now.
    current: bool,
    /// Scale-ups in a row that did not help, and the replicas before the first of them.
    failed: Option<(u32, u32)>,
    cap: Option<Cap>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Cap {
    replicas: u32,
    rate: f64,
    probe_at: f64,
    pause: f64,
}

impl SinkLimit {
    /// Takes in that by now so many messages are finished, and how many replicas are at full load: `None` if not all of them.
    pub(super) fn note(&mut self, at: f64, finished: f64, full: Option<u32>, cooldown: f64) {
        let Some(replicas) = full.filter(|r| *r > 0) else {
            self.window = None;
            return;
        };
        match self.window {
            Some((since, before, n)) if n == replicas => {
                if at - since >= MEASURE && finished - before >= MESSAGES * f64::from(n) {
                    self.judge(at, replicas, (finished - before) / (at - since), cooldown);
                    self.window = Some((at, finished, n));
                }
            }
            _ => self.window = Some((at, finished, replicas)),
        }
    }

    fn judge(&mut self, at: f64, replicas: u32, rate: f64, cooldown: f64) {
        if let Some(cap) = self.cap
            && replicas <= cap.replicas
            && rate >= FASTER * cap.rate
        {
            (self.cap, self.failed) = (None, None);
        }
        if let Some((fewer, before)) = self.measured
            && replicas > fewer
        {
            let more = f64::from(replicas) / f64::from(fewer) - 1.0;
            if rate >= before * (1.0 + HELPS * more) {
                (self.cap, self.failed) = (None, None);
            } else {
                self.fail(at, fewer, before, cooldown);
            }
        }
        self.measured = Some((replicas, rate));
        self.current = true;
    }

    fn fail(&mut self, at: f64, fewer: u32, rate: f64, cooldown: f64) {
        let (times, first) = self.failed.unwrap_or((0, fewer));
        let times = times + 1;
        self.failed = Some((times, first));
        if times >= FAILURES {
            let pause = self.cap.map_or(cooldown, |c| (2.0 * c.pause).min(LONGEST_PAUSE * cooldown));
            self.cap = Some(Cap { replicas: first.max(1), rate, probe_at: at + pause, pause });
        }
    }

    /// The number of replicas was changed.
    pub(super) fn changed(&mut self) {
        self.window = None;
        self.current = false;
    }

    /// Nothing waits any more: whatever the limit was, it is none now.
    pub(super) fn relieved(&mut self) {
        *self = Self::default();
    }

    /// The effect of the last scale-up is not known yet.
    pub(super) fn undecided(&self) -> bool {
        !self.current
    }

    /// No more than these, if the sink is the limit and no probe is due.
    pub(super) fn cap(&self, at: f64) -> Option<u32> {
        self.cap.filter(|c| at < c.probe_at).map(|c| c.replicas)
    }

    /// The sink is the limit, also while that is probed.
    pub(super) fn limited(&self) -> bool {
        self.cap.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replicas of 100/s each at a sink that takes `most`, for some seconds.
    fn run(limit: &mut SinkLimit, clock: &mut (f64, f64), replicas: u32, most: f64, seconds: u32) {
        for _ in 0..seconds {
            clock.0 += 1.0;
            clock.1 += (100.0 * f64::from(replicas)).min(most);
            limit.note(clock.0, clock.1, Some(replicas), 60.0);
        }
    }

    #[test]
    fn two_scale_ups_without_help_are_the_limit_and_one_that_helps_is_not() {
        let (mut limit, mut clock) = (SinkLimit::default(), (0.0, 0.0));
        run(&mut limit, &mut clock, 2, 500.0, 12);
        run(&mut limit, &mut clock, 5, 500.0, 12);
        assert!(!limit.limited());
        run(&mut limit, &mut clock, 8, 500.0, 12);
        assert!(!limit.limited(), "only one has not helped");
        run(&mut limit, &mut clock, 12, 500.0, 12);
        assert_eq!(limit.cap(clock.0), Some(5), "as many as last helped");
    }

    #[test]
    fn a_sink_that_gets_faster_is_seen_without_a_probe_and_probes_wait_longer_each_time() {
        let (mut limit, mut clock) = (SinkLimit::default(), (0.0, 0.0));
        for replicas in [5, 8, 12] {
            run(&mut limit, &mut clock, replicas, 500.0, 12);
        }
        assert!(limit.cap(clock.0).is_some());
        assert_eq!(limit.cap(clock.0 + 60.0), None, "a probe is due");
        run(&mut limit, &mut clock, 5, 500.0, 12);
        run(&mut limit, &mut clock, 8, 500.0, 12);
        assert!(limit.cap(clock.0 + 60.0).is_some(), "the next waits twice as long");
        run(&mut limit, &mut clock, 5, 500.0, 12);
        clock.1 += 10_000.0;
        run(&mut limit, &mut clock, 5, 500.0, 12);
        assert!(!limit.limited());
    }

    #[test]
    fn replicas_that_are_not_all_busy_prove_nothing() {
        let mut limit = SinkLimit::default();
        for second in 0..100 {
            limit.note(f64::from(second), f64::from(second), None, 60.0);
        }
        assert!(!limit.limited() && limit.undecided());
    }
}
