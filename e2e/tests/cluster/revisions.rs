//! A change of the spec is a new revision; it takes over before the old one goes, and nothing is lost.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::IngestPipeline;
use drover_e2e::pipeline::{NAME, READY, SEEN, told};
use drover_e2e::publisher::Publisher;
use drover_e2e::trial::{Trial, trial};
use drover_e2e::until::until;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

fn active(pipeline: &IngestPipeline) -> Result<String> {
    pipeline.status.as_ref().and_then(|status| status.active_revision.clone()).context("no active revision")
}

/// Pods that are ready, and whether the Deployment is told to have any.
async fn ready_pods(t: &Trial, revision: &str) -> Result<(i32, bool)> {
    let Some(deployment) = t.api::<Deployment>().get_opt(&format!("{NAME}-{revision}")).await? else {
        return Ok((0, false));
    };
    let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(0) > 0;
    let kept = wanted && deployment.metadata.deletion_timestamp.is_none();
    Ok((deployment.status.and_then(|status| status.ready_replicas).unwrap_or(0), kept))
}

/// Changes the spec and watches the hand-over; the new revision's name.
async fn change(t: &Trial, old: &str, patch: Value) -> Result<String> {
    t.merge::<IngestPipeline>(NAME, &patch).await?;
    let new = until(READY, async || {
        let pipeline = t.api::<IngestPipeline>().get(NAME).await?;
        let now = active(&pipeline)?;
        let (_, old_is_kept) = ready_pods(t, old).await?;
        if !old_is_kept {
            let deployments = t.list::<Deployment>(&format!("drover.dev/pipeline={NAME}")).await?;
            let ready: i32 = deployments.iter().filter_map(|d| d.status.as_ref()?.ready_replicas).sum();
            // Not to be mended by waiting: there was a moment without consumers.
            assert!(ready > 0, "the old revision was told to go before the new one consumed: {}", told(&pipeline));
        }
        ensure!(now != old, "not yet another revision: {}", told(&pipeline));
        Ok(now)
    })
    .await?;
    ensure!(ready_pods(t, &new).await?.0 > 0, "revision {new} is active and has no pod that consumes");
    t.awaits_gone::<Deployment>(&format!("{NAME}-{old}"), SEEN).await?;
    t.awaits_gone::<ConfigMap>(&format!("{NAME}-{old}"), SEEN).await?;
    Ok(new)
}

#[tokio::test]
async fn a_change_of_the_spec_rolls_over_and_back_and_loses_nothing() -> Result<()> {
    trial("revisions", async |t| {
        let first = active(&t.telemetry().await?)?;
        let publisher = Publisher::new(2_000, Duration::from_secs(10));
        let roll = async {
            let second = change(t, &first, json!({ "spec": { "source": { "prefetch": 50 } } })).await?;
            let third = change(t, &second, json!({ "spec": { "source": { "prefetch": null } } })).await?;
            ensure!(third == first, "the same spec is the same revision, not {third} after {first}");
            Ok(())
        };
        let (flow, rolled) = tokio::join!(publisher.run(&t.hub), roll);
        rolled?;
        flow?;
        t.rows(SEEN, 0..2_000).await?;
        t.no_dead_letters().await
    })
    .await
}

#[tokio::test]
async fn a_revision_that_does_not_start_leaves_the_old_one_at_work() -> Result<()> {
    trial("bad-revision", async |t| {
        let first = active(&t.telemetry().await?)?;
        t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "worker": { "image": "localhost/no-such-image:1" } } }))
            .await?;
        until(SEEN, async || {
            let pipeline = t.api::<IngestPipeline>().get(NAME).await?;
            let reason = pipeline.status.as_ref().and_then(|status| status.rollout.as_ref()).map(|r| r.reason.clone());
            ensure!(reason.as_deref() == Some("ImagePullFailed"), "{reason:?}: {}", told(&pipeline));
            Ok(())
        })
        .await?;
        ensure!(ready_pods(t, &first).await? == (1, true), "the old revision does not run");
        t.publish(0..50).await?;
        t.rows(READY, 0..50).await?;
        t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "worker": null } })).await?;
        let pipeline = t.ready(NAME).await?;
        ensure!(active(&pipeline)? == first, "another revision");
        Ok(())
    })
    .await
}
