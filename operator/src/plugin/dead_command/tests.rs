use std::collections::BTreeMap;

use super::*;

fn letter(position: u64, reason: &str) -> Letter {
    Letter {
        position,
        id: Some(format!("m{position}")),
        reason: reason.to_owned(),
        stage: Some("sink".to_owned()),
        error: Some(
            "column \u{1b}[2Jx is missing, and the sentence that says so is far longer than any table is wide"
                .to_owned(),
        ),
        attempts: None,
        revision: Some("abc".to_owned()),
        last_failure: Some("2026-01-02T11:00:00Z".parse().unwrap()),
        exchange: Some("amq.topic".to_owned()),
        routing_key: Some("iot.1".to_owned()),
        bytes: 12,
        headers: BTreeMap::from([("tenant".to_owned(), "a".to_owned())]),
        body: Some("{\"v\":1}".to_owned()),
        body_base64: None,
    }
}

fn seen() -> Look {
    Look {
        letters: vec![letter(1, "NotJson"), letter(3, "ColumnMissing")],
        depth: 10,
        looked: 5,
        reasons: BTreeMap::from([("NotJson".to_owned(), 1), ("ColumnMissing".to_owned(), 3)]),
    }
}

fn now() -> Timestamp {
    "2026-01-02T12:00:00Z".parse().unwrap()
}

#[test]
fn letters_are_a_table_that_a_terminal_survives() {
    insta::assert_snapshot!(list(&seen(), Output::Table, now()).unwrap());
    insta::assert_snapshot!(list(&seen(), Output::Wide, now()).unwrap());
    assert_eq!(summary(&seen()), "2 shown, 4 match: 3 ColumnMissing, 1 NotJson; looked at 5 of 10");
}

#[test]
fn one_is_shown_whole() {
    let one = Look { letters: vec![letter(1, "NotJson")], ..seen() };
    insta::assert_snapshot!(show(&one, Output::Table).unwrap());
}

#[test]
fn machines_get_json_and_yaml() {
    let json: serde_json::Value = serde_json::from_str(&list(&seen(), Output::Json, now()).unwrap()).unwrap();
    assert_eq!((&json[1]["position"], &json[1]["routingKey"]), (&3.into(), &"iot.1".into()));
    assert!(show(&seen(), Output::Yaml).unwrap().contains("reason: ColumnMissing"));
}

#[test]
fn a_run_says_what_it_did_or_would_do() {
    let report = Report { depth: 10, looked: 10, matched: 4, done: 4 };
    let dry = Pace { dry_run: true, ..Pace::default() };
    assert_eq!(outcome(&report, &dry, "redriven"), "4 would be redriven: looked at 10 of 10 (dry run)");
    assert_eq!(outcome(&report, &Pace::default(), "redriven"), "4 redriven: looked at 10 of 10, 6 left");
}
