//! From a sample to a number of replicas, with its reason.

use std::collections::VecDeque;

use super::{
    arrivals::Arrivals,
    flow::{Flow, Step},
    policy::Policy,
    rate::Rate,
    real,
    sample::{Depth, Sample, Worker},
    sink_limit::SinkLimit,
    whole,
};

/// Facts older than this are none, in seconds.
const STALE: f64 = 10.0;
/// More replicas only when what is needed exceeds what there is by this share: what is between is noise, and is neither followed up nor
/// down.
const TOLERANCE: f64 = 0.1;
/// Fewer already when what is needed exceeds them by no more than this share, for the whole cooldown: a worker more for the last
/// hundredth of the target would be busy with little else than waiting.
const SLACK: f64 = 0.05;
/// Messages that wait no longer than this are no backlog, in seconds.
const NORMAL_WAIT: f64 = 1.0;
/// A worker whose messages need longer than this is not taken away while it has them, in seconds: well within what a pod gets to end.
const LONG: f64 = 10.0;
/// The effect of a rise is waited for no longer than this, in seconds.
const OBSERVE: f64 = 30.0;

/// Why there are to be as many replicas as there are to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reason {
    /// Sized by what arrives and what waits.
    Load,
    /// Fewer would do; a larger number of the cooldown still counts.
    Cooldown,
    /// More would be needed than is allowed.
    MaxReplicas,
    /// Fewer would do than is allowed.
    MinReplicas,
    /// Nothing is ready, unacknowledged or arriving.
    Idle,
    /// There is work, and it is not known yet what a replica does.
    RateUnknown,
    /// Replicas are busy with long messages.
    LongMessages,
    /// The sink takes nothing; more replicas would only wait as well.
    SinkHolds,
    /// More replicas have not helped.
    SinkLimited,
    /// The effect of the last scale-up is awaited.
    Observing,
    /// What is known is not enough to remove replicas.
    FactsMissing,
    /// The hub cannot be read: as many as there are.
    #[default]
    HubUnreadable,
    /// The hub cannot be read and nothing ran.
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
            Self::RateUnknown => "RateUnknown",
            Self::LongMessages => "LongMessages",
            Self::SinkHolds => "SinkHolds",
            Self::SinkLimited => "SinkLimited",
            Self::Observing => "Observing",
            Self::FactsMissing => "FactsMissing",
            Self::HubUnreadable => "HubUnreadable",
            Self::Fallback => "Fallback",
        }
    }
}

/// How many replicas there are to be, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Decision {
    /// Replicas.
    pub desired: u32,
    /// Why.
    pub reason: Reason,
    /// More replicas have not helped.
    pub sink_limited: bool,
    /// What it was decided from.
    pub numbers: Numbers,
}

/// What a decision was made from; what is not known is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Numbers {
    /// Messages that nobody has.
    pub ready: Option<u64>,
    /// Messages that workers have.
    pub unacked: Option<u64>,
    /// Messages that wait longer than they should, those among them that a worker has received and not started.
    pub backlog: Option<f64>,
    /// Messages that arrive per second.
    pub arrival_rate: Option<f64>,
    /// Messages per second of a replica that is busy.
    pub rate_per_replica: Option<f64>,
    /// Seconds until what waits now is begun.
    pub lag: Option<f64>,
}

/// What is remembered from one sample to the next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    began: Option<f64>,
    at: f64,
    depth: Option<(f64, Depth)>,
    asked: Option<f64>,
    silent: bool,
    flow: Flow,
    arrivals: Arrivals,
    rate: Rate,
    total: f64,
    idle_since: Option<f64>,
    /// Largest recommendations, each larger than all after it.
    recommended: VecDeque<(f64, u32)>,
    sink: SinkLimit,
    risen: Option<Rise>,
    last: Option<Decision>,
}

/// The last change was to more replicas.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Rise {
    at: f64,
    rate: f64,
    arrivals: f64,
}

