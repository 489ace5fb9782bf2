use Generation::{A, B};
use proptest::prelude::*;

use super::*;

const LIVES: Lives = Lives { rotate: SignedDuration::from_hours(24 * 30), overlap: OVERLAP, outside: true };
const INSIDE: Lives = Lives { outside: false, ..LIVES };

fn at(hours: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours)
}

const SOUND: Option<User> = Some(User { fits: true, granted: true });

/// A role at rest.
fn settled() -> Seen {
    let a = Side { minted: Some(at(0)), user: SOUND, used: true, connections: None };
    Seen { current: Some(A), addressed: true, turned: None, a, b: Side::default() }
}

/// A role whose second user has just followed the first.
fn followed() -> Seen {
    let b = Side { minted: Some(at(720)), user: SOUND, used: true, connections: None };
    Seen { current: Some(B), b, a: Side { connections: Some(3), ..settled().a }, ..settled() }
}

/// The world after a step, where nothing else happens.
fn after(mut seen: Seen, step: Step, now: Timestamp) -> Seen {
    fn side(seen: &mut Seen, generation: Generation) -> &mut Side {
        match generation {
            A => &mut seen.a,
            B => &mut seen.b,
        }
    }
    match step {
        Step::Write(g) => {
            let side = side(&mut seen, g);
            side.minted = Some(now);
            side.user = side.user.map(|user| User { fits: false, ..user });
            seen.addressed = true;
        }
        Step::Address => seen.addressed = true,
        Step::Make(g) => {
            let side = side(&mut seen, g);
            side.user = Some(User { fits: true, granted: side.user.is_some_and(|user| user.granted) });
        }
        Step::Grant(g) => {
            let side = side(&mut seen, g);
            side.user = side.user.map(|user| User { granted: true, ..user });
        }
        Step::Turn(g) => seen.current = Some(g),
        Step::Delete(g) => {
            let side = side(&mut seen, g);
            (side.user, side.connections) = (None, None);
        }
        Step::Drop(g) => side(&mut seen, g).minted = None,
    }
    seen
}

fn run(seen: Seen, now: Timestamp) -> (Vec<Step>, Seen) {
    run_with(LIVES, seen, now)
}

fn run_with(lives: Lives, mut seen: Seen, now: Timestamp) -> (Vec<Step>, Seen) {
    let mut steps = Vec::new();
    while let Some(step) = seen.next(lives, now) {
        steps.push(step);
        assert!(steps.len() < 16, "it does not end: {steps:?}");
        seen = after(seen, step, now);
    }
    (steps, seen)
}

#[test]
fn the_password_is_kept_before_the_user_is_made_and_pods_are_told_last() {
    let (steps, seen) = run(Seen::default(), at(0));
    assert_eq!(steps, [Step::Write(A), Step::Make(A), Step::Grant(A), Step::Turn(A)]);
    assert_eq!(seen.current(), Some(A));
}

#[test]
fn at_rest_nothing_is_done_until_the_time_has_come() {
    assert_eq!(settled().next(LIVES, at(719)), None);
    let (steps, seen) = run(settled(), at(720));
    assert_eq!(steps, [Step::Write(B), Step::Make(B), Step::Grant(B), Step::Turn(B)]);
    assert_eq!((seen.current(), seen.a), (Some(B), settled().a), "the old one is as it was");
}

#[test]
fn the_old_user_goes_once_no_pod_is_told_of_it_and_no_connection_is_left() {
    let later = at(721);
    let (pods, connected) = (followed(), Seen { a: Side { used: false, ..followed().a }, ..followed() });
    let unknown = Seen { a: Side { connections: None, ..connected.a }, ..connected };
    let idle = Seen { a: Side { connections: Some(0), ..connected.a }, ..connected };
    let pods_idle = Seen { a: Side { connections: Some(0), ..pods.a }, ..pods };
    for held in [pods, connected, unknown, pods_idle] {
        assert_eq!(held.next(LIVES, later), None, "{held:?}");
    }
    assert_eq!(idle.next(LIVES, at(720)), None, "too soon");
    let (steps, seen) = run(idle, later);
    assert_eq!(steps, [Step::Delete(A), Step::Drop(A)]);
    assert_eq!(seen.a.minted, None);
}

#[test]
fn devices_have_a_day_to_change_their_password() {
    let lives = Lives::new(30, true);
    let idle = Seen { a: Side { used: false, connections: Some(0), ..followed().a }, ..followed() };
    assert_eq!(idle.next(lives, at(743)), None);
    assert_eq!(idle.next(lives, at(744)), Some(Step::Delete(A)));
    let late = Seen { turned: Some(at(800)), ..idle };
    assert_eq!([late.next(lives, at(823)), late.next(lives, at(824))], [None, Some(Step::Delete(A))]);
}

#[test]
fn a_turn_waits_for_the_one_before_it_and_says_for_whom() {
    let held = followed();
    assert_eq!(held.next(LIVES, at(2_000)), None);
    assert_eq!(held.held_up(LIVES, at(2_000)), Some(A));
    let soon = at(721);
    assert_eq!([soon, soon + OVERLAP].map(|now| held.held_up(LIVES, now)), [None, Some(A)], "it has an hour");
    assert_eq!(settled().held_up(LIVES, at(2_000)), None, "it is due and done");
}

