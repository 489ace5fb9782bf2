//! How many workers there are to be: claims and properties.

use proptest::prelude::*;

use super::super::scale::{Decision, Reason, Sample, Seen, State, decide};
use crate::scaling::{Policy, real};

const POLICY: Policy = Policy { min: 0, max: 4, target_utilization: 0.8, catch_up: 60.0, cooldown: 60.0, fallback: 1 };

/// A query whose workers do what is decided.
struct Run {
    policy: Policy,
    state: State,
    at: f64,
    replicas: u32,
    last: Option<Decision>,
}

impl Run {
    fn new(replicas: u32) -> Self {
        Self { policy: POLICY, state: State::default(), at: 0.0, replicas, last: None }
    }

    fn see(&mut self, seen: Seen) -> Decision {
        let sample = Sample { at: self.at, replicas: self.replicas, seen };
        let decision;
        (self.state, decision) = decide(&self.policy, std::mem::take(&mut self.state), &sample);
        self.at += 1.0;
        self.replicas = decision.desired;
        self.last = Some(decision);
        decision
    }

    /// So many seconds during which `rate` events a second arrive, and each worker can do `each`.
    fn load(&mut self, seconds: u32, rate: f64, each: f64, backlog: &mut f64, events: &mut f64) {
        for _ in 0..seconds {
            let done = (each * f64::from(self.replicas)).min(rate + *backlog);
            *backlog += rate - done;
            *events += done;
            let lag = if rate > 0.0 { *backlog / rate } else { *backlog / each };
            self.see(Seen::Working { lag: lag + 0.5, events: counted(*events), open: rate > 0.0 || *backlog > 0.0 });
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers of a test")]
fn counted(events: f64) -> u64 {
    events as u64
}

fn idle(open: bool) -> Seen {
    Seen::Working { lag: 1.0, events: 10, open }
}

#[test]
fn one_worker_is_enough_until_it_is_behind() {
    let mut run = Run::new(1);
    let (mut backlog, mut events) = (0.0, 0.0);
    run.load(300, 500.0, 1_000.0, &mut backlog, &mut events);
    assert_eq!(run.replicas, 1);
    run.load(120, 2_500.0, 1_000.0, &mut backlog, &mut events);
    assert_eq!((run.replicas, backlog < 2_500.0 * 5.0), (4, true), "{:?}", run.last);
}

#[test]
fn a_rise_is_at_once_and_a_fall_waits_for_the_cooldown() {
    let mut run = Run::new(1);
    let (mut backlog, mut events) = (0.0, 0.0);
    run.load(90, 3_000.0, 1_000.0, &mut backlog, &mut events);
    assert_eq!(run.replicas, 4);
    while backlog > 0.0 {
        run.load(1, 3_000.0, 1_000.0, &mut backlog, &mut events);
    }
    let before = run.at;
    while run.replicas > 1 && run.at < before + 400.0 {
        run.load(1, 700.0, 1_000.0, &mut backlog, &mut events);
    }
    assert_eq!(run.replicas, 1);
    assert!(run.at - before >= POLICY.cooldown, "{}", run.at - before);
}

#[test]
fn a_partition_that_waits_for_a_lease_is_no_reason_for_more_workers_for_long() {
    let mut run = Run::new(2);
    let mut events = 0;
    for second in 0..400_u32 {
        // Every minute and a half one of four partitions is read by nobody for 15 seconds, and then all at once.
        let waits = second % 90 < 15;
        let lag = if waits { f64::from(second % 90) } else { 1.0 };
        events += if waits {
            75
        } else if second % 90 == 15 {
            475
        } else {
            100
        };
        run.see(Seen::Working { lag, events, open: true });
    }
    let quiet = (0..120).map(|_| {
        events += 100;
        run.see(Seen::Working { lag: 1.0, events, open: true }).desired
    });
    assert!(quiet.last().is_some_and(|n| n <= 2), "{:?}", run.last);
}

#[test]
fn more_workers_than_partitions_are_never_wanted() {
    let mut run = Run::new(1);
    let (mut backlog, mut events) = (1e7, 0.0);
    run.load(200, 50_000.0, 1_000.0, &mut backlog, &mut events);
    assert_eq!(run.replicas, 4);
    assert_eq!(run.last.unwrap().reason, Reason::MaxReplicas);
}

#[test]
fn to_zero_only_when_nothing_comes_all_is_read_and_no_window_is_open() {
    for (seen, zero) in
        [(idle(false), true), (idle(true), false), (Seen::Working { lag: 30.0, events: 10, open: false }, false)]
    {
        let mut run = Run::new(2);
        let lowest = (0..200).map(|_| run.see(seen).desired).min().unwrap();
        assert_eq!(lowest == 0, zero, "{seen:?}");
    }
    let mut run = Run::new(1);
    let arriving = (0..200).map(|n| run.see(Seen::Working { lag: 1.0, events: n, open: false }).desired).min();
    assert_eq!(arriving, Some(1));
}

#[test]
fn zero_is_reached_no_sooner_than_the_cooldown() {
    let mut run = Run::new(1);
    while run.replicas > 0 {
        run.see(idle(false));
    }
    assert!((60.0..=63.0).contains(&run.at), "{}", run.at);
    assert_eq!(run.last.unwrap().reason, Reason::Idle);
}

#[test]
fn at_zero_the_first_message_wakes_it() {
    let mut run = Run::new(0);
    for _ in 0..100 {
        assert_eq!(run.see(Seen::Quiet).desired, 0);
    }
    let woken = run.see(Seen::Work);
    assert_eq!((woken.desired, woken.reason), (1, Reason::Woken));
    for _ in 0..20 {
        assert_eq!(run.see(Seen::Blind).desired, 1, "it is on its feet soon");
    }
}

#[test]
fn blind_holds_and_something_runs_in_the_end() {
    let mut run = Run::new(3);
    for _ in 0..500 {
        let decision = run.see(Seen::Blind);
        assert_eq!((decision.desired, decision.reason), (3, Reason::FactsMissing));
    }
    let mut run = Run::new(0);
    let first = run.see(Seen::Blind);
    assert_eq!(first.desired, 0, "a moment is nothing");
    let woken = (0..30).find(|_| run.see(Seen::Blind).desired == 1);
    assert!(woken.is_some() && run.at > 10.0);
}

#[test]
fn blindness_begins_the_wait_for_zero_anew() {
    let mut run = Run::new(1);
    for _ in 0..50 {
        run.see(idle(false));
    }
    run.see(Seen::Blind);
    for _ in 0..50 {
        assert_eq!(run.see(idle(false)).desired, 1);
    }
}

#[test]
fn a_minimum_is_kept_and_told() {
    let mut run = Run::new(2);
    run.policy.min = 2;
    let last = (0..200).map(|_| run.see(idle(false))).last().unwrap();
    assert_eq!((last.desired, last.reason), (2, Reason::MinReplicas));
}

fn seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        Just(Seen::Blind),
        Just(Seen::Quiet),
        Just(Seen::Work),
        (0.0..600.0_f64, 0_u64..1_000_000, any::<bool>()).prop_map(|(lag, events, open)| Seen::Working {
            lag,
            events,
            open
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_bounds_hold_whatever_is_seen(min in 0_u32..3, more in 0_u32..5, samples in prop::collection::vec(seen(), 1..120)) {
        let mut run = Run::new(1);
        run.policy = Policy { min, max: (min + more).max(1), ..POLICY };
        for seen in samples {
            let decision = run.see(seen);
            prop_assert!((run.policy.min..=run.policy.max).contains(&decision.desired));
        }
    }

    /// Zero needs a whole cooldown in which all was seen, nothing came, nothing was open and nothing was left to read.
    #[test]
    fn zero_comes_only_after_a_quiet_cooldown(samples in prop::collection::vec((seen(), any::<bool>()), 1..300)) {
        let mut run = Run::new(1);
        let (mut quiet_since, mut events_before) = (None, None);
        for (seen, repeat) in samples {
            // Mostly what is idle, or zero would hardly ever be near.
            let seen = if repeat { idle(false) } else { seen };
            let before = run.replicas;
            let events = match seen {
                Seen::Working { events, .. } => Some(events),
                _ => None,
            };
            let quiet = matches!(seen, Seen::Working { lag, open: false, .. } if lag <= 5.0)
                && (events_before.is_none() || events == events_before);
            quiet_since = quiet.then(|| quiet_since.unwrap_or(run.at));
            events_before = events;
            let at = run.at;
            if before > 0 && run.see(seen).desired == 0 {
                prop_assert!(quiet_since.is_some_and(|since| at - since >= POLICY.cooldown - 1e-9), "{seen:?} at {at}");
            } else if before == 0 {
                run.replicas = 1;
                run.at += 1.0;
            }
        }
    }

    #[test]
    fn a_load_that_stays_is_followed_and_then_left_alone(rate in 100.0..3_000.0_f64) {
        // A hair above what one worker does it takes longer than this test until that shows.
        prop_assume!(!(1_000.0..1_010.0).contains(&rate));
        let mut run = Run::new(1);
        let (mut backlog, mut events) = (0.0, 0.0);
        run.load(600, rate, 1_000.0, &mut backlog, &mut events);
        let settled = run.replicas;
        prop_assert!(real(u64::from(settled)) * 1_000.0 >= rate * 0.99 || rate < 1_000.0, "{settled} for {rate}");
        for _ in 0..200 {
            run.load(1, rate, 1_000.0, &mut backlog, &mut events);
            prop_assert_eq!(run.replicas, settled);
        }
        prop_assert!(backlog <= rate * 5.0 + 1_000.0, "{backlog}");
    }
}
