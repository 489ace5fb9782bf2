//! What is promised of a new revision's way to the source, with plans that are acted on: also by an operator that dies at any write.

use std::{sync::Arc, time::Duration};

use drover_crds::api::{Cutover, Evidence, RolloutPhase, RolloutSpec, Tally};
use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use proptest::prelude::*;
use serde_json::json;

use super::{
    claims::{reason, running},
    model::{World, holding, spec},
};
use crate::{
    names,
    pipeline::{plan::Doomed, snapshot::Owned},
    problem::Problem,
};

/// Both sides do well for long enough.
fn well() -> Evidence {
    let done = |processed| Tally { processed, ..Tally::default() };
    Evidence { seconds: 130.0, active: done(1), preview: done(1_000), ..Evidence::default() }
}

fn asks_for(world: &mut World, image: &str) {
    let image = image.to_owned();
    world.edit(|s| s.worker.get_or_insert_default().image = Some(image));
}

fn phase(world: &World) -> RolloutPhase {
    world.status().rollout.unwrap_or_default().phase
}

/// Reconciles, lets pods settle, and again, until a phase is reached.
fn until(world: &mut World, wanted: RolloutPhase) {
    for _ in 0..12 {
        if phase(world) == wanted {
            return;
        }
        world.step();
        world.settle();
    }
    panic!("{wanted:?} is not reached: {:#?}", world.status().rollout);
}

/// A variable of the worker of a Deployment.
fn variable(world: &World, name: &str, variable: &str) -> Option<String> {
    let all = world.owned.deployments.iter().chain(&world.owned.previews);
    let found = all.into_iter().find(|d| d.metadata.name.as_deref() == Some(name))?;
    let worker = &found.spec.as_ref()?.template.spec.as_ref()?.containers[0];
    worker.env.iter().flatten().find(|e| e.name == variable)?.value.clone()
}

#[test]
fn a_preview_ends_with_all_else_where_a_host_is_not_allowed() {
    let mut world = running();
    asks_for(&mut world, "registry.example/mine:2");
    until(&mut world, RolloutPhase::Previewing);
    world.step();
    let asked =
        |world: &World| world.owned.previews.iter().map(|d| d.spec.as_ref().unwrap().replicas).collect::<Vec<_>>();
    assert_eq!(asked(&world), [Some(1)]);
    world.refused = Some(Problem::new("HostNotAllowed", "evil"));
    world.step();
    assert_eq!(asked(&world), [Some(0)]);
}

#[test]
fn a_preview_reads_copies_and_nothing_of_the_new_revision_is_on_the_source() {
    let mut world = running();
    let old = world.deployments();
    asks_for(&mut world, "registry.example/mine:2");
    until(&mut world, RolloutPhase::Previewing);
    let told: Vec<_> = world.step().events.into_iter().map(|notice| notice.reason).collect();
    assert!(told.contains(&"PreviewStarted".to_owned()) && !told.contains(&"RevisionStarted".to_owned()), "{told:?}");
    assert_eq!((world.deployments(), world.previews().len()), (old, 1));
    let preview = world.previews()[0].clone();
    assert_eq!(variable(&world, &preview, "DROVER_PREVIEW").as_deref(), Some("true"));
    assert_eq!(variable(&world, &preview, "DROVER_PREVIEW_PERCENT").as_deref(), Some("10"));
    assert_eq!(reason(&world, "WorkersReady"), "True Running", "the old one works as before");
    assert_eq!(reason(&world, "Progressing"), "True Previewing");
    let status = world.status();
    assert_eq!(preview, format!("p-{}-preview", status.preview_revision.unwrap()));
}

