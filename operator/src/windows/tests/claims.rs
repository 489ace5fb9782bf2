//! What is decided of a query, as claims.

use drover_crds::api::{Delivery, Phase};
use serde_json::json;

use super::model::{COUNTS, SUMS, World, spec};
use crate::{
    pipeline::plan::Doomed,
    problem::{External, Problem},
};

fn yes(reason: &str) -> (String, String) {
    ("True".to_owned(), reason.to_owned())
}

fn no(reason: &str) -> (String, String) {
    ("False".to_owned(), reason.to_owned())
}

#[test]
fn a_query_runs_when_hub_and_store_are_ready() {
    let mut world = World::new(spec());
    world.converge();
    assert_eq!(world.live(), [(world.wanted(), 1)]);
    let status = world.status();
    assert_eq!((status.phase, status.delivery), (Some(Phase::Running), Some(Delivery::EffectivelyOnce)));
    assert_eq!(status.selector.as_deref(), Some("drover.dev/query=w"));
    assert_eq!(world.condition("Ready"), yes("Ready"));
    assert_eq!(world.condition("DataLoss"), no("NothingLost"));
    let plan = world.plan();
    assert!(plan.writes.is_empty() && plan.deletes.is_empty() && plan.status.is_none() && plan.events.is_empty());
}

#[test]
fn nothing_starts_before_the_version_has_its_rows() {
    let mut world = World::new(spec());
    world.rows.revisions.clear();
    world.step();
    assert!(world.live().is_empty(), "where it begins is not known yet");
    world.begin();
    world.step();
    assert_eq!(world.live().len(), 1);
}

#[test]
fn nothing_starts_while_hub_or_store_are_in_trouble_and_what_runs_goes_on() {
    for trouble in ["hub", "store"] {
        let fail = |world: &mut World| {
            let problem = Problem::new("Unreachable", "no answer");
            match trouble {
                "hub" => world.hub = External::Problem(problem),
                _ => world.store = Some(problem),
            }
        };
        let mut world = World::new(spec());
        fail(&mut world);
        world.step();
        assert!(world.live().is_empty(), "{trouble}");
        assert_eq!(world.status().phase, Some(Phase::Waiting), "{trouble}");
        let mut world = World::new(spec());
        world.converge();
        fail(&mut world);
        world.converge();
        assert_eq!(world.live(), [(world.wanted(), 1)], "{trouble}");
        assert_eq!(world.status().phase, Some(Phase::Holding), "{trouble}");
        assert_eq!(world.condition("DataLoss"), no("NothingLost"), "what was told stays: {trouble}");
    }
}

#[test]
fn a_refused_spec_touches_nothing_that_runs() {
    let mut world = World::new(spec());
    world.converge();
    let before = world.live();
    world.edit(|s| s.query = "SELECT FROM".to_owned());
    world.step();
    assert_eq!(world.live(), before);
    assert_eq!(world.condition("Accepted"), no("InvalidQuery"));
    assert_eq!(world.condition("Stalled"), yes("InvalidQuery"));
}

#[test]
fn another_image_works_on_the_same_version_and_the_old_revision_ends() {
    let mut world = World::new(spec());
    world.converge();
    let (state, active) = (world.wanted(), world.status().active_revision);
    world.edit(|s| s.worker.get_or_insert_default().image = Some("registry.example/other:2".to_owned()));
    assert_eq!(world.wanted(), state);
    world.step();
    assert_eq!(world.live().len(), 2, "the old one works until the new one does");
    world.converge();
    assert_eq!(world.live().len(), 1);
    assert_ne!(world.status().active_revision, active);
}

#[test]
fn another_text_is_another_version_and_both_work_until_the_boundary() {
    let mut world = World::new(spec());
    world.converge();
    let old = world.wanted();
    world.edit(|s| s.query = SUMS.to_owned());
    let new = world.wanted();
    world.step();
    assert_eq!(world.live().len(), 1, "it begins only once it is staged and has rows");
    assert_eq!(world.condition("Progressing"), yes("RevisionWaiting"));
    world.begin();
    world.emits(&old, &new, None, false);
    world.converge();
    assert_eq!(world.states(), [old.clone(), new.clone()].into());
    assert_eq!(world.condition("Progressing"), yes("CatchingUp"));
    world.emits(&old, &new, Some(70_000_000), false);
    world.converge();
    assert_eq!(world.states(), [old.clone(), new.clone()].into(), "the old one has ends left to emit");
    assert_eq!(world.condition("Progressing"), yes("TakingOver"));
    assert!(
        crate::condition::find(&world.status().conditions, "Progressing")
            .unwrap()
            .message
            .contains("1970-01-01T00:00:07Z")
    );
    world.emits(&old, &new, Some(70_000_000), true);
    world.converge();
    assert_eq!(world.states(), [new.clone()].into());
    world.rows.revisions.retain(|r| *r == new);
    world.emits("", &new, Some(70_000_000), true);
    world.converge();
    assert_eq!((world.condition("Ready"), world.condition("Progressing").0), (yes("Ready"), "False".to_owned()));
    assert_eq!(world.owned.config_maps.len(), 1);
}

