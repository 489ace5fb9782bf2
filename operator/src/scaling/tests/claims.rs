//! What is promised of decisions, one claim a test.

use crate::scaling::{Decision, Depth, Policy, Reason, Sample, State, Worker, decide, real};

pub(super) fn policy() -> Policy {
    Policy { min: 0, max: 20, target_utilization: 0.8, catch_up: 60.0, cooldown: 60.0, fallback: 1 }
}

/// A queue and its workers, each of which does `rate` a second, a second at a time.
#[derive(Debug, Clone)]
struct World {
    policy: Policy,
    state: State,
    last: Decision,
    at: f64,
    /// Messages per second that arrive.
    load: f64,
    rate: f64,
    /// All workers together do no more.
    sink: f64,
    ready: f64,
    workers: Vec<Worker>,
    hub: bool,
    silent: bool,
}

impl World {
    fn new(load: f64, rate: f64) -> Self {
        Self {
            policy: policy(),
            state: State::default(),
            last: Decision::default(),
            at: 0.0,
            load,
            rate,
            sink: f64::INFINITY,
            ready: 0.0,
            workers: Vec::new(),
            hub: true,
            silent: false,
        }
    }

    fn scale(&mut self) {
        self.workers.truncate(self.last.desired as usize);
        while self.workers.len() < self.last.desired as usize {
            let id = format!("w{}", self.workers.len());
            self.workers.push(Worker { id, started: self.at as u64, attached: true, ..Worker::default() });
        }
    }

    fn step(&mut self) -> Decision {
        self.at += 1.0;
        let count = real(self.workers.len() as u64);
        let rate = self.rate.min(self.sink / count.max(1.0));
        self.ready += self.load;
        let done = self.ready.min(rate * count);
        self.ready -= done;
        for w in &mut self.workers {
            let own = done / count;
            w.finished += own.round() as u64;
            w.busy += own / rate;
            w.held = u64::from(self.ready >= 1.0);
        }
        let depth = Depth { ready: self.ready as u64, consumers: self.workers.len() as u64 };
        let silent = if self.silent { self.workers.len() as u32 } else { 0 };
        let sample = Sample {
            at: self.at,
            depth: self.hub.then_some(depth),
            replicas: self.last.desired,
            revision: String::new(),
            workers: Some(if self.silent { Vec::new() } else { self.workers.clone() }),
            silent,
        };
        (self.state, self.last) = decide(&self.policy, std::mem::take(&mut self.state), &sample);
        self.scale();
        self.last
    }

    fn run(&mut self, seconds: u32) -> Vec<u32> {
        (0..seconds).map(|_| self.step().desired).collect()
    }
}

fn changes(trace: &[u32]) -> usize {
    trace.windows(2).filter(|w| w[0] != w[1]).count()
}

#[test]
fn the_first_message_starts_one_worker_at_once() {
    let mut world = World::new(0.0, 100.0);
    assert_eq!((world.step().desired, world.last.reason), (0, Reason::Idle));
    world.load = 1.0;
    assert_eq!((world.step().desired, world.last.reason), (1, Reason::RateUnknown));
}

#[test]
fn once_the_rate_is_known_one_step_is_enough() {
    let mut world = World::new(500.0, 100.0);
    let trace = world.run(60);
    assert_eq!(trace[0], 1);
    assert!(world.last.desired >= 7 && world.last.desired <= 8, "{trace:?}");
    assert!(changes(&trace) <= 3, "{trace:?}");
}

#[test]
fn steady_load_is_steady_and_ends_at_the_target() {
    let mut world = World::new(500.0, 100.0);
    world.run(300);
    assert_eq!(changes(&world.run(1_800)), 0);
    assert_eq!((world.last.desired, world.last.reason), (6, Reason::Load));
    let numbers = world.last.numbers;
    assert!((numbers.arrival_rate.unwrap() - 500.0).abs() < 5.0, "{numbers:?}");
    assert!((numbers.rate_per_replica.unwrap() - 100.0).abs() < 2.0, "{numbers:?}");
    assert!(numbers.lag.unwrap() < 0.5, "{numbers:?}");
}