#[test]
fn the_new_revision_comes_first_by_priority_and_the_old_one_stays_until_it_is_proven() {
    let mut world = running();
    let old = world.deployments()[0].clone();
    asks_for(&mut world, "registry.example/mine:2");
    world.does = well();
    until(&mut world, RolloutPhase::Verifying);
    world.does = Evidence::default();
    world.step();
    let new = world.deployments().into_iter().find(|d| *d != old).unwrap();
    assert_eq!(world.previews(), [""; 0], "what was tried is not needed any more");
    assert_eq!(variable(&world, &new, "DROVER_CONSUMER_PRIORITY").as_deref(), Some("1"));
    assert_eq!(variable(&world, &old, "DROVER_CONSUMER_PRIORITY"), None);
    assert_eq!((world.replicas(&old), world.replicas(&new)), (1, 1));
    world.does = well();
    world.converge();
    assert_eq!(world.deployments(), [new]);
    assert_eq!((phase(&world), reason(&world, "Ready").as_str()), (RolloutPhase::Stable, "True Ready"));
}

#[test]
fn a_preview_that_waits_for_its_table_says_nothing_of_the_revision_that_works() {
    let mut world = running();
    asks_for(&mut world, "registry.example/mine:2");
    until(&mut world, RolloutPhase::Previewing);
    let labels = names::preview_labels("p", "b");
    let metadata = ObjectMeta { name: Some("p-1".to_owned()), labels: Some(labels), ..ObjectMeta::default() };
    world.owned.pods.push(Arc::new(Pod { metadata, ..Pod::default() }));
    world.workers = vec![holding("ColumnNotFound")];
    world.step();
    assert_eq!((reason(&world, "StoreReady"), reason(&world, "Ready")), ("True TableFits".into(), "True Ready".into()));
}

/// Ports that workers may go out to, beside that of DNS.
fn ports(world: &World) -> Vec<i32> {
    let policy = world.owned.network_policy.as_ref().and_then(|policy| policy.spec.clone()).unwrap();
    let rules = policy.egress.unwrap_or_default();
    let all = rules.into_iter().flat_map(|rule| rule.ports.unwrap_or_default());
    let numbers = all.filter_map(|port| match port.port {
        Some(IntOrString::Int(number)) if number != 53 => Some(number),
        _ => None,
    });
    numbers.collect()
}

#[test]
fn the_old_revision_can_reach_its_store_while_the_new_one_has_another() {
    let mut world = running();
    asks_for(&mut world, "registry.example/mine:2");
    world.secrets.as_mut().unwrap().sink_port = Some(6432);
    until(&mut world, RolloutPhase::Previewing);
    world.step();
    assert_eq!(ports(&world), [5671, 6432, 5671, 5432]);
    let calm = world.plan();
    assert!(calm.writes.is_empty(), "{calm:?}");
    world.does = well();
    world.converge();
    assert_eq!((phase(&world), ports(&world)), (RolloutPhase::Stable, vec![5671, 6432]));
}

#[test]
fn one_that_fails_on_the_source_goes_at_once_and_the_old_one_is_simply_there() {
    let mut world = running();
    let old = world.deployments()[0].clone();
    asks_for(&mut world, "registry.example/mine:2");
    world.does = well();
    until(&mut world, RolloutPhase::Verifying);
    let new = world.deployments().into_iter().find(|d| *d != old).unwrap();
    world.pod_works(&new, "bad", 200);
    world.does.preview.failed = 500;
    let plan = world.step();
    assert!(plan.status_first);
    assert_eq!(plan.deletes, [Doomed::Deployment(new), Doomed::PodNow("bad".to_owned())]);
    world.converge();
    assert_eq!((world.deployments(), phase(&world)), (vec![old], RolloutPhase::Aborted));
    assert_eq!(
        (reason(&world, "Ready").as_str(), reason(&world, "Stalled").as_str()),
        ("False RolloutAborted", "True RolloutAborted")
    );
    let calm = world.plan();
    assert!(calm.writes.is_empty() && calm.deletes.is_empty() && calm.events.is_empty(), "{calm:?}");
}

