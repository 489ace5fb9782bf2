//! What is promised of the number of workers, as far as plans go: decisions are taken as they come.

use drover_crds::api::{ScaleStatus, ScalingMode};

use super::{
    claims::{reason, running},
    model::World,
};
use crate::{
    names,
    scaling::{Decision, Numbers, Reason},
};

fn auto(desired: u32) -> World {
    let mut world = running();
    world.decided(desired);
    world.converge();
    world
}

#[test]
fn a_decision_changes_replicas_of_the_active_revision_alone_and_says_why() {
    let mut world = running();
    let before = world.deployments();
    let spec = world.object.spec.clone();
    world.decided(7);
    world.scale.as_mut().unwrap().numbers =
        Numbers { arrival_rate: Some(500.0), lag: Some(0.25), ..Numbers::default() };
    let plan = world.step();
    assert_eq!((world.deployments(), world.replicas(&before[0])), (before, 7));
    assert_eq!(plan.writes.len(), 1);
    let told = &plan.events[0];
    assert_eq!((&*told.reason, &*told.note), ("Scaled", "replicas 1 → 7: Load (500.0/s arrive, lag 0.2 s)"));
    assert_eq!(world.object.spec.source, spec.source, "a person's spec is not written");
    world.settle();
    assert!(world.step().writes.is_empty());
}

#[test]
fn from_zero_and_to_zero_it_is_ready_all_the_while() {
    let mut world = auto(0);
    assert_eq!((world.replicas(&world.deployments()[0]), &*reason(&world, "Ready")), (0, "True Ready"));
    world.decided(1);
    world.step();
    assert_eq!(world.replicas(&world.deployments()[0]), 1);
    world.converge();
    assert_eq!(reason(&world, "WorkersReady"), "True Running");
}

#[test]
fn while_nothing_is_decided_what_runs_stays() {
    let mut world = auto(6);
    world.scale = None;
    assert!(world.step().writes.is_empty());
    world.edit(|s| s.scaling.as_mut().unwrap().max_replicas = Some(4));
    world.step();
    assert_eq!(world.replicas(&world.deployments()[0]), 4, "bounds hold all the same");
}

#[test]
fn the_first_revision_starts_with_what_must_be_there_at_least() {
    let mut world = World::new(super::model::spec());
    world.edit(|s| {
        let scaling = s.scaling.get_or_insert_default();
        (scaling.mode, scaling.min_replicas) = (Some(ScalingMode::Auto), Some(2));
    });
    world.step();
    assert_eq!(world.replicas(&world.deployments()[0]), 2);
}

#[test]
fn suspend_wins_over_any_decision() {
    let mut world = auto(6);
    world.edit(|s| s.suspend = Some(true));
    world.decided(9);
    world.converge();
    assert_eq!(world.replicas(&world.deployments()[0]), 0);
    assert_eq!(world.status().scale.map(|s| (s.desired, s.reason)), Some((0, "Suspended".to_owned())));
}

#[test]
fn off_and_recommend_run_what_a_person_says_and_recommend_reports_the_rest() {
    let mut world = auto(6);
    world.edit(|s| {
        let scaling = s.scaling.as_mut().unwrap();
        (scaling.mode, scaling.replicas) = (Some(ScalingMode::Off), Some(3));
    });
    world.converge();
    assert_eq!(world.replicas(&world.deployments()[0]), 3);
    world.edit(|s| s.scaling.as_mut().unwrap().mode = Some(ScalingMode::Recommend));
    let plan = world.step();
    assert!(plan.writes.is_empty());
    assert_eq!(plan.events[0].reason, "Recommended");
    assert_eq!(world.status().scale.map(|s| s.desired), Some(6));
}

#[test]
fn a_revision_that_starts_has_the_size_of_the_one_that_it_follows_and_both_follow_the_load() {
    let mut world = auto(5);
    let old = world.deployments()[0].clone();
    world.edit(|s| s.source.prefetch = Some(7));
    world.step();
    let new = world.deployments().into_iter().find(|d| *d != old).unwrap();
    assert_eq!((world.replicas(&old), world.replicas(&new)), (5, 5));
    world.decided(8);
    world.step();
    assert_eq!((world.replicas(&old), world.replicas(&new)), (8, 8));
    world.converge();
    assert_eq!(world.deployments(), [new]);
}