#[test]
fn zero_after_the_cooldown_and_back_with_the_rate_that_was_known() {
    let mut world = World::new(500.0, 100.0);
    world.run(200);
    world.load = 0.0;
    let trace = world.run(120);
    let fell = trace.iter().position(|n| *n == 0).expect("it ends at zero");
    assert!((55..=65).contains(&fell), "{fell}");
    assert!(world.last.numbers.rate_per_replica.is_some());
    world.ready = 10_000.0;
    let burst = world.run(3);
    assert!(burst[0] >= 2 && burst[2] <= 7, "10,000 messages in 60 s at 100 a second: {burst:?}");
}

#[test]
fn down_waits_for_the_cooldown_and_takes_its_largest_recommendation() {
    let mut world = World::new(1_500.0, 100.0);
    world.run(300);
    assert_eq!(world.last.desired, 18);
    world.load = 150.0;
    let trace = world.run(150);
    assert!(trace[..55].iter().all(|n| *n == 18), "{trace:?}");
    assert_eq!(world.last.reason, Reason::Load);
    assert!(world.last.desired <= 3 && changes(&trace) <= 2, "{trace:?}");
}

#[test]
fn ten_second_messages_are_not_left_to_the_first_worker() {
    let state = State::default();
    let sample = |at: f64, ready, busy, in_flight, finished| Sample {
        at,
        depth: Some(Depth { ready, consumers: 1 }),
        replicas: 1,
        workers: Some(vec![Worker {
            id: "a".to_owned(),
            started: 1,
            attached: true,
            busy,
            in_flight,
            finished,
            ..Worker::default()
        }]),
        ..Sample::default()
    };
    let (mut state, _) = decide(&policy(), state, &sample(0.0, 150, 0.0, 0, 0));
    let mut trace = Vec::new();
    for second in 1..=9 {
        let at = f64::from(second);
        let (next, decision) = decide(&policy(), state, &sample(at, 149, at, 1, 0));
        state = next;
        trace.push(decision.desired);
    }
    assert_eq!(trace[..4], [1, 1, 1, 1]);
    assert!(trace[4] >= 12 && *trace.last().unwrap() == 20, "{trace:?}");
}

#[test]
fn a_worker_that_holds_one_ten_minute_message_is_not_scaled_away() {
    let worker = |id: &str, in_flight, finished, busy| Worker {
        id: id.to_owned(),
        started: 1,
        attached: true,
        in_flight,
        finished,
        busy,
        ..Worker::default()
    };
    let mut state = State::default();
    let mut last = Decision::default();
    for second in 0..400_u32 {
        let at = f64::from(second);
        let idle = (3..10).map(|n| worker(&format!("w{n}"), 0, 1, 600.0));
        let busy = (0..3).map(|n| worker(&format!("w{n}"), 1, 0, at));
        let sample = Sample {
            at,
            depth: Some(Depth { ready: 0, consumers: 10 }),
            replicas: 10,
            workers: Some(busy.chain(idle).collect()),
            ..Sample::default()
        };
        (state, last) = decide(&policy(), state, &sample);
    }
    assert_eq!((last.desired, last.reason), (3, Reason::LongMessages));
}

#[test]
fn workers_with_their_first_messages_are_spared_before_a_rate_is_proven() {
    let worker = |name: &str, in_flight, busy| Worker {
        id: name.to_owned(),
        revision: String::new(),
        in_flight,
        busy,
        ..Worker::default()
    };
    let mut policy = Policy { min: 10, cooldown: 1.0, ..policy() };
    let mut state = State::default();
    for second in 0..60_u32 {
        let at = f64::from(second);
        let idle = (3..10).map(|n| worker(&format!("w{n}"), 0, 0.0));
        let busy = (0..3).map(|n| worker(&format!("w{n}"), 1, at));
        let sample = Sample {
            at,
            depth: Some(Depth { ready: 0, consumers: 10 }),
            replicas: 10,
            workers: Some(busy.chain(idle).collect()),
            ..Sample::default()
        };
        let decision;
        (state, decision) = decide(&policy, state, &sample);
        assert!(decision.desired >= 3, "{decision:?} at {at}");
        policy.min = 0;
    }
}

