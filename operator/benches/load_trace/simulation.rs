//! A queue, workers that take a second to start, and a rule that says how many there are to be. No clock but its own.

use std::collections::VecDeque;

/// Length of a step, in seconds.
pub(crate) const STEP: f64 = 0.2;
/// Seconds from a wanted replica to one that consumes, as measured with a warm image.
const START: f64 = 1.0;
/// Messages per second of a worker.
pub(crate) const RATE: f64 = 100.0;
/// Most replicas that any rule may ask for.
pub(crate) const MOST: u32 = 40;

/// A worker's counters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pod {
    pub(crate) number: u64,
    pub(crate) ready_at: f64,
    pub(crate) finished: f64,
    pub(crate) busy: f64,
}

/// What a rule may look at.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) at: f64,
    /// Messages in the queue.
    pub(crate) ready: f64,
    /// Messages that arrived in all.
    pub(crate) arrived: f64,
    /// Messages finished in all.
    pub(crate) finished: f64,
    /// Replicas that are asked for.
    pub(crate) replicas: u32,
    /// Workers that consume.
    pub(crate) pods: &'a [Pod],
}

/// Says how many replicas there are to be.
pub(crate) trait Rule {
    fn replicas(&mut self, seen: &Seen<'_>) -> u32;
}

/// What a rule has come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    /// Wait of the 99th of a hundred messages, in seconds.
    pub(crate) p99: f64,
    /// The longest wait.
    pub(crate) longest: f64,
    /// Hours of pods.
    pub(crate) pod_hours: f64,
    /// Times that the number of replicas was changed.
    pub(crate) changes: u32,
}

/// Runs a load, given as messages per second and for how many seconds each, under a rule.
pub(crate) fn run(trace: &[(f64, f64)], rule: &mut impl Rule) -> Outcome {
    let mut world = World::default();
    let mut noise = Noise(0x9E37_79B9_7F4A_7C15);
    for (load, seconds) in trace {
        let end = world.at + seconds;
        while world.at < end - STEP / 2.0 {
            world.step(load * STEP, &mut noise);
            let wanted = rule.replicas(&world.seen()).min(MOST);
            world.scale(wanted);
        }
    }
    world.outcome()
}

#[derive(Debug, Default)]
struct World {
    at: f64,
    queue: VecDeque<(f64, f64)>,
    ready: f64,
    arrived: f64,
    finished: f64,
    replicas: u32,
    pods: Vec<Pod>,
    /// Those that do not consume yet.
    starting: Vec<Pod>,
    next: u64,
    waits: Vec<(f64, f64)>,
    pod_seconds: f64,
    changes: u32,
}

impl World {
    fn step(&mut self, mean: f64, noise: &mut Noise) {
        self.at += STEP;
        let (at, arrived) = (self.at, (mean + noise.normal() * mean.sqrt()).max(0.0).round());
        if arrived > 0.0 {
            self.queue.push_back((at, arrived));
            self.ready += arrived;
            self.arrived += arrived;
        }
        let (up, rest) = self.starting.drain(..).partition(|p| p.ready_at <= at);
        self.starting = rest;
        self.pods.extend::<Vec<Pod>>(up);
        self.work();
        self.pod_seconds += f64::from(self.replicas) * STEP;
    }

    fn work(&mut self) {
        let count = self.pods.iter().map(|_| 1.0).sum::<f64>();
        let done = self.ready.min(RATE * STEP * count);
        let mut left = done;
        while left > 1e-9 {
            let Some((since, waiting)) = self.queue.front_mut() else { break };
            let taken = waiting.min(left);
            self.waits.push((self.at - *since, taken));
            *waiting -= taken;
            left -= taken;
            if *waiting <= 1e-9 {
                self.queue.pop_front();
            }
        }
        self.ready = (self.ready - done).max(0.0);
        self.finished += done;
        for pod in &mut self.pods {
            pod.finished += done / count;
            pod.busy += done / count / RATE;
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            at: self.at,
            ready: self.ready,
            arrived: self.arrived,
            finished: self.finished,
            replicas: self.replicas,
            pods: &self.pods,
        }
    }

    fn scale(&mut self, wanted: u32) {
        if wanted == self.replicas {
            return;
        }
        self.changes += 1;
        for _ in self.replicas..wanted {
            self.next += 1;
            let pod = Pod { number: self.next, ready_at: self.at + START, finished: 0.0, busy: 0.0 };
            self.starting.push(pod);
        }
        for _ in wanted..self.replicas {
            // Those that do not consume yet go first.
            if self.starting.pop().is_none() {
                self.pods.pop();
            }
        }
        self.replicas = wanted;
    }

    fn outcome(mut self) -> Outcome {
        self.waits.sort_by(|a, b| a.0.total_cmp(&b.0));
        let all: f64 = self.waits.iter().map(|(_, n)| n).sum();
        let mut seen = 0.0;
        let p99 = self.waits.iter().find(|(_, n)| {
            seen += n;
            seen >= 0.99 * all
        });
        Outcome {
            p99: p99.map_or(0.0, |(wait, _)| *wait),
            longest: self.waits.last().map_or(0.0, |(wait, _)| *wait),
            pod_hours: self.pod_seconds / 3_600.0,
            changes: self.changes,
        }
    }
}

/// The same numbers in each run.
#[derive(Debug)]
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        f64::from(u32::try_from(self.0 >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }

    /// Nearly: the sum of twelve.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}
