//! Pipelines in a row: what one publishes, the next takes.

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{Delivery, IngestPipeline};
use drover_e2e::pipeline::{FLOW, NAME, manifest};
use drover_e2e::trial::trial;
use drover_e2e::until::until;
use serde_json::json;

const DEVICES: u32 = 5;
const STEPS: u32 = 40;

/// State number `step` of a device; a step's message is the same each time.
fn state(device: u32, step: u32) -> Vec<u8> {
    let body = json!({ "id": format!("{device}-{step}"), "deviceId": format!("d{device}"), "ts": 1_700_000_000_000_i64 + i64::from(step), "step": step });
    body.to_string().into_bytes()
}

/// All states, three times each, in an order that is no order and the same in every run.
fn shuffled() -> Vec<Vec<u8>> {
    let total = DEVICES * STEPS * 3;
    // 7 and the total have no common divisor: every position comes once.
    (0..total).map(|n| n * 7 % total).map(|n| state(n % DEVICES, n / DEVICES % STEPS)).collect()
}

#[tokio::test]
async fn a_chain_ends_with_the_latest_state_of_each_device() -> Result<()> {
    trial("chain", async |t| {
        t.hub.declare_topic("cleaned").await?;
        t.store.table("latest", "device_id text primary key, ts timestamptz not null, step int not null").await?;
        let mut first = manifest(NAME);
        first["spec"]["sink"] = json!({ "hub": { "exchange": "cleaned", "routingKey": "clean.{deviceId}" } });
        let mut second = manifest("latest");
        second["spec"]["source"]["bindings"] = json!([{ "exchange": "cleaned", "routingKey": "clean.*" }]);
        second["spec"]["sink"] = json!({ "postgres": {
            "secretRef": { "name": "warehouse" }, "table": "latest", "mode": "Upsert",
            "key": ["device_id"], "orderBy": "ts", "columns": { "device_id": "$.deviceId" },
        } });
        t.apply::<IngestPipeline>(&second).await?;
        t.apply::<IngestPipeline>(&first).await?;
        let (last, relay) = (t.ready("latest").await?, t.ready(NAME).await?);
        ensure!(
            last.status.and_then(|s| s.delivery) == Some(Delivery::EffectivelyOnce),
            "an upsert is effectively once"
        );
        ensure!(relay.status.and_then(|s| s.delivery) == Some(Delivery::AtLeastOnce), "a hub cannot tell repeats");
        t.hub.publish("amq.topic", "devices.1", &shuffled()).await?;
        until(FLOW, async || {
            let query = "select count(*), min(step), max(step) from latest";
            let rows = t.store.owner.rows(query, &[]).await?;
            let row = rows.first().context("no answer")?;
            let found: (i64, Option<i32>, Option<i32>) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let newest = Some(i32::try_from(STEPS)? - 1);
            ensure!(found == (i64::from(DEVICES), newest, newest), "{found:?}");
            // Nothing older is still on its way.
            for queue in [NAME, "latest"] {
                ensure!(t.hub.ready(queue).await? == 0, "{queue} is not empty");
            }
            Ok(())
        })
        .await?;
        t.no_dead_letters().await
    })
    .await
}
