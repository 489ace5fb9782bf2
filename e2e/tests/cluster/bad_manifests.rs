//! What cannot work is refused when it is applied, or by a condition, and the field is named.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::IngestPipeline;
use drover_e2e::pipeline::{SEEN, condition, discarding, manifest};
use drover_e2e::trial::{Trial, trial};
use serde_json::{Value, json};

/// A part of a sound manifest, the value that spoils it (null removes it), and the field that must be named.
type Case = (&'static str, Value, &'static str);

fn source_cases() -> Vec<Case> {
    vec![
        ("/source/queue", json!(""), "source.queue"),
        ("/source/queue", json!(null), "source.queue"),
        ("/source/queue", json!("amq.mine"), "source.queue"),
        ("/source/queue", json!("q".repeat(201)), "source.queue"),
        ("/source/id", json!("body"), "source.id"),
        ("/source/id", json!("$."), "source.id"),
        ("/source/id", json!("header:"), "source.id"),
        ("/source/prefetch", json!(0), "source.prefetch"),
        ("/source/prefetch", json!(70_000), "source.prefetch"),
        ("/source/prefetch", json!("many"), "source.prefetch"),
        ("/source/maxBytes", json!(0), "source.maxBytes"),
        ("/source/adopt", json!(true), "bindings"),
        ("/source/bindings/0/exchange", json!(""), "exchange"),
        ("/source/bindings/0/routingKey", json!("k".repeat(256)), "routingKey"),
        ("/source/quueue", json!("q"), "quueue"),
    ]
}

fn sink_cases() -> Vec<Case> {
    let upsert = |more: Value| {
        let mut sink = json!({ "secretRef": { "name": "warehouse" }, "table": "t", "mode": "Upsert" });
        sink.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        sink
    };
    vec![
        ("/sink/postgres", json!(null), "sink"),
        ("/sink/discard", json!({}), "sink"),
        ("/sink/postgres/table", json!(null), "sink.postgres.table"),
        ("/sink/postgres/table", json!("a.b.c"), "sink.postgres.table"),
        ("/sink/postgres/table", json!(".t"), "sink.postgres.table"),
        ("/sink/postgres/mode", json!("Replace"), "sink.postgres.mode"),
        ("/sink/postgres/key", json!(["device_id"]), "key"),
        ("/sink/postgres", upsert(json!({})), "key"),
        ("/sink/postgres", upsert(json!({ "key": ["device_id"] })), "orderBy"),
        ("/sink/postgres", upsert(json!({ "key": [], "orderBy": "ts" })), "key"),
        (
            "/sink/postgres",
            upsert(json!({ "key": ["device_id"], "orderBy": "ts", "idColumn": "message_id" })),
            "idColumn",
        ),
        ("/sink/postgres/columns/pref", json!("payloads.pref"), "columns"),
        ("/sink/postgres/columns/pref", json!("$..pref"), "columns"),
        ("/sink/postgres/unknownFields", json!("Maybe"), "unknownFields"),
        ("/sink", json!({ "hub": { "exchange": "" } }), "sink.hub.exchange"),
        ("/sink", json!({ "hub": { "exchange": "x", "routingKey": "clean.{deviceId" } }), "sink.hub.routingKey"),
        ("/sink", json!({ "hub": { "exchange": "x", "routingKey": "clean.{}" } }), "sink.hub.routingKey"),
    ]
}

fn other_cases() -> Vec<Case> {
    let windows = "SELECT COUNT(*) AS n FROM input GROUP BY TUMBLINGWINDOW(minute, 1)";
    vec![
        ("/hub", json!(null), "hub"),
        ("/hub/secretRef/name", json!(""), "hub.secretRef.name"),
        ("/deadLetter", json!({ "queue": "amq.dead" }), "deadLetter.queue"),
        ("/deadLetter", json!({ "retentionSeconds": 1 }), "deadLetter.retentionSeconds"),
        ("/deadLetter", json!({ "maxMessages": 0 }), "deadLetter.maxMessages"),
        ("/scaling", json!({ "replicas": -1 }), "scaling.replicas"),
        ("/scaling", json!({ "replicas": 1001 }), "scaling.replicas"),
        ("/worker", json!({ "concurrency": 0 }), "worker.concurrency"),
        ("/worker", json!({ "env": [{ "name": "DROVER_SINK", "value": "x" }] }), "worker.env"),
        ("/worker", json!({ "image": "" }), "worker.image"),
        ("/deletionPolicy", json!("Keep"), "deletionPolicy"),
        ("/suspend", json!("yes"), "suspend"),
        ("/transform", json!({}), "transform.query"),
        ("/transform", json!({ "query": "SELEC deviceId FROM input" }), "transform.query"),
        ("/transform", json!({ "query": "SELECT deviceId FROM elsewhere" }), "transform.query"),
        ("/transform", json!({ "query": windows }), "transform.query"),
    ]
}

