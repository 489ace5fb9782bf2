//! The rules of others: KEDA's with the HPA behind it, and that of Numaflow's `MonoVertex`.
//!
//! They get their metrics at once and exactly, which they do not in life.

use std::collections::VecDeque;

use super::simulation::{MOST, Rule, Seen};

/// KEDA's RabbitMQ scaler with the `HorizontalPodAutoscaler` that it drives; no metric set means that trigger is not used.
#[derive(Debug, Default)]
pub(crate) struct Keda {
    /// Messages in the queue for each replica.
    length: Option<f64>,
    /// Messages published per second for each replica.
    rate: Option<f64>,
    /// Seconds over which the HPA takes the largest recommendation before it removes replicas.
    down_window: f64,
    replicas: u32,
    polled: f64,
    synced: f64,
    active: f64,
    recommended: VecDeque<(f64, u32)>,
    published: VecDeque<(f64, f64)>,
}

/// `pollingInterval`: KEDA's own look, which decides on zero, in seconds.
const POLL: f64 = 30.0;
/// The HPA looks this often, in seconds.
const SYNC: f64 = 15.0;
/// `cooldownPeriod`: KEDA goes to zero this long after it was last active, in seconds.
const COOLDOWN: f64 = 300.0;
/// The HPA's tolerance.
const TOLERANCE: f64 = 0.1;
/// The hub's management statistics are an average over this, in seconds.
const STATISTICS: f64 = 5.0;

impl Keda {
    pub(crate) fn new(length: Option<f64>, rate: Option<f64>, down_window: f64) -> Self {
        Self { length, rate, down_window, ..Self::default() }
    }

    fn publish_rate(&mut self, seen: &Seen<'_>) -> f64 {
        self.published.push_back((seen.at, seen.arrived));
        while self.published.front().is_some_and(|(at, _)| seen.at - at > STATISTICS) {
            self.published.pop_front();
        }
        let Some((at, before)) = self.published.front() else { return 0.0 };
        if seen.at > *at { (seen.arrived - before) / (seen.at - at) } else { 0.0 }
    }

    /// The largest of the metrics' recommendations, each within its tolerance of what there is.
    fn recommendation(&self, ready: f64, rate: f64) -> u32 {
        let now = f64::from(self.replicas);
        let of = |metric: f64, value: f64| {
            let share = metric / value / now;
            if (share - 1.0).abs() <= TOLERANCE { self.replicas } else { count((metric / value).ceil()) }
        };
        let length = self.length.map_or(0, |value| of(ready, value));
        length.max(self.rate.map_or(0, |value| of(rate, value))).clamp(1, MOST)
    }

    fn sync(&mut self, at: f64, ready: f64, rate: f64) {
        let recommended = self.recommendation(ready, rate);
        self.recommended.push_back((at, recommended));
        while self.recommended.front().is_some_and(|(t, _)| at - t > self.down_window) {
            self.recommended.pop_front();
        }
        let largest = self.recommended.iter().map(|(_, n)| *n).max().unwrap_or(1);
        // Up by four or to twice as many in a period, whichever is more.
        let reach = (self.replicas + 4).max(2 * self.replicas);
        self.replicas = if recommended > self.replicas { recommended.min(reach) } else { self.replicas.min(largest) };
    }
}

impl Rule for Keda {
    fn replicas(&mut self, seen: &Seen<'_>) -> u32 {
        let rate = self.publish_rate(seen);
        if seen.at - self.polled >= POLL {
            self.polled = seen.at;
            let active = seen.ready > 0.0 || self.rate.is_some() && rate > 0.0;
            if active {
                self.active = seen.at;
                self.replicas = self.replicas.max(1);
            } else if seen.at - self.active >= COOLDOWN {
                self.replicas = 0;
                self.recommended.clear();
            }
        }
        if self.replicas > 0 && seen.at - self.synced >= SYNC {
            self.synced = seen.at;
            self.sync(seen.at, seen.ready, rate);
        }
        self.replicas
    }
}

/// Numaflow's `MonoVertex`: replicas in proportion to how long the pending messages would take at the present rate, over the target.
#[derive(Debug, Default)]
pub(crate) struct Numaflow {
    replicas: u32,
    looked: f64,
    changed: f64,
    history: VecDeque<(f64, f64, f64)>,
}

/// Numaflow's defaults, in seconds.
const LOOKBACK: f64 = 120.0;
const TARGET: f64 = 20.0;
const PAUSE: f64 = 90.0;
const ZERO_SLEEP: f64 = 120.0;
/// Most replicas added or removed at a time.
const STRIDE: u32 = 2;
/// It looks at a vertex this often, in seconds.
const LOOK: f64 = 5.0;

impl Numaflow {
    fn wanted(&self, ready_pods: f64) -> u32 {
        let (Some(first), Some(last)) = (self.history.front(), self.history.back()) else { return self.replicas };
        let seconds = last.0 - first.0;
        let looks = self.history.iter().map(|_| 1.0).sum::<f64>();
        let pending = self.history.iter().map(|(_, pending, _)| pending).sum::<f64>() / looks;
        let rate = if seconds > 0.0 { (last.2 - first.2) / seconds } else { 0.0 };
        if pending < 0.5 && rate < 0.5 {
            return 0;
        }
        if pending < 0.5 || rate < 0.5 {
            return self.replicas;
        }
        count((pending / rate / TARGET * ready_pods).round()).clamp(1, MOST)
    }
}

impl Rule for Numaflow {
    fn replicas(&mut self, seen: &Seen<'_>) -> u32 {
        if seen.at - self.looked < LOOK {
            return self.replicas;
        }
        self.looked = seen.at;
        self.history.push_back((seen.at, seen.ready, seen.finished));
        while self.history.front().is_some_and(|(at, ..)| seen.at - at > LOOKBACK) {
            self.history.pop_front();
        }
        let before = self.replicas;
        let since = seen.at - self.changed;
        if before == 0 {
            // It looks at nothing: after a while it starts one to see.
            self.replicas = u32::from(since >= ZERO_SLEEP);
        } else if since >= PAUSE {
            let wanted = self.wanted(seen.pods.iter().map(|_| 1.0).sum());
            self.replicas = wanted.clamp(before.saturating_sub(STRIDE), before + STRIDE);
        }
        if self.replicas != before {
            self.changed = seen.at;
        }
        self.replicas
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
fn count(number: f64) -> u32 {
    number as u32
}
