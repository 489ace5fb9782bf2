//! Messages of devices become rows.

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{Delivery, Phase};
use drover_e2e::pipeline::{FLOW, NAME, messages};
use drover_e2e::trial::trial;

#[tokio::test]
async fn messages_become_rows_each_id_once() -> Result<()> {
    trial("flow", async |t| {
        let pipeline = t.telemetry().await?;
        let status = pipeline.status.context("no status")?;
        ensure!(status.phase == Some(Phase::Running), "{:?}", status.phase);
        ensure!(status.delivery == Some(Delivery::EffectivelyOnce), "{:?}", status.delivery);
        ensure!(status.replicas == Some(1), "{:?}", status.replicas);
        t.publish(0..100).await?;
        // A device that repeats itself is no second row.
        t.publish(0..20).await?;
        t.rows(FLOW, 0..100).await?;
        t.no_dead_letters().await
    })
    .await
}

#[tokio::test]
async fn columns_take_the_values_of_their_paths() -> Result<()> {
    trial("columns", async |t| {
        t.telemetry().await?;
        t.publish(7..8).await?;
        t.rows(FLOW, 7..8).await?;
        let query = "select device_id, extract(epoch from ts)::bigint, pref, temp from telemetry";
        let rows = t.store.owner.rows(query, &[]).await?;
        let row = rows.first().context("no row")?;
        let found: (String, i64, String, f64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        ensure!(found == ("device-007".to_owned(), 1_700_000_000, "tokyo".to_owned(), 7.5), "{found:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn messages_that_came_before_the_workers_become_rows() -> Result<()> {
    trial("waiting", async |t| {
        t.hub.declare_topic("early").await?;
        let mut manifest = drover_e2e::pipeline::manifest(NAME);
        manifest["spec"]["suspend"] = true.into();
        manifest["spec"]["source"]["bindings"] = serde_json::json!([{ "exchange": "early", "routingKey": "#" }]);
        t.telemetry_as(&manifest).await?;
        t.hub.publish("early", "x", &messages(0..50)).await?;
        ensure!(t.hub.ready(NAME).await? == 50, "they are not in the queue");
        manifest["spec"]["suspend"] = false.into();
        t.apply::<drover_crds::api::IngestPipeline>(&manifest).await?;
        t.ready(NAME).await?;
        t.rows(FLOW, 0..50).await
    })
    .await
}