/// Somebody deletes the Deployment of the active revision while the new one was given up, waits for a person, or is tried.
fn elsewhere() -> [(World, RolloutPhase); 3] {
    let mut aborted = running();
    asks_for(&mut aborted, "registry.example/none:1");
    until(&mut aborted, RolloutPhase::Previewing);
    aborted.does.preview.restarts = 1;
    aborted.converge();
    let mut awaiting = running();
    awaiting.edit(|s| {
        s.rollout = serde_json::from_value(json!({"blueGreen": {"autoPromotionEnabled": false}})).unwrap();
    });
    asks_for(&mut awaiting, "registry.example/mine:2");
    awaiting.does = well();
    until(&mut awaiting, RolloutPhase::AwaitingPromotion);
    awaiting.converge();
    let mut previewing = running();
    asks_for(&mut previewing, "registry.example/mine:2");
    until(&mut previewing, RolloutPhase::Previewing);
    previewing.converge();
    [
        (aborted, RolloutPhase::Aborted),
        (awaiting, RolloutPhase::AwaitingPromotion),
        (previewing, RolloutPhase::Previewing),
    ]
}

#[test]
fn what_is_deleted_of_the_active_revision_is_made_again_while_the_spec_asks_for_another() {
    for (mut world, there) in elsewhere() {
        let before = world.owned.clone();
        world.owned.deployments.clear();
        (world.owned.service_account, world.owned.network_policy, world.owned.disruption_budget) = (None, None, None);
        let plan = world.step();
        let told: Vec<_> = plan.events.iter().map(|notice| notice.reason.as_str()).collect();
        assert_eq!((told, plan.writes.len(), phase(&world)), (vec!["Repaired"; 4], 4, there));
        world.converge();
        assert_eq!(world.owned.service_account, before.service_account);
        assert_eq!(world.owned.disruption_budget, before.disruption_budget);
        let spec =
            |owned: &Owned| owned.deployments.iter().map(|d| (d.metadata.labels.clone(), d.spec.clone())).collect();
        let (found, wanted): (Vec<_>, Vec<_>) = (spec(&world.owned), spec(&before));
        assert_eq!(found, wanted);
        assert_eq!((world.consuming_of_active(), phase(&world)), (1, there));
        assert!(world.plan().writes.is_empty(), "{:?}", world.plan().writes);
    }
}

#[test]
fn where_nothing_is_left_of_the_active_revision_that_the_new_one_is_ready_decides() {
    for (mut world, there) in elsewhere() {
        let active = world.status().active_revision.unwrap();
        world.owned.deployments.clear();
        world.owned.config_maps.retain(|c| !c.metadata.name.as_ref().unwrap().ends_with(&active));
        world.step();
        let state = world.status().rollout.unwrap();
        assert_eq!(state.reason, "ActiveGone", "{state:?}");
        if there == RolloutPhase::Aborted {
            assert_eq!(state.phase, there, "one that is known to be bad is not started without a word");
            world.object.metadata.annotations = Some([("drover.dev/retry".to_owned(), "1".to_owned())].into());
        } else {
            assert_eq!((state.phase, state.active), (RolloutPhase::Promoting, None));
        }
        world.does = well();
        world.converge();
        assert_eq!((phase(&world), world.deployments().len(), world.previews().len()), (RolloutPhase::Stable, 1, 0));
        assert_eq!(reason(&world, "Ready"), "True Ready");
        assert_ne!(world.status().active_revision, Some(active));
    }
}

#[test]
fn one_that_takes_over_stays_as_it_is_when_the_active_one_is_lost() {
    let mut world = running();
    asks_for(&mut world, "registry.example/mine:2");
    world.does = well();
    until(&mut world, RolloutPhase::Verifying);
    world.does = Evidence::default();
    let active = world.status().active_revision.unwrap();
    world.owned.deployments.retain(|d| !d.metadata.name.as_ref().unwrap().ends_with(&active));
    world.owned.config_maps.retain(|c| !c.metadata.name.as_ref().unwrap().ends_with(&active));
    let spec = world.owned.deployments[0].spec.clone();
    world.converge();
    assert_eq!((phase(&world), world.deployments().len()), (RolloutPhase::Stable, 1));
    assert_eq!(world.owned.deployments[0].spec, spec);
}

