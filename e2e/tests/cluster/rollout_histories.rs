//! Rollouts that are disturbed: by an operator that dies, and by people who change their minds. What the in-process model promises for
//! every write and for hundreds of histories, for a few of them on the cluster.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{IngestPipeline, RolloutPhase, RolloutStatus};
use drover_e2e::operator;
use drover_e2e::pipeline::{NAME, READY, told};
use drover_e2e::publisher::Publisher;
use drover_e2e::sigkill::sigkill;
use drover_e2e::trial::{Trial, lone_trial, trial};
use drover_e2e::until::until;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
};
use serde_json::{Value, json};

use crate::rollout::{DONE, active, another, quick, state, takes_over};

/// How often the phase is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Kills the operator whenever a phase is seen for the first time, and once more a moment later; ends with `done`.
async fn deadly<T>(t: &Trial, done: impl Future<Output = Result<T>>) -> Result<(T, usize)> {
    let mut met = BTreeSet::new();
    let mut kills = 0;
    let mut done = Box::pin(done);
    loop {
        tokio::select! {
            end = &mut done => return Ok((end?, kills)),
            () = tokio::time::sleep(LOOK) => {}
        }
        let phase = format!("{:?}", state(&t.api::<IngestPipeline>().get(NAME).await?).phase);
        if met.contains(&phase) {
            continue;
        }
        // One that runs acts, also before it is told to be ready.
        let namespace = operator::namespace(&t.client);
        let pods = namespace.list::<Pod>("").await?;
        let acts = |pod: &&Pod| {
            let runs = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
            runs && pod.metadata.deletion_timestamp.is_none()
        };
        if let Some(pod) = pods.iter().find(acts) {
            sigkill(&namespace, pod).await?;
            met.insert(phase);
            kills += 1;
        }
    }
}

/// The state of the rollout before stays until the next one begins.
async fn aborts(t: &Trial) -> Result<RolloutStatus> {
    until(DONE, async || {
        let found = state(&t.api::<IngestPipeline>().get(NAME).await?);
        ensure!(found.phase == RolloutPhase::Aborted && found.preview.is_none(), "{found:?}");
        Ok(found)
    })
    .await
}

#[tokio::test]
async fn an_operator_that_is_killed_in_each_phase_comes_to_the_same_end() -> Result<()> {
    lone_trial("r-kills", async |t| {
        t.telemetry_as(&quick(&json!({ "progressDeadlineSeconds": 60 }))).await?;
        let first = active(t).await?;
        let publisher = Publisher::new(30_000, Duration::from_secs(100));
        let change = async {
            t.merge::<IngestPipeline>(NAME, &another(500_000)).await?;
            let (second, kills) = deadly(t, Box::pin(takes_over(t, &first))).await?;
            let missing: Value = json!({ "spec": { "worker": { "image": "localhost/missing:1" } } });
            t.merge::<IngestPipeline>(NAME, &missing).await?;
            let (aborted, more) = deadly(t, Box::pin(aborts(t))).await?;
            ensure!(aborted.active.as_ref() == Some(&second), "{aborted:?}");
            ensure!(kills + more >= 5, "{kills} and {more} kills");
            Ok(())
        };
        let (flow, changed) = tokio::join!(publisher.run(&t.hub), change);
        changed?;
        flow?;
        t.rows(DONE, 0..30_000).await?;
        let all = t.list::<Deployment>(&format!("drover.dev/pipeline={NAME}")).await?;
        ensure!(all.len() == 1, "{} Deployments", all.len());
        t.no_dead_letters().await
    })
    .await
}

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What a person does next; gives what the spec has for bytes from now on.
async fn step(t: &Trial, random: &mut Random, id: usize, bytes: u32) -> Result<u32> {
    let ask = async |what: &str| {
        let annotation = format!("drover.dev/{what}");
        let asked = json!({ "metadata": { "annotations": { annotation: format!("{what}-{id}") } } });
        t.merge::<IngestPipeline>(NAME, &asked).await.map(drop)
    };
    match random.below(6) {
        0..=2 => {
            let bytes = 500_000 + u32::try_from(random.below(3))?;
            t.merge::<IngestPipeline>(NAME, &another(bytes)).await?;
            return Ok(bytes);
        }
        3 => {
            let replicas = 1 + random.below(3);
            t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "scaling": { "replicas": replicas } } })).await?;
        }
        4 => ask("abort").await?,
        _ => ask("promote").await?,
    }
    Ok(bytes)
}

/// The newest spec is what runs, or its revision was given up and that is said; and as many workers as it says.
async fn converged(t: &Trial, bytes: u32) -> Result<()> {
    until(DONE, async || {
        let pipeline = t.api::<IngestPipeline>().get(NAME).await?;
        let found = state(&pipeline);
        let seen = pipeline.status.as_ref().and_then(|status| status.observed_generation);
        ensure!(seen == pipeline.metadata.generation && found.preview.is_none(), "{found:?}\n{}", told(&pipeline));
        let active = found.active.clone().context("no active revision")?;
        let map: ConfigMap = t.api().get(&format!("{NAME}-{active}")).await?;
        let newest = map.data.unwrap_or_default().get("DROVER_SOURCE_MAX_BYTES") == Some(&bytes.to_string());
        let stated =
            found.phase == RolloutPhase::Aborted && found.aborted_revision.is_some() && !found.reason.is_empty();
        ensure!((found.phase == RolloutPhase::Stable && newest) || stated, "{bytes}: {found:?}");
        let all = t.list::<Deployment>(&format!("drover.dev/pipeline={NAME}")).await?;
        ensure!(all.len() == 1, "{} Deployments", all.len());
        let wanted = pipeline.spec.scaling.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        ensure!(t.workers(NAME).await?.len() == usize::try_from(wanted)?, "not {wanted} workers");
        Ok(())
    })
    .await
}

async fn history(seed: u64) -> Result<()> {
    trial(&format!("r-h{seed}"), async |t| {
        t.telemetry_as(&quick(&json!({}))).await?;
        let mut random = Random(seed);
        let publisher = Publisher::new(6_000, Duration::from_mins(1));
        let changes = async {
            // The default of the spec.
            let mut bytes = 1_048_576;
            for id in 0..6 {
                bytes = step(t, &mut random, id, bytes).await?;
                tokio::time::sleep(Duration::from_secs(random.below(8))).await;
            }
            anyhow::Ok(bytes)
        };
        let (flow, bytes) = tokio::join!(publisher.run(&t.hub), changes);
        flow?;
        converged(t, bytes?).await?;
        t.rows(READY, 0..6_000).await?;
        t.no_dead_letters().await
    })
    .await
}

#[tokio::test]
#[ignore = "slow: five histories of a minute and more"]
async fn whatever_people_change_it_converges_to_the_newest_spec_or_a_stated_abort() -> Result<()> {
    for seed in 1..=5 {
        history(seed).await.with_context(|| format!("history {seed}"))?;
    }
    Ok(())
}