/// The manifest with a part replaced, added or removed.
fn spoilt(name: &str, part: &str, value: &Value) -> Result<Value> {
    let mut manifest = manifest(name);
    let (parent, field) = part.rsplit_once('/').context("no path")?;
    let parent = manifest["spec"].pointer_mut(parent).and_then(Value::as_object_mut).context("no such part")?;
    if value.is_null() {
        parent.remove(field);
    } else {
        parent.insert(field.to_owned(), value.clone());
    }
    Ok(manifest)
}

/// Applies the manifest; what the API server or the condition says against it.
async fn refusal(t: &Trial, name: &str, manifest: &Value) -> Result<String> {
    match t.apply::<IngestPipeline>(manifest).await {
        Err(kube::Error::Api(status)) => Ok(status.message.clone()),
        Err(other) => Err(other.into()),
        Ok(_) => {
            let pipeline = t.stands(name, SEEN, "Accepted", "False", None).await?;
            Ok(condition(&pipeline, "Accepted").map(|c| c.message.clone()).unwrap_or_default())
        }
    }
}

async fn all_are_refused(t: &Trial, cases: Vec<Case>) -> Result<()> {
    let mut taken = Vec::new();
    for (number, (part, value, field)) in cases.iter().enumerate() {
        let name = format!("bad-{number}");
        let told = refusal(t, &name, &spoilt(&name, part, value)?).await;
        match told {
            Ok(told) if told.contains(field) => {}
            Ok(told) => taken.push(format!("{part} = {value}: the message does not name {field}: {told}")),
            Err(error) => taken.push(format!("{part} = {value}: {error:#}")),
        }
    }
    ensure!(
        taken.is_empty(),
        "{} of {} are not refused as they should be:\n{}",
        taken.len(),
        cases.len(),
        taken.join("\n")
    );
    Ok(())
}

#[tokio::test]
async fn a_bad_source_is_refused_and_the_field_is_named() -> Result<()> {
    trial("bad-source", async |t| all_are_refused(t, source_cases()).await).await
}

#[tokio::test]
async fn a_bad_sink_is_refused_and_the_field_is_named() -> Result<()> {
    trial("bad-sink", async |t| all_are_refused(t, sink_cases()).await).await
}

#[tokio::test]
async fn other_bad_fields_are_refused_and_named() -> Result<()> {
    trial("bad-other", async |t| {
        all_are_refused(t, other_cases()).await?;
        let mut manifest = manifest("same");
        manifest["spec"]["deadLetter"] = json!({ "queue": "same" });
        let told = refusal(t, "same", &manifest).await?;
        ensure!(told.contains("deadLetter.queue"), "{told}");
        let name = "n".repeat(49);
        let told = refusal(t, &name, &discarding(&name)).await?;
        ensure!(told.contains("metadata.name"), "{told}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_never_changes_cannot_be_changed() -> Result<()> {
    trial("immutable", async |t| {
        let mut manifest = discarding("fixed");
        manifest["spec"]["suspend"] = true.into();
        t.apply::<IngestPipeline>(&manifest).await?;
        let changes = [
            (json!({ "source": { "queue": "other" } }), "source.queue"),
            (json!({ "source": { "adopt": true, "bindings": null } }), "source.adopt"),
            (json!({ "deadLetter": { "queue": "other.dead" } }), "deadLetter.queue"),
        ];
        for (change, field) in changes {
            let told = match t.merge::<IngestPipeline>("fixed", &json!({ "spec": change })).await {
                Err(kube::Error::Api(status)) => status.message.clone(),
                Err(other) => return Err(other.into()),
                Ok(_) => String::from("taken"),
            };
            ensure!(told.contains(field), "{change}: {told}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_spec_that_becomes_bad_leaves_what_runs_at_work() -> Result<()> {
    trial("becomes-bad", async |t| {
        t.telemetry().await?;
        let query = json!({ "spec": { "transform": { "query": "SELECT FROM" } } });
        t.merge::<IngestPipeline>("telemetry", &query).await?;
        t.stands("telemetry", SEEN, "Accepted", "False", Some("InvalidQuery")).await?;
        t.publish(0..20).await?;
        t.rows(Duration::from_secs(3), 0..20).await?;
        t.merge::<IngestPipeline>("telemetry", &json!({ "spec": { "transform": null } })).await?;
        t.ready("telemetry").await.map(drop)
    })
    .await
}
