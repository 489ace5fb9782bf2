//! What holds whatever happens, and whenever the operator dies.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::model::{COUNTS, SUMS, World, spec};
use crate::problem::{External, Problem};

/// What may happen between two looks.
#[derive(Debug, Clone, Copy)]
enum Event {
    Text(bool),
    Image(u8),
    Suspend(bool),
    Decide(u32),
    Hub(bool),
    Store(bool),
    /// The store takes one step towards the version that is asked for.
    Advance,
    Settle,
    /// The operator dies after so many writes.
    Die(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        any::<bool>().prop_map(Event::Text),
        (0_u8..3).prop_map(Event::Image),
        any::<bool>().prop_map(Event::Suspend),
        (0_u32..5).prop_map(Event::Decide),
        any::<bool>().prop_map(Event::Hub),
        any::<bool>().prop_map(Event::Store),
        Just(Event::Advance),
        Just(Event::Settle),
        (0_usize..6).prop_map(Event::Die),
    ]
}

/// What the store's side does, one step at a time; as `outside` decides it.
fn advance(world: &mut World) {
    let wanted = world.wanted();
    let emitter = world.rows.emitter().map(str::to_owned);
    let inhabited: BTreeSet<String> = world.states();
    match emitter {
        None => world.begin(),
        Some(emitter) if emitter == wanted => {
            if let Some(emission) = world.rows.emission.as_mut().filter(|e| e.at.is_some()) {
                emission.passed = true;
            }
            world.rows.revisions.retain(|r| *r == wanted || inhabited.contains(r));
        }
        Some(emitter) => match world.rows.emission.clone() {
            Some(e) if e.at.is_none() && e.new == wanted && world.rows.revisions.contains(&wanted) => {
                world.emits(&emitter, &wanted, Some(7), false);
            }
            Some(e) if e.at.is_none() && e.new == wanted => world.begin(),
            _ => world.emits(&emitter, &wanted, None, false),
        },
    }
}

fn happen(world: &mut World, event: Event) {
    let problem = || Problem::new("Unreachable", "no answer");
    match event {
        Event::Text(first) => world.edit(|s| s.query = if first { COUNTS } else { SUMS }.to_owned()),
        Event::Image(n) => world.edit(|s| s.worker.get_or_insert_default().image = Some(format!("image:{n}"))),
        Event::Suspend(suspend) => world.edit(|s| s.suspend = Some(suspend)),
        Event::Decide(n) => world.decided(n),
        Event::Hub(fine) => {
            let facts = super::super::outside::HubFacts { dead: 0, routed: 4 };
            world.hub = if fine { External::Fine(facts) } else { External::Problem(problem()) };
        }
        Event::Store(fine) => world.store = (!fine).then(problem),
        Event::Advance => advance(world),
        Event::Settle => world.settle(),
        Event::Die(writes) => {
            let plan = world.plan();
            world.act(&plan, writes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// While it has ends to emit, a version that had workers keeps them; and nothing is deleted that the store was not seen to be done with.
    #[test]
    fn the_version_that_emits_is_never_told_to_end(events in prop::collection::vec(event(), 1..40)) {
        let mut world = World::new(spec());
        world.converge();
        for event in events {
            happen(&mut world, event);
            let before = world.states();
            world.step();
            let after = world.states();
            if let Some(emitter) = world.rows.emitter()
                && before.contains(emitter)
            {
                prop_assert!(after.contains(emitter), "{event:?}");
            }
            if world.store.is_some() {
                prop_assert!(before.is_subset(&after), "{event:?}");
            }
            // Whoever works has rows that say where to begin.
            if world.store.is_none() {
                for state in after.difference(&before) {
                    prop_assert!(world.rows.revisions.contains(state), "{event:?}");
                }
            }
        }
    }

    #[test]
    fn once_all_is_well_it_settles_and_a_settled_query_plans_nothing(events in prop::collection::vec(event(), 1..30)) {
        let mut world = World::new(spec());
        for event in events {
            happen(&mut world, event);
            world.step();
        }
        happen(&mut world, Event::Hub(true));
        happen(&mut world, Event::Store(true));
        for _ in 0..8 {
            advance(&mut world);
            world.step();
            world.settle();
        }
        world.converge();
        prop_assert_eq!(world.states(), BTreeSet::from([world.wanted()]));
        let plan = world.plan();
        prop_assert!(plan.writes.is_empty() && plan.deletes.is_empty() && plan.status.is_none(), "{:?}", plan);
        prop_assert_eq!(&plan, &world.plan());
    }
}
