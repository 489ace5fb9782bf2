//! The redrive that an annotation asks for.

use std::collections::BTreeMap;

use super::{claims::running, model::World};
use crate::{names, pipeline::plan::Plan, redrive::Progress};

/// A running pipeline, of which a redrive is asked.
fn asked(id: &str) -> World {
    let mut world = running();
    world.object.metadata.annotations = Some(BTreeMap::from([(names::REDRIVE.to_owned(), id.to_owned())]));
    world
}

fn is_told(plan: &Plan) -> bool {
    plan.events.iter().any(|notice| notice.reason == "Redriven")
}

#[test]
fn a_redrive_is_ordered_once_and_its_end_is_told_once() {
    let mut world = asked("a");
    assert!(world.step().redrive.is_some());
    world.redrive = Some(Progress { id: "a".into(), redriven: 1, remaining: Some(2), end: None });
    let under_way = world.step();
    assert!(under_way.redrive.is_none() && !is_told(&under_way));
    world.redrive = Some(Progress { id: "a".into(), redriven: 3, remaining: Some(0), end: Some(Ok(())) });
    assert!(is_told(&world.step()));
    assert_eq!(world.status().handled_requests, ["a"]);
    let redrive = world.status().redrive.unwrap();
    assert_eq!((redrive.id.as_str(), redrive.redriven, redrive.remaining), ("a", 3, Some(0)));
    world.redrive = None;
    let after = world.step();
    assert!(after.redrive.is_none() && !is_told(&after), "a new operator does not do it again");
}

#[test]
fn an_operator_that_takes_over_goes_on_with_it() {
    let mut world = asked("a");
    world.step();
    world.redrive = None;
    assert!(world.step().redrive.is_some(), "nothing runs in this process");
}

#[test]
fn it_is_told_before_it_is_begun_and_waits_for_the_hub() {
    let mut world = asked("a");
    world.hub_fails();
    assert!(world.step().redrive.is_none());
    assert_eq!(world.status().redrive, None);
    world.hub = running().hub;
    let plan = world.plan();
    assert!(plan.redrive.is_some() && plan.status.is_some_and(|s| s.redrive.is_some()));
}

#[test]
fn how_far_it_is_alone_is_no_reason_to_write_at_once() {
    let mut world = asked("a");
    world.step();
    world.redrive = Some(Progress { id: "a".into(), redriven: 500, remaining: Some(2), end: None });
    world.status_age = Some(std::time::Duration::from_secs(1));
    assert_eq!(world.step().status, None);
    world.status_age = Some(std::time::Duration::from_secs(15));
    assert!(world.step().status.is_some());
}
