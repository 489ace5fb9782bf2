//! What becomes of queues and messages when a pipeline is deleted, and that nothing blocks its deletion for ever.

use std::time::Duration;

use anyhow::{Result, ensure};
use drover_crds::api::IngestPipeline;
use drover_e2e::operator;
use drover_e2e::pipeline::{FLOW, NAME, SEEN, manifest};
use drover_e2e::store::Each;
use drover_e2e::trial::{Trial, trial};
use drover_e2e::until::until;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::{Value, json};

/// Ten times as long as an object that is gone is remembered at most.
const FORGOTTEN: Duration = Duration::from_secs(100);
/// An object without work left to do is gone in this time.
const GONE: Duration = Duration::from_secs(8);

fn with_policy(policy: &str) -> Value {
    let mut manifest = manifest(NAME);
    manifest["spec"]["deletionPolicy"] = policy.into();
    manifest
}

/// Makes the pipeline, sees a message through, and stops its workers with messages in the queue.
async fn with_backlog(t: &Trial, policy: &str) -> Result<()> {
    t.telemetry_as(&with_policy(policy)).await?;
    t.publish(0..1).await?;
    t.rows(FLOW, 0..1).await?;
    t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "suspend": true } })).await?;
    t.stands(NAME, SEEN, "WorkersReady", "True", Some("Suspended")).await?;
    t.phase(NAME, SEEN, drover_crds::api::Phase::Suspended).await?;
    t.publish(1..21).await
}

async fn delete(t: &Trial, expected: Duration) -> Result<()> {
    t.delete::<IngestPipeline>(NAME, &DeleteParams::default()).await?;
    t.awaits_gone::<IngestPipeline>(NAME, expected).await?;
    until(GONE, async || {
        let left = t.list::<Deployment>("").await?.len();
        ensure!(left == 0, "{left} Deployments are left");
        Ok(())
    })
    .await
}

/// Waits for the operator to tell so many series of the pipeline.
async fn metrics(t: &Trial, wanted: impl Fn(usize) -> bool) -> Result<()> {
    let name = format!("namespace=\"{}\",name=\"{NAME}\"", t.namespace);
    until(FORGOTTEN, async || {
        let pod = operator::pod(&t.client).await?;
        let told = operator::namespace(&t.client).ask(&pod.name_any(), operator::PORT, "metrics").await?;
        let series = told.lines().filter(|line| line.contains(&name)).count();
        ensure!(wanted(series), "{series} series of it");
        Ok(())
    })
    .await
}

async fn queues(t: &Trial) -> Result<(Option<u32>, Option<u32>)> {
    let (source, dead) = (t.hub.depth(NAME).await?, t.hub.depth(&format!("{NAME}.dead")).await?);
    Ok((source.map(|depth| depth.ready), dead.map(|depth| depth.ready)))
}

#[tokio::test]
async fn retain_leaves_queues_that_go_on_collecting() -> Result<()> {
    trial("retain", async |t| {
        with_backlog(t, "Retain").await?;
        metrics(t, |series| series > 0).await?;
        delete(t, GONE).await?;
        metrics(t, |series| series == 0).await?;
        t.publish(21..31).await?;
        ensure!(queues(t).await? == (Some(30), Some(0)), "{:?}", queues(t).await?);
        // A pipeline of the same name goes on where the first one stopped.
        t.apply::<IngestPipeline>(&with_policy("Retain")).await?;
        t.ready(NAME).await?;
        t.rows(FLOW, 0..31).await
    })
    .await
}

#[tokio::test]
async fn delete_takes_queues_with_what_is_in_them() -> Result<()> {
    trial("delete", async |t| {
        with_backlog(t, "Delete").await?;
        delete(t, GONE).await?;
        ensure!(queues(t).await? == (None, None), "{:?}", queues(t).await?);
        t.has_rows(NAME, 0..1).await
    })
    .await
}

#[tokio::test]
async fn drain_then_delete_writes_what_is_left_and_then_takes_the_queues() -> Result<()> {
    trial("drain", async |t| {
        t.telemetry_as(&with_policy("DrainThenDelete")).await?;
        // Slow enough that the deletion finds messages that wait.
        t.store.slow(NAME, Each::Statement, 0.2).await?;
        t.publish(0..2_000).await?;
        delete(t, SEEN).await?;
        ensure!(queues(t).await? == (None, None), "{:?}", queues(t).await?);
        t.has_rows(NAME, 0..2_000).await
    })
    .await
}

#[tokio::test]
async fn drain_then_delete_keeps_dead_letters() -> Result<()> {
    trial("drain-dead", async |t| {
        t.telemetry_as(&with_policy("DrainThenDelete")).await?;
        t.hub.publish("amq.topic", "devices.1", &["no JSON"]).await?;
        drover_e2e::until::until(FLOW, async || {
            ensure!(t.dead_letters().await?.len() == 1, "not yet dead-lettered");
            Ok(())
        })
        .await?;
        delete(t, SEEN).await?;
        ensure!(queues(t).await? == (None, Some(1)), "{:?}", queues(t).await?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_hub_that_is_gone_does_not_keep_a_namespace() -> Result<()> {
    trial("gone-hub", async |t| {
        t.telemetry_as(&with_policy("Delete")).await?;
        t.hub.remove().await?;
        t.stands(NAME, SEEN, "HubReady", "False", None).await?;
        t.remove_namespace(SEEN).await
    })
    .await
}
