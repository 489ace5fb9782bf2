//! How many workers a query is to have: from what they say of its partitions to a number and its reason. Pure; time is in the sample.
//!
//! What arrives in a stream cannot be seen from outside, but the age of what is read can. While a query is behind, its workers do what
//! they can, so `μ = events per second / workers`, and the time of what is read moves `v` times as fast as the clock: of what arrives,
//! `λ = rate / v`. It takes `n = (λ / targetUtilization + λ · lag / catchUpSeconds) / μ` workers, as it does for a pipeline. While it is
//! not behind, λ is what is read.

use std::collections::VecDeque;

use crate::scaling::{Numbers, Policy, real, whole};

/// What was read is older than this, in seconds: the query is behind. Ticks come every second, and a batch takes some time.
pub(super) const BEHIND: f64 = 5.0;
/// Rates are measured over at least so long, in seconds.
const MEASURE: f64 = 2.0;
/// More workers only where that much more is needed.
const TOLERANCE: f64 = 0.1;
/// The time of what is read moves at least so fast, for a quotient that says something.
const SLOWEST: f64 = 0.01;
/// The effect of more workers is waited for so long, in seconds: partitions change hands when a lease is given back.
const OBSERVE: f64 = 10.0;
/// What is left from one second to the next of what a worker was seen to do, while it does less.
const FORGETTING: f64 = 0.95;
/// What is not heard for so long is not known, in seconds.
const STALE: f64 = 10.0;

/// What was seen at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// In seconds since whenever.
    pub at: f64,
    /// Workers that are asked for.
    pub replicas: u32,
    /// What is known.
    pub seen: Seen,
}

/// What is known of a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seen {
    /// Nothing, or not enough: it is not known how things are.
    Blind,
    /// No workers are there, and the streams are listened to: nothing has come.
    Quiet,
    /// No workers are there, and there is something to do.
    Work,
    /// Workers are there and say how far they are.
    Working {
        /// Age of what was read last in the partition that is furthest behind, in seconds.
        lag: f64,
        /// Events that were read since the query began.
        events: u64,
        /// Windows are open, or rows or dead letters wait.
        open: bool,
    },
}

/// How many workers there are to be, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// Workers.
    pub desired: u32,
    /// Why.
    pub reason: Reason,
    /// What it was decided from.
    pub numbers: Numbers,
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Sized by what arrives and how far behind the query is.
    Load,
    /// Fewer would do; a larger number of the cooldown still counts.
    Cooldown,
    /// More would be needed than there are partitions, or than is allowed.
    MaxReplicas,
    /// Fewer would do than is allowed.
    MinReplicas,
    /// Nothing arrives, everything is read and no window is open.
    Idle,
    /// A message has come.
    Woken,
    /// The effect of more workers is awaited.
    Observing,
    /// Workers do not say how far they are: as many as there are.
    FactsMissing,
    /// Workers do not say how far they are, and none ran.
    Fallback,
}

impl Reason {
    /// In `CamelCase`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "Load",
            Self::Cooldown => "Cooldown",
            Self::MaxReplicas => "MaxReplicas",
            Self::MinReplicas => "MinReplicas",
            Self::Idle => "Idle",
            Self::Woken => "Woken",
            Self::Observing => "Observing",
            Self::FactsMissing => "FactsMissing",
            Self::Fallback => "Fallback",
        }
    }
}

/// What is remembered from one sample to the next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    /// Where the measurement under way began: time, lag and events.
    from: Option<(f64, f64, u64)>,
    /// Events per second, and how fast the time of what is read moves.
    measured: Option<(f64, f64)>,
    /// Events per second of one worker that does what it can.
    per_worker: Option<f64>,
    /// Nothing has arrived since then.
    idle_since: Option<f64>,
    /// Nothing was known since then.
    blind_since: Option<f64>,
    /// Workers, and since when there are so many.
    since: Option<(u32, f64)>,
    /// Largest recommendations, each larger than all after it.
    recommended: VecDeque<(f64, u32)>,
}

/// Decides.
#[must_use]
pub fn decide(policy: &Policy, mut state: State, sample: &Sample) -> (State, Decision) {
    if state.since.is_none_or(|(replicas, _)| replicas != sample.replicas) {
        // What a measurement began with were others.
        (state.from, state.measured) = (None, None);
        state.since = Some((sample.replicas, sample.at));
    }
    if sample.seen != Seen::Blind {
        state.blind_since = None;
    }
    let (wanted, reason) = match sample.seen {
        Seen::Blind => state.blind(policy, sample),
        Seen::Quiet => state.quiet(sample),
        Seen::Work => state.keep(policy, sample, 1, Reason::Woken),
        Seen::Working { lag, events, open } => state.working(policy, sample, lag, events, open),
    };
    let desired = policy.clamp(wanted);
    let reason = match () {
        // Blindness is the reason of whatever there is.
        () if matches!(reason, Reason::FactsMissing) => reason,
        () if desired < wanted => Reason::MaxReplicas,
        () if desired > wanted => Reason::MinReplicas,
        () => reason,
    };
    let numbers = state.numbers(sample);
    (state, Decision { desired, reason, numbers })
}

