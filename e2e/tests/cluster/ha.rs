//! Two replicas of the operator: one works, and the other goes on when it is killed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{IngestPipeline, RolloutPhase};
use drover_e2e::operator;
use drover_e2e::pipeline::{NAME, READY, SEEN, manifest};
use drover_e2e::publisher::Publisher;
use drover_e2e::sigkill::sigkill;
use drover_e2e::store::Each;
use drover_e2e::trial::{Trial, lone_trial};
use drover_e2e::until::until;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;
use tokio::time::Instant;

use crate::rollout::{DONE, active, another, quick, state, takes_over};

/// From the death of the replica that works to a change that another has made.
const TAKEOVER: Duration = Duration::from_secs(15);
/// The same from its orderly end to the lease in other hands.
const HANDOVER: Duration = Duration::from_secs(2);
const MESSAGES: u32 = 6_000;
const OVER: Duration = Duration::from_secs(20);
/// For as long as a rollout takes.
const ROLLOUT: (u32, Duration) = (24_000, Duration::from_mins(1));

/// The pod that leads. There are two, and of what both say of themselves, one leads.
async fn leader(t: &Trial) -> Result<Pod> {
    until(READY, async || {
        let (pods, leader) = (operator::pods(&t.client).await?, operator::leader(&t.client).await?);
        ensure!(pods.len() == 2, "{} replicas are ready", pods.len());
        for pod in &pods {
            let told = operator::namespace(&t.client).ask(&pod.name_any(), operator::PORT, "metrics").await?;
            let wanted = format!("drover_operator_leader {}", u8::from(pod.name_any() == leader));
            ensure!(told.lines().any(|line| line == wanted), "{} does not say {wanted}", pod.name_any());
        }
        pods.into_iter().find(|pod| pod.name_any() == leader).context("the holder of the lease is not ready")
    })
    .await
}

/// A change of the spec that the operator has carried out: so many workers.
async fn scaled(t: &Trial, replicas: i32, expected: Duration) -> Result<()> {
    t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "scaling": { "replicas": replicas } } })).await?;
    until(expected, async || {
        let workers = t.workers(NAME).await?.len();
        ensure!(i32::try_from(workers)? == replicas, "{workers} workers, not {replicas}");
        Ok(())
    })
    .await
}

async fn another_goes_on(t: &Trial) -> Result<()> {
    let first = leader(t).await?;
    t.telemetry_as(&manifest(NAME)).await?;
    // So that messages are on their way when it is killed.
    t.store.slow(NAME, Each::Statement, 0.2).await?;
    let publisher = Publisher::new(MESSAGES, OVER);
    let fault = async {
        until(READY, async || {
            ensure!(publisher.confirmed() > MESSAGES / 20, "no load yet");
            Ok(())
        })
        .await?;
        sigkill(&operator::namespace(&t.client), &first).await?;
        let died = Instant::now();
        scaled(t, 2, TAKEOVER).await?;
        eprintln!("ha: another replica has made a change {:?} after the death of the first", died.elapsed());
        t.store.slow(NAME, Each::Statement, 0.0).await
    };
    let (flow, struck) = tokio::join!(publisher.run(&t.hub), fault);
    struck?;
    flow?;
    t.rows(READY, 0..MESSAGES).await?;
    t.no_dead_letters().await?;
    t.stands(NAME, SEEN, "Ready", "True", None).await?;
    let second = leader(t).await?;
    ensure!(second.uid() != first.uid(), "the one that was killed leads");
    operator::namespace(&t.client).delete::<Pod>(&second.name_any(), &DeleteParams::default()).await?;
    until(HANDOVER, async || {
        ensure!(operator::leader(&t.client).await? != second.name_any(), "it still has the lease");
        Ok(())
    })
    .await?;
    scaled(t, 1, READY).await
}

/// The one that has begun a rollout is killed when both revisions are on the source.
async fn another_ends_the_rollout(t: &Trial) -> Result<()> {
    let first = leader(t).await?;
    t.telemetry_as(&quick(&json!({}))).await?;
    let old = active(t).await?;
    let publisher = Publisher::new(ROLLOUT.0, ROLLOUT.1);
    let verifying = async || {
        let found = state(&t.api::<IngestPipeline>().get(NAME).await?);
        ensure!(found.phase == RolloutPhase::Verifying, "{found:?}");
        Ok(())
    };
    let fault = async {
        t.merge::<IngestPipeline>(NAME, &another(500_000)).await?;
        until(DONE, verifying).await?;
        sigkill(&operator::namespace(&t.client), &first).await?;
        let died = Instant::now();
        verifying().await.context("it was over before the kill")?;
        until(TAKEOVER, async || {
            ensure!(operator::leader(&t.client).await? != first.name_any(), "the dead one has the lease");
            Ok(())
        })
        .await?;
        eprintln!("ha: another replica leads the rollout {:?} after the death of the first", died.elapsed());
        takes_over(t, &old).await?;
        eprintln!("ha: another replica has ended the rollout {:?} after the death of the first", died.elapsed());
        anyhow::Ok(())
    };
    let (flow, ended) = tokio::join!(publisher.run(&t.hub), fault);
    ended?;
    flow?;
    t.rows(READY, 0..ROLLOUT.0).await?;
    t.no_dead_letters().await?;
    ensure!(leader(t).await?.uid() != first.uid(), "the one that was killed leads");
    Ok(())
}

async fn with_two_replicas(name: &str, test: impl AsyncFnOnce(&Trial) -> Result<()>) -> Result<()> {
    lone_trial(name, async |t| {
        operator::install_chart_with(&t.client, &["replicaCount=2"]).await?;
        let survived = test(t).await;
        // One replica again for the tests that follow, whatever is found.
        operator::install_chart(&t.client).await?;
        survived
    })
    .await
}

#[tokio::test]
async fn another_replica_goes_on_when_the_one_that_works_is_killed_or_ends() -> Result<()> {
    with_two_replicas("ha", another_goes_on).await
}

#[tokio::test]
async fn another_replica_ends_the_rollout_of_one_that_is_killed_and_nothing_is_lost_or_doubled() -> Result<()> {
    with_two_replicas("ha-rollout", another_ends_the_rollout).await
}