/// What is known now.
#[derive(Debug, Clone, Copy)]
struct Facts {
    /// Replicas that there are to be so far.
    current: u32,
    ready: u64,
    unacked: u64,
    backlog: f64,
    arrivals: f64,
    rate: Option<f64>,
    /// All workers that run have answered lately.
    complete: bool,
    /// Queue and workers were looked at just now.
    now: bool,
    holding: bool,
    /// Workers whose messages take long.
    long: u32,
    /// For how long there has been nothing to do.
    idle: Option<f64>,
}

impl Facts {
    fn work(&self) -> bool {
        self.ready > 0 || self.unacked > 0
    }

    /// Replicas that would do, and a part of one.
    fn need(&self, policy: &Policy, rate: f64) -> f64 {
        let utilization = policy.target_utilization.clamp(0.01, 1.0);
        (self.arrivals / utilization + self.backlog / policy.catch_up.max(1.0)) / rate
    }
}

/// Decides from one more sample.
#[must_use]
pub fn decide(policy: &Policy, mut state: State, sample: &Sample) -> (State, Decision) {
    let decision = state.next(policy, sample);
    state.last = Some(decision);
    (state, decision)
}

impl State {
    fn next(&mut self, policy: &Policy, sample: &Sample) -> Decision {
        let current = policy.clamp(self.last.map_or(sample.replicas, |d| d.desired));
        if !sample.at.is_finite() || self.began.is_some() && sample.at < self.at {
            return Decision { desired: current, ..self.last.unwrap_or_default() };
        }
        let began = *self.began.get_or_insert_with(|| {
            self.recommended.push_back((sample.at, current));
            sample.at
        });
        self.at = sample.at;
        self.take(policy, sample);
        let seen = self.depth.filter(|(at, _)| sample.at - at <= STALE);
        let (wanted, reason) = match seen {
            None => self.blind(policy, current, sample.at - self.depth.map_or(began, |(at, _)| at)),
            Some((_, depth)) => {
                let facts = self.facts(current, depth);
                self.size(policy, &facts)
            }
        };
        let desired = policy.clamp(wanted);
        let reason = match () {
            () if wanted > policy.max => Reason::MaxReplicas,
            () if wanted < desired => Reason::MinReplicas,
            () => reason,
        };
        if desired != current {
            self.sink.changed();
            self.note_rise(current, desired);
        }
        let numbers = self.numbers(seen.map(|(_, d)| d), desired.max(sample.replicas));
        Decision { desired, reason, sink_limited: self.sink.limited(), numbers }
    }

    /// Only a rise from a rate that is known can be judged by what it does to that.
    fn note_rise(&mut self, current: u32, desired: u32) {
        let rate = self.rate.known().filter(|_| self.rate.is_firm() && current > 0 && desired > current);
        self.risen = rate.map(|rate| Rise { at: self.at, rate, arrivals: self.arrivals.rate().unwrap_or(0.0) });
    }

    /// Adds what a sample says to what is known.
    fn take(&mut self, policy: &Policy, sample: &Sample) {
        let depth = sample.depth.filter(|d| d.is_fact(self.flow.attached()));
        if let Some(depth) = depth {
            self.depth = Some((sample.at, depth));
        }
        let Some(workers) = &sample.workers else { return };
        let usual = NORMAL_WAIT * self.arrivals.rate().unwrap_or(0.0);
        let waiting = self.depth.is_some_and(|(_, d)| d.ready > 0 && real(d.ready) > usual);
        let steps = self.flow.take(sample.at, workers, sample.silent, waiting);
        self.rate.take(sample.at, &sample.revision, &steps);
        self.asked = Some(sample.at);
        self.silent = sample.silent > 0;
        let full = full(&steps, sample);
        self.sink.note(sample.at, self.flow.finished, full, policy.cooldown);
        let Some(depth) = depth else { return };
        let total = self.flow.finished + real(depth.ready) + real(self.flow.unacked());
        if total > self.total + 0.5 {
            self.idle_since = None;
        }
        self.total = total;
        if total.is_finite() { self.arrivals.note(sample.at, total) } else { self.arrivals.restart() }
    }