#[test]
fn what_somebody_changed_at_the_hub_is_put_back() {
    let with = |user| Seen { a: Side { user, ..settled().a }, ..settled() };
    assert_eq!(run(with(None), at(1)).0, [Step::Make(A), Step::Grant(A)]);
    assert_eq!(run(with(Some(User { fits: false, granted: true })), at(1)).0, [Step::Make(A)]);
    assert_eq!(run(with(Some(User { fits: true, granted: false })), at(1)).0, [Step::Grant(A)]);
    let moved = Seen { addressed: false, ..settled() };
    assert_eq!(run(moved, at(1)).0, [Step::Address]);
}

#[test]
fn a_user_that_pods_still_have_is_mended_too() {
    let gone = Seen { a: Side { user: None, connections: None, ..followed().a }, ..followed() };
    assert_eq!(run(gone, at(721)).0, [Step::Make(A), Step::Grant(A)]);
}

#[test]
fn a_deleted_secret_takes_away_no_password_that_is_in_use() {
    let lost = |connections| Seen {
        current: None,
        addressed: false,
        turned: None,
        a: Side { minted: None, connections: Some(connections), ..settled().a },
        b: Side::default(),
    };
    for connections in [0, 3] {
        let (steps, _) = run(lost(connections), at(1));
        assert_eq!(steps[..4], [Step::Write(B), Step::Make(B), Step::Grant(B), Step::Turn(B)]);
    }
    let both = Seen { b: Side { connections: Some(1), ..lost(3).a }, ..lost(3) };
    assert_eq!(both.next(LIVES, at(1)), None, "both may be in use");
    let more = Some(User { fits: false, granted: false });
    let narrowed = Seen { a: Side { user: more, ..both.a }, b: Side { user: more, ..both.b }, ..both };
    assert_eq!(run(narrowed, at(1)).0, [Step::Grant(A), Step::Grant(B)], "what they may do needs no password");
    assert_eq!(both.next(INSIDE, at(1)), Some(Step::Write(B)), "fewer have it, and pods are made anew");
    let unused = Seen { a: Side { used: false, ..both.a }, ..both };
    assert_eq!(unused.next(INSIDE, at(1)), Some(Step::Write(A)), "no pod has it");
    let one = Seen { b: Side { connections: Some(0), ..lost(3).a }, ..lost(3) };
    assert_eq!(one.next(LIVES, at(1)), Some(Step::Write(B)));
}

fn any_side() -> impl Strategy<Value = Side> {
    let user = prop::option::of((any::<bool>(), any::<bool>()).prop_map(|(fits, granted)| User { fits, granted }));
    let connections = prop::option::of(0usize..2);
    (prop::option::of(0i64..2_000), user, any::<bool>(), connections).prop_map(|(minted, user, used, connections)| {
        Side { minted: minted.map(at), user, used, connections: connections.filter(|_| user.is_some()) }
    })
}

fn any_seen() -> impl Strategy<Value = Seen> {
    let current = prop::option::of(prop_oneof![Just(A), Just(B)]);
    let turned = prop::option::of((0i64..2_000).prop_map(at));
    (current, turned, any::<bool>(), any_side(), any_side()).prop_map(|(current, turned, addressed, a, b)| Seen {
        current,
        addressed,
        turned,
        a,
        b,
    })
}

proptest! {
    #[test]
    fn from_anywhere_it_ends_with_a_user_that_works_or_waits_for_connections(seen in any_seen(), hours in 0i64..4_000) {
        let inside = run_with(INSIDE, seen, at(hours)).1;
        prop_assert!(inside.current().is_some(), "it waits for nothing: {:?}", inside);
        let (steps, end) = run(seen, at(hours));
        match end.current() {
            Some(current) => {
                prop_assert_eq!(end.side(current).user, SOUND, "{:?}", steps);
                prop_assert!(end.addressed);
            }
            None => prop_assert!(end.a.user.is_some() && end.b.user.is_some(), "it waits for nothing: {:?}", end),
        }
    }

    #[test]
    fn nobody_who_may_be_at_work_is_deleted_or_given_another_password(seen in any_seen(), hours in 0i64..4_000) {
        let mut now = seen;
        while let Some(step) = now.next(LIVES, at(hours)) {
            if let Step::Delete(g) | Step::Drop(g) = step {
                let side = now.side(g);
                prop_assert!(!side.used && side.connections.unwrap_or(0) == 0, "{:?} {:?}", step, now);
                prop_assert!(now.current() == Some(g.other()), "it is the one that pods are told of");
            }
            if let Step::Write(g) = step {
                prop_assert!(now.side(g).minted.is_none(), "a password that somebody has: {:?}", now);
                prop_assert!(now.side(g).connections.unwrap_or(0) == 0, "{:?}", now);
            }
            now = after(now, step, at(hours));
        }
    }

    #[test]
    fn pods_are_told_only_of_users_that_work(seen in any_seen(), hours in 0i64..4_000) {
        let mut now = seen;
        while let Some(step) = now.next(LIVES, at(hours)) {
            if let Step::Turn(g) = step {
                prop_assert_eq!(now.side(g).user, SOUND);
            }
            now = after(now, step, at(hours));
        }
    }
}