#[test]
fn a_text_that_must_not_take_over_stalls_until_it_does_or_is_put_right() {
    let (mut world, old, new) = World::with_another_text();
    world.emits(&old, &new, None, false);
    world.reads(&new, 10, 990);
    world.converge();
    let told = |world: &World| ["Ready", "Stalled", "Reconciling"].map(|type_| world.condition(type_));
    let refused = [no("TooManyErrors"), yes("TooManyErrors"), no("Settled")];
    assert_eq!((told(&world), world.status().phase), (refused, Some(Phase::Running)));
    assert_eq!(world.states(), [old.clone(), new.clone()].into(), "both work, the one before emits");
    world.edit(|s| s.suspend = Some(true));
    world.converge();
    assert_eq!(world.status().phase, Some(Phase::Suspended));
    world.edit(|s| s.suspend = None);
    world.converge();
    world.promote("1");
    assert!(world.step().answers.is_empty(), "it waits until the version takes over");
    world.emits(&old, &new, Some(7), false);
    assert_eq!(world.step().answers, ["1"]);
    world.converge();
    assert_eq!(told(&world), [yes("Ready"), no("NotStalled"), yes("RevisionChanging")], "it takes over after all");
    world.emits(&old, &new, None, false);
    world.edit(|s| s.query = COUNTS.to_owned());
    world.converge();
    assert_eq!(told(&world), [yes("Ready"), no("NotStalled"), no("Settled")], "it is put right");
}

#[test]
fn a_change_of_mind_before_the_boundary_ends_only_what_was_new() {
    let (mut world, old, new) = World::with_another_text();
    world.emits(&old, &new, None, false);
    world.converge();
    world.edit(|s| s.query = COUNTS.to_owned());
    world.converge();
    assert_eq!(world.states(), [old].into());
    assert_eq!(world.status().phase, Some(Phase::Running));
}

#[test]
fn a_request_to_promote_is_for_the_text_that_it_was_made_for() {
    let (mut world, old, second) = World::with_another_text();
    world.emits(&old, &second, None, false);
    world.promote("1");
    world.converge();
    assert!(world.snapshot().promoted());
    let waits = world.status().promotion.expect("it waits");
    assert_eq!((&*waits.id, &*waits.version), ("1", &*second));
    world.edit(|s| s.query = SUMS.replace("10", "20"));
    let plan = world.step();
    assert!(plan.events.iter().any(|e| e.reason == "PromotionLapsed"), "{:?}", plan.events);
    assert!(!world.snapshot().promoted());
    assert_eq!((world.status().promotion, world.status().handled_requests), (None, vec!["1".to_owned()]));
    assert!(world.step().events.iter().all(|e| e.reason != "PromotionLapsed"), "told once");
    world.promote("2");
    assert!(world.snapshot().promoted(), "asked anew");
}

#[test]
fn while_the_store_is_not_seen_no_version_ends() {
    let (mut world, old, new) = World::with_another_text();
    world.emits(&old, &new, Some(7), true);
    world.step();
    world.settle();
    world.store = Some(Problem::new("Unreachable", "store: no answer"));
    let plan = world.plan();
    assert!(!plan.deletes.iter().any(|d| matches!(d, Doomed::Deployment(_))), "{:?}", plan.deletes);
}

#[test]
fn suspend_ends_all_workers_and_nothing_else() {
    let mut world = World::new(spec());
    world.converge();
    world.edit(|s| s.suspend = Some(true));
    world.converge();
    assert_eq!(world.live(), [(world.wanted(), 0)]);
    assert_eq!((world.status().phase, world.condition("WorkersReady")), (Some(Phase::Suspended), yes("Suspended")));
    world.edit(|s| s.suspend = None);
    world.converge();
    assert_eq!(world.live(), [(world.wanted(), 1)]);
}

