//! Claims about the way of suspects.

use lapin::BasicProperties;

use super::*;
use crate::settings::Identity;

fn sender(process: &str, revision: &str) -> Sender {
    let identity = Identity { revision: revision.to_owned(), ..Identity::default() };
    Sender { identity, queue: "q".to_owned(), process: process.to_owned() }
}

fn suspicion(role: Role) -> Suspicion {
    Suspicion { active: true, role, retry: Retry { attempts: 2, initial_seconds: 1, max_seconds: 300 } }
}

fn delivery(redelivered: bool) -> Delivery {
    Delivery::mock(1, "e".into(), "k".into(), redelivered, Vec::new())
}

/// As it comes from the queue that it was published to.
fn after(sender: &Sender, before: &Delivery, way: Way) -> Delivery {
    let Way::Transfer(Transfer { mark, .. }) = way else { panic!("{way:?}") };
    let mut next = delivery(false);
    next.properties = envelope::transferred(sender, before, &mark, None, "2026-01-02T03:04:05Z");
    next
}

fn key(way: &Way) -> &str {
    match way {
        Way::Process => "process",
        Way::Transfer(to) => &to.key,
        Way::Dead(why) => why.reason,
    }
}

#[test]
fn only_what_was_in_flight_goes_to_the_next_step() {
    let me = sender("me", "r");
    for (role, next) in [(Role::Main, "suspects-1"), (Role::Suspects1, "suspects-2")] {
        assert_eq!(suspicion(role).way(&me, &delivery(false), None), Way::Process);
        assert_eq!(key(&suspicion(role).way(&me, &delivery(true), None)), next);
    }
    let mut counted = delivery(false);
    let mut headers = lapin::types::FieldTable::default();
    headers.insert("x-delivery-count".into(), lapin::types::AMQPValue::LongLongInt(1));
    counted.properties = BasicProperties::default().with_headers(headers);
    assert_eq!(key(&suspicion(Role::Main).way(&me, &counted, None)), "suspects-1");
    let off = Suspicion { active: false, ..suspicion(Role::Main) };
    assert_eq!(off.way(&me, &delivery(true), None), Way::Process);
}

#[test]
fn each_start_at_the_last_step_is_written_down_first_and_past_the_last_it_is_dead() {
    let (suspicion, mut at) = (suspicion(Role::Suspects2), delivery(false));
    for process in ["a", "b"] {
        let sender = sender(process, "r");
        let way = suspicion.way(&sender, &at, None);
        assert_eq!(key(&way), "suspects-2");
        at = after(&sender, &at, way);
        assert_eq!(suspicion.way(&sender, &at, None), Way::Process);
        at.redelivered = true;
    }
    assert_eq!(key(&suspicion.way(&sender("c", "r"), &at, None)), "KilledWorker");
    assert_eq!(
        key(&suspicion.way(&sender("c", "another"), &at, None)),
        "suspects-2",
        "under another revision none counts"
    );
}

#[test]
fn a_lost_connection_of_a_process_that_is_alive_is_no_start() {
    let (suspicion, me) = (suspicion(Role::Suspects2), sender("me", "r"));
    let mut at = after(&me, &delivery(true), suspicion.way(&me, &delivery(true), None));
    at.redelivered = true;
    assert_eq!(suspicion.way(&me, &at, None), Way::Process);
}

#[test]
fn a_handler_that_dies_at_the_last_step_leaves_the_next_start_to_be_written() {
    let (suspicion, me) = (suspicion(Role::Suspects2), sender("me", "r"));
    let mut at = delivery(false);
    for _ in 0..2 {
        at = after(&me, &at, suspicion.way(&me, &at, None));
        assert_eq!(suspicion.way(&me, &at, None), Way::Process);
        at = after(&me, &at, Way::Transfer(suspicion.suspect(Some("OOMKilled".to_owned()))));
    }
    let Way::Dead(why) = suspicion.way(&me, &at, None) else { panic!() };
    assert!(why.error.ends_with("OOMKilled"), "{}", why.error);
    let Way::Dead(why) = suspicion.way(&me, &at, Some("handler: exit code 139")) else { panic!() };
    assert!(why.error.ends_with("last exit: OOMKilled; handler: exit code 139"), "{}", why.error);
    assert_eq!(envelope::attempts(&me, &at), 2);
}

#[test]
fn passing_failures_wait_longer_each_time_and_end_as_dead_letters() {
    let (suspicion, me) = (suspicion(Role::Main), sender("me", "r"));
    let why = || Rejection::transform("HandlerBusy", "503");
    let first = suspicion.failed(&me, &delivery(false), why(), 0);
    assert_eq!(key(&first), "delay-1");
    assert_eq!(key(&suspicion.failed(&me, &delivery(false), why(), 7)), "delay-8");
    let at = after(&me, &delivery(false), first);
    let Way::Dead(why) = suspicion.failed(&me, &at, why(), 0) else { panic!() };
    assert_eq!(why.class, Class::Passing);
}

#[test]
fn a_start_that_was_written_down_counts_once() {
    let (suspicion, me) = (suspicion(Role::Suspects2), sender("me", "r"));
    let at = after(&me, &delivery(false), suspicion.way(&me, &delivery(false), None));
    let way = suspicion.failed(&me, &at, Rejection::transform("HandlerBusy", "503"), 0);
    assert_eq!(key(&way), "delay-1");
    assert_eq!(envelope::attempts(&me, &after(&me, &at, way)), 1);
}