#[test]
fn the_old_revision_follows_the_load_also_while_the_new_one_waits_for_the_hub() {
    let mut world = auto(5);
    let old = world.deployments();
    world.hub_fails();
    world.edit(|s| s.source.prefetch = Some(7));
    world.decided(8);
    world.step();
    assert_eq!((world.replicas(&old[0]), world.deployments()), (8, old));
}

#[test]
fn busy_pods_are_marked_before_some_go_and_only_then() {
    let mut world = auto(3);
    let name = world.deployments()[0].clone();
    for (pod, in_flight) in [("a", 0), ("b", 2), ("c", 1)] {
        world.pod_works(&name, pod, in_flight);
    }
    world.decided(4);
    assert!(world.plan().marks.is_empty());
    world.decided(2);
    let plan = world.plan();
    let marks: Vec<(&str, &str)> = plan.marks.iter().map(|mark| (&*mark.pod, &*mark.value)).collect();
    assert_eq!(marks, [("b", "2"), ("c", "1")]);
    assert!(plan.marks.iter().all(|mark| mark.annotation == "controller.kubernetes.io/pod-deletion-cost"));
    world.decided(0);
    assert!(world.plan().marks.is_empty(), "all go");
}

#[test]
fn a_sink_that_is_the_limit_is_a_condition_and_an_event_once() {
    let mut world = auto(5);
    world.scale = Some(Decision { desired: 5, reason: Reason::SinkLimited, sink_limited: true, ..Decision::default() });
    let plan = world.step();
    assert!(plan.events.iter().any(|e| e.reason == "SinkLimited" && e.warning));
    assert_eq!(reason(&world, "SinkLimited"), "True MoreReplicasDoNotHelp");
    assert_eq!(reason(&world, "Ready"), "True Ready");
    assert!(world.step().events.is_empty());
}

#[test]
fn a_new_number_of_workers_is_told_at_once_and_numbers_with_the_others() {
    let mut world = auto(5);
    let write = |world: &mut World, rate, desired, reason, seconds| {
        let numbers = Numbers { arrival_rate: Some(rate), ..Numbers::default() };
        world.scale = Some(Decision { desired, reason, numbers, sink_limited: false });
        world.status_age = Some(std::time::Duration::from_secs(seconds));
        world.plan().status.is_some()
    };
    assert!(write(&mut world, 100.0, 5, Reason::Load, 15));
    world.step();
    assert!(!write(&mut world, 109.0, 5, Reason::Load, 60));
    assert!(!write(&mut world, 200.0, 5, Reason::Cooldown, 14));
    assert!(write(&mut world, 100.0, 5, Reason::Cooldown, 15));
    assert!(write(&mut world, 100.0, 6, Reason::Load, 1));
    let told =
        ScaleStatus { arrival_rate: Some(100.0), desired: 5, reason: "Load".to_owned(), ..ScaleStatus::default() };
    assert_eq!(world.status().scale, Some(told));
    assert_eq!(names::selector("p"), world.status().selector.unwrap());
}

#[test]
fn a_lag_that_was_told_stays_in_the_history_which_is_no_news_of_its_own() {
    let mut world = auto(5);
    let told = |world: &mut World, lag, seconds| {
        let numbers = Numbers { lag: Some(lag), ..Numbers::default() };
        world.scale = Some(Decision { desired: 5, reason: Reason::Load, numbers, sink_limited: false });
        world.status_age = Some(std::time::Duration::from_secs(seconds));
        world.step().status.is_some()
    };
    assert!(told(&mut world, 1.0, 15));
    assert!(!told(&mut world, 1.05, 60), "it would be another entry");
    assert!(!told(&mut world, 3.0, 14));
    assert!(told(&mut world, 3.0, 15));
    let history = world.status().scale.unwrap().lag_history;
    assert_eq!(history.iter().map(|lag| lag.seconds).collect::<Vec<_>>(), [1.0, 3.0]);
}