#[test]
fn what_is_decided_is_done_and_recommendations_are_not() {
    let mut world = World::new(spec());
    world.decided(3);
    world.converge();
    assert_eq!(world.live(), [(world.wanted(), 3)]);
    assert_eq!(world.status().scale.unwrap().desired, 3);
    world.decided(0);
    world.converge();
    assert_eq!((world.live(), world.status().phase), (vec![(world.wanted(), 0)], Some(Phase::Running)));
    world.scale = None;
    world.converge();
    assert_eq!(world.live(), [(world.wanted(), 0)], "not decided yet: what is there stays");
    let mut world = World::new(spec());
    world.decided(3);
    world.edit(|s| s.scaling.as_mut().unwrap().mode = Some(drover_crds::api::ScalingMode::Recommend));
    world.converge();
    assert_eq!((world.live(), world.status().scale.unwrap().desired), (vec![(world.wanted(), 1)], 3));
}

#[test]
fn a_loss_is_told_for_a_day_with_an_event_each_time() {
    let mut world = World::new(spec());
    world.converge();
    let now = world.clock.as_second();
    (world.rows.partitions[0].lost, world.rows.partitions[0].lost_at) = (3, Some(now));
    let plan = world.step();
    assert_eq!(world.condition("DataLoss"), yes("MessagesLost"));
    assert!(plan.events.iter().any(|e| e.warning && e.reason == "MessagesLost"), "{:?}", plan.events);
    assert!(world.step().events.is_empty(), "once");
    world.rows.partitions[0].lost = 4;
    assert!(world.step().events.iter().any(|e| e.reason == "MessagesLost"));
    world.rows.partitions[0].lost_at = Some(now - 25 * 3600);
    world.step();
    assert_eq!(world.condition("DataLoss"), no("NothingLost"));
    assert_eq!(world.condition("Ready"), yes("Ready"), "what is lost is lost: nothing waits for a person");
}

#[test]
fn messages_that_say_nothing_of_their_arrival_or_end_workers_are_told() {
    let mut world = World::new(spec());
    world.rows.partitions[0].without_arrival = 5;
    world.converge();
    assert_eq!(world.condition("InputSound"), no("ArrivalMissing"));
    world.rows.partitions[0].skipped = 1;
    world.converge();
    assert_eq!(world.condition("InputSound"), no("MessagesPassedOver"));
}

#[test]
fn where_workers_hold_tells_the_condition() {
    for (stage, condition) in [
        ("store", "StoreReady"),
        ("close", "StoreReady"),
        ("hub", "HubReady"),
        ("tick", "HubReady"),
        ("relay", "DeadLetterSafe"),
    ] {
        let mut world = World::new(spec());
        world.converge();
        world.holds(stage, "Whatever");
        world.step();
        assert_eq!(world.condition(condition), no("Whatever"), "{stage}");
        assert_eq!(world.status().phase, Some(Phase::Holding), "{stage}");
    }
}

#[test]
fn what_somebody_deleted_is_made_again() {
    let mut world = World::new(spec());
    world.converge();
    world.owned.config_maps.clear();
    world.owned.network_policy = None;
    let plan = world.step();
    assert_eq!(plan.events.iter().filter(|e| e.reason == "Repaired").count(), 2, "{:?}", plan.events);
    assert!(world.owned.network_policy.is_some() && world.owned.config_maps.len() == 1);
}

#[test]
fn results_to_the_hub_are_at_least_once() {
    let mut spec = spec();
    spec["sink"] = json!({"hub": {"exchange": "x"}});
    let mut world = World::new(spec);
    world.converge();
    assert_eq!(world.status().delivery, Some(Delivery::AtLeastOnce));
}

#[test]
fn a_host_that_is_not_allowed_ends_every_worker_and_deletes_nothing() {
    let mut world = World::new(spec());
    world.converge();
    let state = world.wanted();
    world.refused = Some(Problem::new("HostNotAllowed", "evil"));
    let plan = world.step();
    assert!(plan.deletes.is_empty());
    assert_eq!(world.live(), [(state.clone(), 0)]);
    assert_eq!((world.condition("Accepted"), world.status().phase), (no("HostNotAllowed"), Some(Phase::Refused)));
    assert!(world.step().writes.is_empty(), "once");
    world.refused = None;
    world.converge();
    assert_eq!(world.live(), [(state, 1)]);
}