#[test]
fn while_the_hub_cannot_be_read_replicas_stay_and_nothing_flaps_when_it_returns() {
    let mut world = World::new(500.0, 100.0);
    world.run(200);
    world.hub = false;
    let load = std::mem::replace(&mut world.load, 0.0);
    let blind = world.run(600);
    assert_eq!((changes(&blind), world.last.reason), (0, Reason::HubUnreadable));
    assert_eq!(world.last.numbers.ready, None);
    (world.hub, world.load) = (true, load);
    assert_eq!(changes(&world.run(300)), 0);
}

#[test]
fn blind_with_nothing_running_something_runs_in_the_end() {
    let mut world = World::new(0.0, 100.0);
    world.hub = false;
    world.policy.fallback = 2;
    let trace = world.run(30);
    assert_eq!((trace[5], trace[29]), (0, 2));
    assert_eq!(world.last.reason, Reason::HubUnreadable, "once it runs it is held");
    world.hub = true;
    world.run(70);
    assert_eq!(world.last.desired, 0);
}

#[test]
fn no_messages_and_no_consumers_is_no_fact_while_workers_are_attached() {
    let mut world = World::new(500.0, 100.0);
    world.run(200);
    let before = world.last.desired;
    for second in 0..300 {
        let sample = Sample {
            at: 200.0 + f64::from(second),
            depth: Some(Depth { ready: 0, consumers: 0 }),
            replicas: before,
            workers: Some(world.workers.clone()),
            ..Sample::default()
        };
        (world.state, world.last) = decide(&world.policy, std::mem::take(&mut world.state), &sample);
        assert_eq!(world.last.desired, before);
    }
    assert_eq!(world.last.reason, Reason::HubUnreadable);
}

#[test]
fn silent_workers_hold_the_number() {
    let mut world = World::new(900.0, 100.0);
    world.run(200);
    let before = world.last.desired;
    (world.silent, world.load) = (true, 0.0);
    let trace = world.run(300);
    assert!(trace.iter().all(|n| *n >= before), "{trace:?}");
}

#[test]
fn a_sink_that_is_the_limit_stops_the_climb_and_says_so() {
    let mut world = World::new(2_000.0, 100.0);
    world.sink = 450.0;
    world.policy.max = 100;
    let trace = world.run(600);
    assert!(world.last.sink_limited, "{trace:?}");
    assert!(changes(&trace) <= 12, "{trace:?}");
    world.sink = f64::INFINITY;
    world.load = 500.0;
    world.run(600);
    assert!(!world.last.sink_limited && world.last.desired >= 6);
}

#[test]
fn workers_that_hold_are_neither_more_nor_fewer() {
    let mut world = World::new(500.0, 100.0);
    world.run(200);
    let before = world.last.desired;
    for w in &mut world.workers {
        w.holding = true;
    }
    world.rate = 1e-9;
    let trace = world.run(300);
    assert!(trace.iter().all(|n| *n == before) && world.last.reason == Reason::SinkHolds, "{trace:?}");
}

#[test]
fn bounds_hold_and_are_named() {
    let mut world = World::new(5_000.0, 100.0);
    world.policy.max = 4;
    world.run(60);
    assert_eq!((world.last.desired, world.last.reason), (4, Reason::MaxReplicas));
    world.load = 0.0;
    world.ready = 0.0;
    world.policy.min = 2;
    world.run(120);
    assert_eq!((world.last.desired, world.last.reason), (2, Reason::MinReplicas));
}

#[test]
fn a_new_operator_begins_a_new_cooldown_with_what_runs() {
    let mut world = World::new(0.0, 100.0);
    world.last.desired = 5;
    world.scale();
    let trace = world.run(90);
    assert!(trace[..55].iter().all(|n| *n == 5), "{trace:?}");
    assert_eq!(world.last.desired, 0);
}
