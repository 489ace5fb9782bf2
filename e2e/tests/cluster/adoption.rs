//! A queue of somebody else's is read and otherwise left alone.

use std::time::Duration;

use anyhow::{Result, ensure};
use drover_crds::api::IngestPipeline;
use drover_e2e::management::{call, segment};
use drover_e2e::pipeline::{FLOW, NAME, SEEN, manifest};
use drover_e2e::trial::{Trial, trial};
use kube::api::DeleteParams;
use serde_json::{Value, json};

fn adopting() -> Value {
    let mut manifest = manifest(NAME);
    manifest["spec"]["source"] = json!({ "queue": NAME, "adopt": true, "id": "$.id" });
    manifest["spec"]["deletionPolicy"] = "Delete".into();
    manifest
}

/// What the hub exports of the adopted queue and what is bound to it.
async fn as_exported(t: &Trial) -> Result<(Value, Vec<(String, String)>)> {
    let queue = call("GET", &format!("queues/{}/{NAME}", segment(&t.hub.name)), None).await?;
    let kept = json!([queue["type"], queue["arguments"], queue["durable"], queue["auto_delete"], queue["policy"]]);
    Ok((kept, t.hub.bindings(NAME).await?))
}

#[tokio::test]
async fn an_adopted_classic_queue_is_read_and_stays_as_it_was() -> Result<()> {
    trial("adopt", async |t| {
        t.hub.declare(NAME, "classic", &[]).await?;
        t.hub.bind(NAME, "amq.topic", "devices.#").await?;
        let before = as_exported(t).await?;
        t.telemetry_as(&adopting()).await?;
        t.publish(0..50).await?;
        t.rows(FLOW, 0..50).await?;
        t.delete::<IngestPipeline>(NAME, &DeleteParams::default()).await?;
        t.awaits_gone::<IngestPipeline>(NAME, Duration::from_secs(10)).await?;
        ensure!(as_exported(t).await? == before, "the adopted queue is another");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_queue_to_adopt_that_is_missing_is_named_and_awaited() -> Result<()> {
    trial("adopt-none", async |t| {
        t.table(NAME).await?;
        t.apply::<IngestPipeline>(&adopting()).await?;
        t.stands(NAME, SEEN, "HubReady", "False", Some("QueueMissing")).await?;
        ensure!(t.hub.depth(NAME).await?.is_none(), "it was declared");
        t.hub.declare(NAME, "quorum", &[]).await?;
        t.stands(NAME, SEEN, "Ready", "True", None).await.map(drop)
    })
    .await
}