#[test]
fn a_template_that_is_not_what_the_name_says_is_not_used() {
    let (mut world, _) = elsewhere().into_iter().next().unwrap();
    world.owned.deployments.clear();
    let kept = Arc::make_mut(&mut world.owned.config_maps[0]).metadata.annotations.as_mut().unwrap();
    let text = kept.get_mut(names::TEMPLATE).unwrap();
    *text = text.replace("registry.example/drover-worker:1", "registry.example/other:1");
    assert!(world.step().writes.is_empty());
}

#[test]
fn a_bad_preview_costs_nothing_and_the_spec_that_runs_mends_it() {
    let mut world = running();
    let old = world.deployments();
    asks_for(&mut world, "registry.example/none:1");
    until(&mut world, RolloutPhase::Previewing);
    world.does.waiting_seconds = 600.0;
    world.does.preview.restarts = 1;
    world.converge();
    assert_eq!((phase(&world), world.deployments(), world.previews().len()), (RolloutPhase::Aborted, old.clone(), 0));
    assert_eq!(world.owned.config_maps.len(), 1);
    world.edit(|s| s.worker = None);
    world.converge();
    assert_eq!((world.deployments(), reason(&world, "Ready").as_str()), (old, "True Ready"));
}

#[test]
fn a_rotated_secret_waits_for_its_turn_and_is_not_previewed() {
    let mut world = running();
    world.step();
    world.turn = false;
    world.secrets.as_mut().unwrap().digest = "e".to_owned();
    world.step();
    assert_eq!((world.deployments().len(), reason(&world, "Progressing").as_str()), (1, "True WaitsForItsTurn"));
    world.turn = true;
    world.step();
    assert_eq!((world.deployments().len(), world.previews().len()), (2, 0));
}

#[test]
fn an_exclusive_takeover_waits_until_the_old_side_has_no_pod() {
    let mut world = running();
    world.edit(|s| {
        let rollout: RolloutSpec = serde_json::from_value(json!({"blueGreen": {"cutover": "Exclusive"}})).unwrap();
        s.rollout = Some(rollout);
        s.source.prefetch = Some(7);
    });
    let old = world.deployments()[0].clone();
    world.pod_works(&old, "last", 3);
    world.step();
    world.settle();
    world.step();
    assert_eq!((world.replicas(&old), world.deployments()), (0, vec![old]), "it still holds something");
    world.owned.pods.clear();
    world.step();
    assert_eq!(world.deployments().len(), 2);
    world.converge();
    assert_eq!(world.replicas(&world.deployments()[0]), 1);
}

#[test]
fn requests_by_annotation_are_answered_once() {
    let mut world = running();
    world.edit(|s| {
        s.rollout = serde_json::from_value(json!({"blueGreen": {"autoPromotionEnabled": false}})).unwrap();
    });
    asks_for(&mut world, "registry.example/mine:2");
    world.does = well();
    until(&mut world, RolloutPhase::AwaitingPromotion);
    let ask = |world: &mut World, what: &str, id: &str| {
        let annotations = world.object.metadata.annotations.get_or_insert_default();
        annotations.insert(format!("drover.dev/{what}"), id.to_owned());
        world.step();
    };
    ask(&mut world, "abort", "1");
    assert_eq!((phase(&world), world.status().handled_requests), (RolloutPhase::Aborted, vec!["1".to_owned()]));
    world.converge();
    ask(&mut world, "retry", "2");
    until(&mut world, RolloutPhase::AwaitingPromotion);
    ask(&mut world, "promote", "3");
    world.converge();
    assert_eq!(
        (phase(&world), world.status().handled_requests),
        (RolloutPhase::Stable, ["1", "2", "3"].map(str::to_owned).to_vec())
    );
}

