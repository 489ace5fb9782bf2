//! Whether a real table fits a sink.

use std::collections::BTreeMap;

use drover_crds::api::{PostgresMode, PostgresSink, SecretRef};
use drover_worker::store::table::{self, Kind, TableReason};

use crate::surroundings::{owner, worker};

fn append(table: &str) -> PostgresSink {
    PostgresSink {
        secret_ref: SecretRef { name: String::new(), keys: BTreeMap::new() },
        table: table.to_owned(),
        mode: None,
        columns: BTreeMap::new(),
        id_column: Some("message_id".to_owned()),
        key: None,
        order_by: None,
        unknown_fields: None,
    }
}

async fn judged(sink: &PostgresSink) -> Result<(), TableReason> {
    let client = worker().await;
    let shape = table::describe(&client, sink).await.map_err(|p| p.reason)?;
    shape.fits(sink).map_err(|p| p.reason)
}

#[tokio::test]
async fn a_table_is_judged_as_it_is() {
    let owner = owner().await;
    let table = "fit_append";
    let sink = append(table);
    owner.batch_execute(&format!("DROP TABLE IF EXISTS {table}")).await.unwrap();
    assert_eq!(judged(&sink).await, Err(TableReason::TableNotFound));
    owner.batch_execute(&format!("CREATE TABLE {table} (temp float8)")).await.unwrap();
    assert_eq!(judged(&sink).await, Err(TableReason::ColumnNotFound));
    owner.batch_execute(&format!("ALTER TABLE {table} ADD message_id text NOT NULL")).await.unwrap();
    assert_eq!(judged(&sink).await, Err(TableReason::NoUniqueIndex));
    owner.batch_execute(&format!("CREATE UNIQUE INDEX ON {table} (message_id) WHERE temp > 0")).await.unwrap();
    assert_eq!(judged(&sink).await, Err(TableReason::NoUniqueIndex));
    owner.batch_execute(&format!("CREATE UNIQUE INDEX ON {table} (message_id)")).await.unwrap();
    assert_eq!(judged(&sink).await, Err(TableReason::PrivilegeMissing));
    owner.batch_execute(&format!("GRANT INSERT, SELECT ON {table} TO drover_worker")).await.unwrap();
    assert_eq!(judged(&sink).await, Ok(()));
    owner.batch_execute(&format!("DROP TABLE {table}")).await.unwrap();
}

#[tokio::test]
async fn statements_of_a_problem_mend_it() {
    let owner = owner().await;
    owner
        .batch_execute(
            "DROP TABLE IF EXISTS \"fit Mend\"; CREATE TABLE \"fit Mend\" (\"device Id\" text, ts timestamptz)",
        )
        .await
        .unwrap();
    let sink = PostgresSink {
        mode: Some(PostgresMode::Upsert),
        id_column: None,
        key: Some(vec!["device Id".to_owned()]),
        order_by: Some("ts".to_owned()),
        ..append("fit Mend")
    };
    let client = worker().await;
    for reason in [TableReason::NoUniqueIndex, TableReason::PrivilegeMissing] {
        let problem = table::describe(&client, &sink).await.unwrap().fits(&sink).unwrap_err();
        assert_eq!(problem.reason, reason);
        let (_, statement) = problem.message.split_once(": run ").unwrap();
        owner.batch_execute(statement).await.unwrap();
    }
    table::describe(&client, &sink).await.unwrap().fits(&sink).unwrap();
    owner.batch_execute("DROP TABLE \"fit Mend\"").await.unwrap();
}

#[tokio::test]
async fn the_catalog_tells_types_defaults_and_indexes() {
    let owner = owner().await;
    owner
        .batch_execute(
            "DROP TABLE IF EXISTS fit_catalog; CREATE TABLE fit_catalog (
                 n int GENERATED ALWAYS AS IDENTITY, s bigserial, v varchar(20) NOT NULL, j json, b jsonb DEFAULT '{}',
                 t timestamptz(3), a int[], g float8 GENERATED ALWAYS AS (1.5) STORED, p point, UNIQUE (v, t))",
        )
        .await
        .unwrap();
    let shape = table::describe(&owner, &append("fit_catalog")).await.unwrap();
    let column = |name: &str| shape.column(name).unwrap();
    assert!(column("n").generated && column("g").generated && !column("s").generated);
    assert!(column("s").default && column("b").default && !column("t").default);
    assert_eq!(
        (column("v").base_type.as_str(), column("v").full_type.as_str()),
        ("character varying", "character varying(20)")
    );
    assert_eq!(column("t").full_type, "timestamp(3) with time zone");
    assert_eq!(
        [column("v").kind, column("j").kind, column("t").kind, column("a").kind],
        [Kind::Text, Kind::Json, Kind::Time, Kind::Array]
    );
    assert!(column("v").ordered && column("b").ordered && column("a").ordered);
    assert!(!column("j").ordered && !column("p").ordered);
    assert_eq!(shape.unique, [["v", "t"]]);
    owner.batch_execute("DROP TABLE fit_catalog").await.unwrap();
}