    fn facts(&mut self, current: u32, depth: Depth) -> Facts {
        let arrivals = self.arrivals.rate().unwrap_or(0.0);
        let rate = self.rate.known();
        let waiting = real(depth.ready) + real(self.flow.held());
        let complete = !self.silent && self.asked.is_some_and(|at| self.at - at <= STALE);
        let unacked = self.flow.unacked();
        let now = self.asked == Some(self.at) && self.depth.map(|(at, _)| at) == Some(self.at);
        if depth.ready > 0 || unacked > 0 || !complete {
            self.idle_since = None;
        } else if now {
            self.idle_since.get_or_insert(self.at);
        }
        let long = self.flow.workers().filter(|w| w.in_flight > 0 && self.is_long(w, rate)).count();
        Facts {
            current,
            ready: depth.ready,
            unacked,
            backlog: (waiting - NORMAL_WAIT * arrivals).max(0.0),
            arrivals,
            rate,
            complete,
            now,
            holding: self.flow.workers().any(|w| w.holding),
            long: u32::try_from(long).unwrap_or(u32::MAX),
            idle: self.idle_since.map(|since| self.at - since),
        }
    }

    /// What the worker has takes long, or may: nothing has been finished that would tell.
    fn is_long(&self, worker: &Worker, rate: Option<f64>) -> bool {
        rate.is_some_and(|r| !self.rate.is_proven() || real(worker.in_flight) > LONG * r || self.rate.lasts(&worker.id))
    }

    /// Nothing is known of the queue: what runs stays, and something runs in the end.
    fn blind(&mut self, policy: &Policy, current: u32, seconds: f64) -> (u32, Reason) {
        self.arrivals.restart();
        self.idle_since = None;
        self.recommend(policy, current);
        if current == 0 && seconds > STALE && policy.fallback > 0 {
            return (policy.fallback, Reason::Fallback);
        }
        (current, Reason::HubUnreadable)
    }

    fn size(&mut self, policy: &Policy, facts: &Facts) -> (u32, Reason) {
        if !facts.work() && facts.current == 0 {
            return (0, Reason::Idle);
        }
        if facts.now && facts.idle.is_some_and(|seconds| seconds >= policy.cooldown) {
            self.recommended.clear();
            self.sink.relieved();
            return (0, Reason::Idle);
        }
        if facts.holding {
            return self.keep(policy, facts, Reason::SinkHolds);
        }
        let Some(rate) = facts.rate else { return self.unknown_rate(policy, facts) };
        if facts.backlog <= 0.0 {
            self.sink.relieved();
        }
        let need = facts.need(policy, rate);
        let room = f64::from(facts.current) * (1.0 + TOLERANCE);
        if facts.current == 0 || need > room { self.rise(policy, facts, need) } else { self.fall(policy, facts, need) }
    }

    /// One replica until it is known what it does; where more run, a first impression is enough to see that fewer would do.
    fn unknown_rate(&mut self, policy: &Policy, facts: &Facts) -> (u32, Reason) {
        let need = self.rate.impression().map(|rate| facts.need(policy, rate));
        match need.filter(|need| facts.backlog <= 0.0 && *need < f64::from(facts.current)) {
            Some(need) => self.fall(policy, facts, need),
            None => self.keep(policy, facts, Reason::RateUnknown),
        }
    }

    /// As many as there are, or the first one.
    fn keep(&mut self, policy: &Policy, facts: &Facts, reason: Reason) -> (u32, Reason) {
        let replicas = facts.current.max(1);
        self.recommend(policy, replicas);
        (replicas, reason)
    }