impl State {
    /// What runs stays, and something runs in the end.
    fn blind(&mut self, policy: &Policy, sample: &Sample) -> (u32, Reason) {
        (self.from, self.idle_since) = (None, None);
        let since = *self.blind_since.get_or_insert(sample.at);
        if sample.replicas == 0 && sample.at - since > STALE && policy.fallback > 0 {
            return (policy.fallback, Reason::Fallback);
        }
        self.recommend(policy, sample, sample.replicas);
        (sample.replicas, Reason::FactsMissing)
    }

    /// Workers that are about to start are waited for; they will find out.
    fn quiet(&mut self, sample: &Sample) -> (u32, Reason) {
        *self = Self { since: self.since, per_worker: self.per_worker, ..Self::default() };
        if sample.replicas == 0 { (0, Reason::Idle) } else { (sample.replicas, Reason::FactsMissing) }
    }

    fn keep(&mut self, policy: &Policy, sample: &Sample, least: u32, reason: Reason) -> (u32, Reason) {
        let replicas = sample.replicas.max(least);
        self.recommend(policy, sample, replicas);
        (replicas, reason)
    }

    fn working(&mut self, policy: &Policy, sample: &Sample, lag: f64, events: u64, open: bool) -> (u32, Reason) {
        let arrived = self.measure(sample, lag, events);
        let behind = lag > BEHIND;
        if arrived || behind || open {
            self.idle_since = None;
        } else if sample.at - *self.idle_since.get_or_insert(sample.at) >= policy.cooldown {
            self.recommended.clear();
            return (0, Reason::Idle);
        }
        let Some((rate, speed)) = self.measured else { return self.keep(policy, sample, 1, Reason::Observing) };
        let replicas = f64::from(sample.replicas.max(1));
        self.learn(behind, rate / replicas);
        let need = match self.per_worker {
            // It has never been behind: the first worker was enough.
            None => 1.0,
            Some(_) if behind && rate <= 0.0 => replicas,
            Some(each) => {
                let (arrival, waiting) = if behind { (rate / speed.max(SLOWEST), lag) } else { (rate, 0.0) };
                arrival * (1.0 / policy.target_utilization + waiting / policy.catch_up) / each
            }
        };
        if need > replicas * (1.0 + TOLERANCE) {
            let fresh = self.since.is_some_and(|(_, since)| sample.at - since < OBSERVE);
            if fresh && sample.replicas > 0 {
                return self.keep(policy, sample, 1, Reason::Observing);
            }
            let wanted = whole(need).max(1);
            self.recommend(policy, sample, policy.clamp(wanted));
            return (wanted, Reason::Load);
        }
        let enough = whole(need).clamp(1, sample.replicas.max(1));
        let most = self.recommend(policy, sample, enough).min(sample.replicas.max(1));
        (most, if most > enough { Reason::Cooldown } else { Reason::Load })
    }

    /// A worker does what it was seen to do. Less is believed step by step: one partition may be waiting for the lease of a worker that
    /// was killed, while the others have nothing to do.
    fn learn(&mut self, behind: bool, rate: f64) {
        self.per_worker = match self.per_worker {
            None => (behind && rate > 0.0).then_some(rate),
            Some(known) if behind && rate > 0.0 => Some(rate.max(known * FORGETTING)),
            Some(known) => Some(known.max(rate)),
        };
    }

    /// True if events have arrived since the last sample.
    fn measure(&mut self, sample: &Sample, lag: f64, events: u64) -> bool {
        let Some((at, before, counted)) = self.from else {
            self.from = Some((sample.at, lag, events));
            return false;
        };
        let seconds = sample.at - at;
        // Counters go back where a version of the query begins anew.
        let arrived = events != counted;
        if events < counted || seconds >= MEASURE {
            if events >= counted {
                self.measured = Some((real(events - counted) / seconds, 1.0 + (before - lag) / seconds));
            }
            self.from = Some((sample.at, lag, events));
        }
        arrived
    }

    /// Remembers a recommendation; gives the largest of the cooldown.
    fn recommend(&mut self, policy: &Policy, sample: &Sample, replicas: u32) -> u32 {
        while self.recommended.back().is_some_and(|(_, r)| *r <= replicas) {
            self.recommended.pop_back();
        }
        self.recommended.push_back((sample.at, replicas));
        while self.recommended.len() > 1
            && self.recommended.front().is_some_and(|(at, _)| sample.at - at >= policy.cooldown)
        {
            self.recommended.pop_front();
        }
        self.recommended.front().map_or(replicas, |(_, r)| *r)
    }

    fn numbers(&self, sample: &Sample) -> Numbers {
        let lag = match sample.seen {
            Seen::Working { lag, .. } => Some(lag),
            Seen::Quiet => Some(0.0),
            Seen::Blind | Seen::Work => None,
        };
        let rate = self.measured.map(|(rate, _)| rate).filter(|_| matches!(sample.seen, Seen::Working { .. }));
        Numbers { lag, arrival_rate: rate, rate_per_replica: self.per_worker, ..Numbers::default() }
    }
}
