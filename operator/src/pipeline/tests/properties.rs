//! Properties of decisions over random histories: stability, convergence, safety, determinism, and an operator that dies anywhere.

use drover_crds::api::ScalingMode;
use proptest::prelude::*;

use super::model::{World, spec};
use crate::scaling::Decision;

/// Something that happens.
#[derive(Debug, Clone)]
enum Event {
    Reconcile,
    /// The operator dies after so many writes.
    Dies(usize),
    PodsSettle,
    Prefetch(u16),
    Replicas(i32),
    Suspend(bool),
    HubGoes,
    HubComes,
    SomebodyDeletes(usize),
    SecretRotates(u8),
    Mode(ScalingMode),
    Decided(Option<u32>),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Reconcile),
        3 => (0_usize..7).prop_map(Event::Dies),
        3 => Just(Event::PodsSettle),
        3 => (1_u16..3).prop_map(Event::Prefetch),
        1 => (0_i32..5).prop_map(Event::Replicas),
        1 => any::<bool>().prop_map(Event::Suspend),
        1 => Just(Event::HubGoes),
        1 => Just(Event::HubComes),
        1 => (0_usize..2).prop_map(Event::SomebodyDeletes),
        1 => (0_u8..2).prop_map(Event::SecretRotates),
        1 => prop_oneof![Just(ScalingMode::Auto), Just(ScalingMode::Recommend), Just(ScalingMode::Off)].prop_map(Event::Mode),
        2 => prop::option::of(0_u32..6).prop_map(Event::Decided),
    ]
}

fn happen(world: &mut World, event: &Event) {
    match event {
        Event::Reconcile => {
            world.step();
        }
        Event::Dies(writes) => {
            let plan = world.plan();
            world.act(&plan, *writes);
        }
        Event::PodsSettle => world.settle(),
        Event::Prefetch(n) => world.edit(|s| s.source.prefetch = Some(*n)),
        Event::Replicas(n) => world.edit(|s| s.scaling.get_or_insert_default().replicas = Some(*n)),
        Event::Mode(mode) => world.edit(|s| s.scaling.get_or_insert_default().mode = Some(*mode)),
        Event::Decided(n) => world.scale = n.map(|desired| Decision { desired, ..Decision::default() }),
        Event::Suspend(on) => world.edit(|s| s.suspend = Some(*on)),
        Event::HubGoes => world.hub_fails(),
        Event::HubComes => world.hub = World::new(spec()).hub,
        Event::SomebodyDeletes(0) => world.owned.config_maps.clear(),
        Event::SomebodyDeletes(_) => world.owned.disruption_budget = None,
        Event::SecretRotates(n) => {
            if let Some(secrets) = world.secrets.as_mut() {
                secrets.digest = n.to_string();
            }
        }
    }
}

fn wanted(world: &World) -> i32 {
    let scaling = world.object.spec.scaling.clone().unwrap_or_default();
    match (world.object.spec.suspend, scaling.mode.unwrap_or_default(), world.scale) {
        (Some(true), ..) => 0,
        (_, ScalingMode::Off | ScalingMode::Recommend, _) => scaling.replicas.unwrap_or(1),
        (_, ScalingMode::Auto, Some(decision)) => i32::try_from(decision.desired).unwrap(),
        (_, ScalingMode::Auto, None) => world.asked(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_ends_at_the_newest_spec_and_then_writes_nothing(events in prop::collection::vec(event(), 0..30)) {
        let mut world = World::new(spec());
        for e in &events {
            happen(&mut world, e);
        }
        world.hub = World::new(spec()).hub;
        world.converge();
        prop_assert_eq!(world.deployments().len(), 1);
        prop_assert_eq!(world.owned.config_maps.len(), 1);
        prop_assert_eq!(world.consuming(), wanted(&world));
        let calm = world.plan();
        prop_assert!(calm.writes.is_empty() && calm.deletes.is_empty() && calm.status.is_none() && calm.events.is_empty(), "{:?}", calm);
    }

    #[test]
    fn no_step_of_the_operator_leaves_work_without_a_consumer(events in prop::collection::vec(event(), 0..30)) {
        let mut world = World::new(spec());
        world.converge();
        for e in &events {
            let before = world.consuming();
            happen(&mut world, e);
            if matches!(e, Event::Reconcile | Event::Dies(_)) && before > 0 && wanted(&world) > 0 {
                prop_assert!(world.consuming() > 0, "after {:?}", e);
            }
        }
    }

    #[test]
    fn the_same_world_gives_the_same_plan(events in prop::collection::vec(event(), 0..12)) {
        let mut world = World::new(spec());
        for e in &events {
            happen(&mut world, e);
        }
        prop_assert_eq!(world.plan(), world.plan());
    }
}