    /// At once, unless more replicas have proved to be no help.
    fn rise(&mut self, policy: &Policy, facts: &Facts, need: f64) -> (u32, Reason) {
        let wanted = whole(need).max(1);
        if let Some(cap) = self.sink.cap(self.at).filter(|cap| wanted > *cap) {
            let replicas = self.recommend(policy, cap).min(facts.current);
            return (replicas.max(cap).max(facts.long.min(facts.current)), Reason::SinkLimited);
        }
        if facts.current > 0 && self.undecided(facts) {
            return self.keep(policy, facts, Reason::Observing);
        }
        // Replicas that have become slower may share a limit: a step at a time is tried.
        let slower = self.risen.is_some_and(|r| facts.rate.is_some_and(|rate| rate < r.rate * (1.0 - TOLERANCE)));
        let step =
            if slower || self.sink.limited() { facts.current.saturating_mul(3).div_ceil(2).max(1) } else { u32::MAX };
        let wanted = wanted.min(step);
        self.recommend(policy, wanted);
        (wanted, Reason::Load)
    }

    /// The effect of the last rise is not known yet, and no more arrives than did then.
    fn undecided(&self, facts: &Facts) -> bool {
        let same =
            self.risen.is_some_and(|r| self.at - r.at < OBSERVE && facts.arrivals <= r.arrivals * (1.0 + TOLERANCE));
        (same || self.sink.limited()) && self.sink.undecided()
    }

    /// By the largest recommendation of the cooldown, and only if all is known.
    fn fall(&mut self, policy: &Policy, facts: &Facts, need: f64) -> (u32, Reason) {
        if !facts.complete {
            return self.keep(policy, facts, Reason::FactsMissing);
        }
        if !facts.now {
            return (facts.current, self.last.map_or(Reason::Load, |d| d.reason));
        }
        let enough = whole(need / (1.0 + SLACK)).clamp(1, facts.current);
        let spared = enough.max(facts.long.min(facts.current));
        let most = self.recommend(policy, spared).min(facts.current);
        let reason = match () {
            () if most > spared => Reason::Cooldown,
            () if spared > enough => Reason::LongMessages,
            () => Reason::Load,
        };
        (most, reason)
    }

    /// Remembers a recommendation; gives the largest of the cooldown.
    fn recommend(&mut self, policy: &Policy, replicas: u32) -> u32 {
        let now = self.at;
        while self.recommended.back().is_some_and(|(_, r)| *r <= replicas) {
            self.recommended.pop_back();
        }
        self.recommended.push_back((now, replicas));
        while self.recommended.len() > 1 && self.recommended.front().is_some_and(|(at, _)| now - at >= policy.cooldown)
        {
            self.recommended.pop_front();
        }
        self.recommended.front().map_or(replicas, |(_, r)| *r)
    }

    fn numbers(&self, depth: Option<Depth>, replicas: u32) -> Numbers {
        let arrival_rate = self.arrivals.rate();
        let rate_per_replica = self.rate.known();
        let waiting = depth.map(|d| real(d.ready) + real(self.flow.held()));
        let lag = match (waiting, rate_per_replica) {
            (Some(waiting), _) if waiting <= 0.0 => Some(0.0),
            (Some(waiting), Some(rate)) if replicas > 0 => Some(waiting / (rate * f64::from(replicas))),
            _ => None,
        };
        Numbers {
            ready: depth.map(|d| d.ready),
            unacked: depth.map(|_| self.flow.unacked()).filter(|_| !self.silent),
            backlog: waiting.map(|w| (w - NORMAL_WAIT * arrival_rate.unwrap_or(0.0)).max(0.0)),
            arrival_rate,
            rate_per_replica,
            lag,
        }
    }
}

/// Replicas, if all of them are there and could not do more.
fn full(steps: &[Step], sample: &Sample) -> Option<u32> {
    let all = u32::try_from(steps.len()).ok()? == sample.replicas && sample.silent == 0;
    (all && steps.iter().all(|s| s.saturated)).then_some(sample.replicas)
}