/// Drives a rollout to its end; the operator dies at the write with this number, if there are so many. Gives the writes that there were.
fn drive(mut world: World, dies_at: usize) -> (World, usize) {
    let mut writes = 0;
    for _ in 0..60 {
        world.clock += Duration::from_secs(1);
        let plan = world.plan();
        let all = plan.writes.len() + usize::from(plan.status.is_some()) + plan.deletes.len();
        let alive = if (writes..writes + all).contains(&dies_at) { dies_at - writes } else { usize::MAX };
        world.act(&plan, alive);
        writes += all;
        world.settle();
    }
    (world, writes)
}

/// What counts in the end.
fn end(world: &World) -> (RolloutPhase, Vec<String>, Vec<String>, usize, Option<String>, i32) {
    let state = world.status().rollout.unwrap_or_default();
    (state.phase, world.deployments(), world.previews(), world.owned.config_maps.len(), state.active, state.priority)
}

#[test]
fn an_operator_that_dies_at_any_write_of_a_rollout_comes_to_the_same_end() {
    let mut failing = well();
    failing.preview.failed = 500;
    let ends = [(well(), well()), (failing, well()), (well(), failing)];
    let all = ends.into_iter().flat_map(|ends| [(ends, Cutover::Overlap), (ends, Cutover::Exclusive)]);
    for ((does, on_source), cutover) in all {
        let mut world = running();
        world.edit(|s| s.rollout.get_or_insert_default().blue_green.get_or_insert_default().cutover = Some(cutover));
        asks_for(&mut world, "registry.example/mine:2");
        (world.does, world.does_on_source) = (does, Some(on_source));
        let (whole, writes) = drive(world.clone(), usize::MAX);
        assert!(writes > 4, "{writes}");
        for dies_at in 0..writes {
            let (found, _) = drive(world.clone(), dies_at);
            assert_eq!(end(&found), end(&whole), "{cutover:?}, at write {dies_at} of {writes}");
        }
    }
}

/// A pipeline of which another revision is asked for, which fails on its preview or on the source.
fn fails(cutover: Cutover, redrive: bool, preview: Evidence, source: Evidence) -> World {
    let mut world = running();
    world.edit(|s| {
        let blue_green = json!({"blueGreen": {"cutover": cutover, "redriveOnAbort": redrive}});
        s.rollout = serde_json::from_value(blue_green).unwrap();
    });
    asks_for(&mut world, "registry.example/mine:2");
    (world.does, world.does_on_source) = (preview, Some(source));
    world
}

#[test]
fn dead_letters_of_a_revision_that_is_given_up_on_the_source_go_back_once_whenever_the_operator_dies() {
    let mut failing = well();
    failing.preview.failed = 500;
    for cutover in [Cutover::Overlap, Cutover::Exclusive] {
        let world = fails(cutover, true, well(), failing);
        let (whole, writes) = drive(world.clone(), usize::MAX);
        assert_eq!(whole.orders.len(), 1);
        for dies_at in 0..=writes {
            let (found, _) = drive(world.clone(), dies_at);
            let status = found.status();
            let (redrive, state) = (status.redrive.unwrap(), status.rollout.unwrap());
            assert_eq!(state.phase, RolloutPhase::Aborted);
            assert_eq!(redrive.of.map(|of| of.revision), state.aborted_revision);
            assert_eq!((redrive.redriven, redrive.finished_at.is_some(), state.redrives.len()), (3, true, 0));
            let ids: Vec<_> = found.orders.iter().map(|order| &order.id).collect();
            // One that died with its operator is begun again, and no other.
            assert!(ids.iter().all(|id| **id == redrive.id) && (1..=2).contains(&ids.len()), "{ids:?}");
        }
    }
}

#[test]
fn nothing_goes_back_unless_it_is_wanted_and_the_revision_was_on_the_source() {
    let mut failing = well();
    failing.preview.failed = 500;
    let unwanted = fails(Cutover::Overlap, false, well(), failing);
    let previewed = fails(Cutover::Overlap, true, failing, failing);
    let good = fails(Cutover::Overlap, true, well(), well());
    for world in [unwanted, previewed, good] {
        let (found, _) = drive(world, usize::MAX);
        assert_eq!((found.orders.len(), found.status().redrive), (0, None), "{:?}", found.status().rollout);
        assert_eq!(found.status().rollout.unwrap().on_source_since, None);
    }
}

