//! Claims about fields, columns and groups.

use std::collections::BTreeMap;

use drover_crds::api::SecretRef;

use super::*;
use crate::{ingest::decode, store::table::Kind};

fn column(name: &str, default: bool) -> Column {
    Column {
        name: name.into(),
        base_type: "text".into(),
        full_type: "text".into(),
        kind: Kind::Text,
        not_null: false,
        default,
        generated: name == "made",
        ordered: true,
        select: true,
        insert: true,
        update: true,
    }
}

fn shape() -> TableShape {
    let columns = ["message_id", "deviceid", "pref", "note", "made"].map(|name| column(name, name == "note")).into();
    let name = "public.t".into();
    TableShape { name, user: String::new(), ordinary: true, read_only: false, columns, unique: Vec::new() }
}

fn sink() -> PostgresSink {
    PostgresSink {
        secret_ref: SecretRef { name: String::new(), keys: BTreeMap::new() },
        table: "t".into(),
        mode: None,
        columns: BTreeMap::from([("pref".to_owned(), "$.payloads.pref".to_owned())]),
        id_column: Some("message_id".into()),
        key: None,
        order_by: None,
        unknown_fields: None,
    }
}

type Texts = Vec<Option<String>>;

fn texts(row: &Row<'_>) -> Texts {
    row.cells.iter().map(|cell| cell.as_text().map(str::to_owned)).collect()
}

fn row(sink: &PostgresSink, body: &str, id: Option<&'static str>) -> Result<(Texts, u64), &'static str> {
    let fields = decode::fields(body).unwrap();
    let layout = Layout::new(&shape(), sink);
    layout.row(0, &fields, id.map(Cow::Borrowed)).map(|(row, unknown)| (texts(&row), unknown)).map_err(|r| r.reason)
}

fn some(values: [&str; 4]) -> Texts {
    values.into_iter().map(|v| (!v.is_empty()).then(|| v.to_owned())).collect()
}

#[test]
fn fields_go_to_columns_by_path_then_by_name_in_any_case() {
    let body = r#"{"deviceId":"d","payloads":{"pref":"13","x":1},"pref":"not this","note":"n"}"#;
    assert_eq!(row(&sink(), body, Some("m")), Ok((some(["m", "d", "13", "n"]), 1)));
    let both = r#"{"deviceId":"folded","deviceid":"exact","DEVICEID":"folded"}"#;
    assert_eq!(row(&sink(), both, Some("m")).unwrap().0, some(["m", "exact", "", ""]));
}

#[test]
fn the_id_column_takes_the_id_and_no_field() {
    let body = r#"{"message_id":"forged","deviceId":"d"}"#;
    assert_eq!(row(&sink(), body, Some("m")), Ok((some(["m", "d", "", ""]), 0)));
    assert_eq!(row(&sink(), body, None), Err("NoId"));
}

#[test]
fn unknown_fields_are_counted_or_refused() {
    let body = r#"{"deviceId":"d","a":1,"made":2}"#;
    assert_eq!(row(&sink(), body, Some("m")).unwrap().1, 2);
    let strict = PostgresSink { unknown_fields: Some(UnknownFields::DeadLetter), ..sink() };
    assert_eq!(row(&strict, body, Some("m")), Err("UnknownField"));
    assert_eq!(row(&strict, r#"{"payloads":{}}"#, Some("m")), Ok((some(["m", "", "", ""]), 0)));
}

#[test]
fn a_row_without_anything_is_refused() {
    let sink = PostgresSink { id_column: None, ..sink() };
    assert_eq!(row(&sink, r#"{"a":1}"#, None), Err("NoFields"));
    assert_eq!(row(&sink, r#"{"note":null}"#, None), Ok((some(["", "", "", ""]), 0)));
}

#[test]
fn upsert_needs_key_and_order() {
    let sink = PostgresSink {
        mode: Some(PostgresMode::Upsert),
        id_column: None,
        key: Some(vec!["deviceId".into()]),
        order_by: Some("pref".into()),
        ..sink()
    };
    assert!(row(&sink, r#"{"deviceId":"d","payloads":{"pref":1}}"#, None).is_ok());
    for body in [r#"{"deviceId":"d"}"#, r#"{"payloads":{"pref":1}}"#, r#"{"deviceId":null,"payloads":{"pref":1}}"#] {
        assert_eq!(row(&sink, body, None), Err("NoKey"), "{body}");
    }
}

#[test]
fn rows_are_grouped_by_what_they_leave_to_defaults() {
    let layout = Layout::new(&shape(), &sink());
    let bodies = [r#"{"deviceId":"1"}"#, r#"{"note":null}"#, r#"{"payloads":{"pref":"p"}}"#, r#"{"note":"n"}"#];
    let fields: Vec<_> = bodies.iter().map(|b| decode::fields(b).unwrap()).collect();
    let rows: Vec<_> = fields.iter().map(|f| layout.row(0, f, Some("m".into())).unwrap().0).collect();
    let groups = layout.groups(&rows);
    assert_eq!(groups[0], Group { rows: vec![0, 2], columns: vec![0, 1, 2] });
    assert_eq!(groups[1], Group { rows: vec![1, 3], columns: vec![0, 3] });
    assert_eq!(groups.len(), 2);
}
