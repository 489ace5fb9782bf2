//! How many workers run is what a user says.

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{IngestPipeline, Phase};
use drover_e2e::cluster::is_ready;
use drover_e2e::pipeline::{FLOW, NAME, READY};
use drover_e2e::trial::{Trial, trial};
use drover_e2e::until::until;
use serde_json::json;

/// Waits until so many workers run, all of them ready, and the status says so.
async fn workers(t: &Trial, wanted: usize) -> Result<()> {
    until(READY, async || {
        let pods = t.workers(NAME).await?;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        let told = t.api::<IngestPipeline>().get(NAME).await?.status.and_then(|status| status.replicas);
        ensure!((pods.len(), ready) == (wanted, wanted), "{ready} of {} pods are ready, not {wanted}", pods.len());
        ensure!(told == Some(i32::try_from(wanted)?), "the status tells {told:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn kubectl_scale_sets_the_workers() -> Result<()> {
    trial("scale", async |t| {
        t.telemetry().await?;
        t.kubectl(&["scale", "ingestpipeline", NAME, "--replicas=2"]).await?;
        workers(t, 2).await?;
        t.kubectl(&["scale", "ipl", NAME, "--replicas=0"]).await?;
        workers(t, 0).await?;
        t.publish(0..10).await?;
        t.kubectl(&["scale", "ipl", NAME, "--replicas=1"]).await?;
        workers(t, 1).await?;
        t.rows(FLOW, 0..10).await
    })
    .await
}

#[tokio::test]
async fn suspend_stops_the_workers_and_nothing_else() -> Result<()> {
    trial("suspend", async |t| {
        t.telemetry().await?;
        let before = t.hub.definitions().await?;
        t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "suspend": true } })).await?;
        workers(t, 0).await?;
        let pipeline = t.phase(NAME, READY, Phase::Suspended).await?;
        let revision = pipeline.status.and_then(|status| status.active_revision).context("no active revision")?;
        t.publish(0..10).await?;
        ensure!(t.hub.ready(NAME).await? == 10, "messages do not wait in the queue");
        ensure!(t.hub.definitions().await? == before, "the hub's definitions changed");
        t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "suspend": null } })).await?;
        workers(t, 1).await?;
        t.rows(FLOW, 0..10).await?;
        let pipeline = t.phase(NAME, READY, Phase::Running).await?;
        ensure!(pipeline.status.and_then(|status| status.active_revision) == Some(revision), "another revision");
        Ok(())
    })
    .await
}