/// Something that happens meanwhile.
#[derive(Debug, Clone)]
enum Event {
    Reconcile,
    Dies(usize),
    Settle,
    Image(u8),
    Prefetch(u16),
    Load(u32),
    Ask(&'static str),
    Does(Evidence),
    Deleted,
    HubGoes,
    HubComes,
}

fn event() -> impl Strategy<Value = Event> {
    let bad = |failed, restarts| {
        let mut does = well();
        (does.preview.failed, does.preview.restarts) = (failed, restarts);
        does
    };
    prop_oneof![
        6 => Just(Event::Reconcile),
        2 => (0_usize..6).prop_map(Event::Dies),
        4 => Just(Event::Settle),
        2 => (0_u8..3).prop_map(Event::Image),
        1 => (1_u16..3).prop_map(Event::Prefetch),
        2 => (1_u32..6).prop_map(Event::Load),
        1 => prop::sample::select(vec!["abort", "promote", "retry"]).prop_map(Event::Ask),
        3 => prop::sample::select(vec![well(), bad(500, 0), bad(0, 1), Evidence::default()]).prop_map(Event::Does),
        1 => Just(Event::Deleted),
        1 => Just(Event::HubGoes),
        1 => Just(Event::HubComes),
    ]
}

fn happen(world: &mut World, number: usize, event: &Event) {
    match event {
        Event::Reconcile => {
            world.step();
        }
        Event::Dies(writes) => {
            let plan = world.plan();
            world.act(&plan, *writes);
        }
        Event::Settle => world.settle(),
        Event::Image(n) => asks_for(world, &format!("registry.example/mine:{n}")),
        Event::Prefetch(n) => world.edit(|s| s.source.prefetch = Some(*n)),
        Event::Load(n) => world.decided(*n),
        Event::Ask(what) => {
            let annotations = world.object.metadata.annotations.get_or_insert_default();
            annotations.insert(format!("drover.dev/{what}"), number.to_string());
        }
        Event::Does(does) => world.does = *does,
        Event::Deleted => {
            let active = world.status().active_revision.map(|active| names::of_revision("p", &active));
            world.owned.deployments.retain(|d| d.metadata.name != active);
        }
        Event::HubGoes => world.hub_fails(),
        Event::HubComes => world.hub = World::new(spec()).hub,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_ends_at_the_newest_spec_or_at_an_abort_that_is_told(events in prop::collection::vec(event(), 0..60)) {
        let mut world = running();
        for (number, event) in events.iter().enumerate() {
            let before = world.consuming_of_active();
            let need = world.scale.map_or(1, |d| i32::try_from(d.desired).unwrap());
            happen(&mut world, number, event);
            if matches!(event, Event::Reconcile | Event::Dies(_)) {
                prop_assert!(world.consuming_of_active() >= need.min(before), "fewer consume than are needed after {:?}", event);
            }
            if matches!(event, Event::Reconcile) {
                let all = world.owned.deployments.iter().chain(&world.owned.previews);
                prop_assert!(all.filter(|d| d.metadata.deletion_timestamp.is_none()).count() <= 3);
            }
        }
        world.hub = World::new(spec()).hub;
        world.does = well();
        for _ in 0..4 {
            world.converge();
        }
        let state = world.status().rollout.unwrap();
        prop_assert_eq!((world.deployments().len(), world.previews().len(), world.owned.config_maps.len()), (1, 0, 1));
        match state.phase {
            RolloutPhase::Stable => prop_assert_eq!(reason(&world, "Ready"), "True Ready"),
            RolloutPhase::Aborted => {
                prop_assert!(state.aborted_revision.is_some() && state.aborted_revision != state.active);
                prop_assert_eq!(reason(&world, "Ready"), "False RolloutAborted");
            }
            other => prop_assert!(false, "{:?}", other),
        }
        prop_assert!(world.plan().writes.is_empty() && world.plan().deletes.is_empty());
    }
}
