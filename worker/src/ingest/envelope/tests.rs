//! Claims about what is published again.

use super::*;

fn sender() -> Sender {
    let identity = Identity { revision: "r1".into(), pod: "p1".into(), ..Identity::default() };
    Sender { identity, queue: "telemetry".into(), process: "me".into() }
}

fn delivery() -> Delivery {
    let mut headers = FieldTable::default();
    for name in ["CC", "BCC", "x-death", "x-first-death-queue", "x-last-death-reason", "x-acquired-count", "mine"] {
        headers.insert(name.into(), text("was here"));
    }
    headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(3));
    let mut delivery = Delivery::mock(1, "amq.topic".into(), "devices.7".into(), false, b"body".to_vec());
    delivery.properties = BasicProperties::default()
        .with_headers(headers)
        .with_expiration("2000".into())
        .with_user_id("device".into())
        .with_message_id("m1".into())
        .with_content_type("application/json".into())
        .with_priority(5)
        .with_type("reading".into())
        .with_timestamp(7)
        .with_delivery_mode(1);
    delivery
}

fn header(properties: &BasicProperties, name: &str) -> Option<String> {
    identity::header(properties.headers().as_ref().unwrap(), name).map(std::borrow::Cow::into_owned)
}

fn dead(delivery: &Delivery, error: &str) -> BasicProperties {
    let why = Rejection::sink("NotNullViolation", error.to_owned());
    dead_letter(&sender(), delivery, &why, "2026-01-02T03:04:05Z")
}

#[test]
fn what_the_broker_acts_upon_is_taken_off_and_kept_under_our_own_names() {
    for properties in [dead(&delivery(), "e"), returned(&sender(), &delivery())] {
        assert_eq!((properties.expiration(), properties.user_id()), (&None, &None));
        for name in [
            "CC",
            "BCC",
            "x-death",
            "x-first-death-queue",
            "x-last-death-reason",
            "x-delivery-count",
            "x-acquired-count",
        ] {
            assert_eq!(header(&properties, name), None, "{name}");
        }
        for (name, value) in [
            ("expiration", "2000"),
            ("user-id", "device"),
            ("cc", "was here"),
            ("bcc", "was here"),
            ("death", "was here"),
            ("first-death-queue", "was here"),
            ("last-death-reason", "was here"),
            ("delivery-count", "3"),
            ("acquired-count", "was here"),
            ("exchange", "amq.topic"),
            ("routing-key", "devices.7"),
            ("queue", "telemetry"),
        ] {
            assert_eq!(header(&properties, &format!("x-drover-original-{name}")).as_deref(), Some(value), "{name}");
        }
    }
}

#[test]
fn everything_else_stays() {
    let properties = returned(&sender(), &delivery());
    assert_eq!(header(&properties, "mine").as_deref(), Some("was here"));
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "m1");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "reading");
    assert_eq!((properties.priority(), properties.timestamp()), (&Some(5), &Some(7)));
    assert_eq!(properties.delivery_mode(), &Some(2));
}

#[test]
fn a_dead_letter_tells_what_happened() {
    let properties = dead(&delivery(), "column a is null");
    for (name, value) in [
        ("stage", "sink"),
        ("reason", "NotNullViolation"),
        ("error", "column a is null"),
        ("class", "content"),
        ("attempts", "1"),
        ("revision", "r1"),
        ("pod", "p1"),
        ("first-failure", "2026-01-02T03:04:05Z"),
        ("last-failure", "2026-01-02T03:04:05Z"),
        ("message-id", "m1"),
    ] {
        assert_eq!(header(&properties, &format!("x-drover-{name}")).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn an_error_is_cut_between_characters() {
    let error = header(&dead(&delivery(), &"é".repeat(3000)), "x-drover-error").unwrap();
    assert!(error.len() <= MAX_ERROR && error.chars().all(|c| c == 'é'));
}

#[test]
fn a_second_failure_counts_and_keeps_the_first() {
    let mut again = delivery();
    again.properties = dead(&again, "e");
    (again.exchange, again.routing_key) = ("telemetry.drover".into(), "return".into());
    let why = Rejection::sink("Other", "f");
    let properties = dead_letter(&sender(), &again, &why, "2026-02-02T00:00:00Z");
    assert_eq!(header(&properties, ATTEMPTS).as_deref(), Some("2"));
    assert_eq!(header(&properties, FIRST_FAILURE).as_deref(), Some("2026-01-02T03:04:05Z"));
    assert_eq!(origin(&again), ("amq.topic".to_owned(), "devices.7".to_owned()));
    assert_eq!(header(&properties, ORIGINAL_EXCHANGE).as_deref(), Some("amq.topic"));
}

#[test]
fn returns_are_counted() {
    let mut again = delivery();
    again.properties = returned(&sender(), &again);
    assert_eq!(header(&returned(&sender(), &again), RETURNED).as_deref(), Some("2"));
}

#[test]
fn a_redriven_message_has_no_attempts_and_is_no_first_delivery() {
    let mut again = delivery();
    again.properties = dead(&again, "e");
    (again.exchange, again.routing_key) = ("telemetry.drover".into(), "dead".into());
    let redriver = Sender { identity: Identity::default(), queue: "telemetry.dead".into(), process: String::new() };
    let properties = redriven(&redriver, &again);
    assert_eq!(header(&properties, ATTEMPTS).as_deref(), Some("0"));
    assert_eq!(header(&properties, ORIGINAL_QUEUE).as_deref(), Some("telemetry"));
    again.properties = properties;
    assert!(!identity::is_first(&again));
    assert_eq!(origin(&again), ("amq.topic".to_owned(), "devices.7".to_owned()));
}
