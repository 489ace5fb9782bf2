//! A release by the real Helm, from its first installation to the next: nothing that runs is disturbed, and no message is lost.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{IngestPipeline, WindowQuery};
use drover_e2e::cluster::{is_ready, restarts};
use drover_e2e::operator::{self, NAMESPACE};
use drover_e2e::pipeline::{NAME, READY, SEEN};
use drover_e2e::publisher::Publisher;
use drover_e2e::shell::{self, Ended};
use drover_e2e::surroundings::variable;
use drover_e2e::trial::{Trial, lone_trial};
use drover_e2e::until::until;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;

/// The release, which works in the test's own namespace and has no rights in another.
const RELEASE: &str = "drover-apart";
const MESSAGES: u32 = 6_000;
const OVER: Duration = Duration::from_secs(40);
/// An installation that cannot work is given up after so long.
const HOPELESS: &str = "10s";

/// Installs or upgrades the release and waits; values that are not given are the chart's own.
async fn upgrade(t: &Trial, values: &[&str], timeout: &str) -> Result<Ended> {
    let registry = format!("image.registry={}", variable("DROVER_IMAGE_REGISTRY")?);
    let tag = format!("image.tag={}", variable("DROVER_IMAGE_TAG")?);
    let watched = format!("watchNamespaces={{{}}}", t.namespace);
    let mut words = vec!["upgrade", "--install", RELEASE, "charts/drover", "--namespace", &t.namespace];
    words.extend(["--wait", "--timeout", timeout, "--set-string", &registry, "--set-string", &tag]);
    words.extend(["--set", "image.pullPolicy=IfNotPresent", "--set", &watched]);
    words.extend(values.iter().flat_map(|value| ["--set", *value]));
    shell::attempt("helm", &words, "").await
}

async fn upgraded(t: &Trial, values: &[&str]) -> Result<()> {
    let ended = upgrade(t, values, "3m").await?;
    ensure!(ended.success, "helm upgrade: {}{}", ended.out, ended.err);
    Ok(())
}

/// The operator's pods, all of them.
async fn operators(t: &Trial) -> Result<Vec<Pod>> {
    t.list::<Pod>(&format!("app.kubernetes.io/instance={RELEASE}")).await
}

/// What Helm has waited for is there now, and is as the values say.
async fn works(t: &Trial, replicas: usize, rollouts: &str) -> Result<()> {
    let pods = operators(t).await?;
    let ready = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod)).count();
    ensure!(ready == replicas, "{ready} pods of the operator are ready, not {replicas}");
    let deployment = t.api::<Deployment>().get(RELEASE).await?;
    let spec = deployment.spec.and_then(|spec| spec.template.spec).context("no pods")?;
    let env = spec.containers.into_iter().flat_map(|container| container.env.unwrap_or_default());
    let found = env.into_iter().find(|env| env.name == "DROVER_MAX_ROLLOUTS").and_then(|env| env.value);
    ensure!(found.as_deref() == Some(rollouts), "maxRollouts is {found:?}, not {rollouts}");
    Ok(())
}

/// The workers, each with how often its containers were started again.
async fn workers(t: &Trial) -> Result<Vec<(String, i32)>> {
    let mut all: Vec<_> = t.workers(NAME).await?.iter().map(|pod| (pod.name_any(), restarts(pod))).collect();
    all.sort();
    Ok(all)
}

/// A change of the spec is carried out.
async fn obeys(t: &Trial, replicas: usize) -> Result<()> {
    t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "scaling": { "replicas": replicas } } })).await?;
    until(SEEN, async || {
        let workers = t.workers(NAME).await?.len();
        ensure!(workers == replicas, "{workers} workers, not {replicas}");
        Ok(())
    })
    .await
}

/// An upgrade, another that cannot work, and the way back, under load: the workers see nothing of it.
async fn back_and_forth(t: &Trial, publisher: &Publisher) -> Result<()> {
    let before = workers(t).await?;
    ensure!(before.len() == 1, "{before:?}");
    until(READY, async || {
        ensure!(publisher.confirmed() > MESSAGES / 20, "no load yet");
        Ok(())
    })
    .await?;
    upgraded(t, &["replicaCount=2", "maxRollouts=7", "resources.limits.memory=160Mi"]).await?;
    works(t, 2, "7").await?;
    let lease = t.api::<Lease>().get(RELEASE).await.context("ready, and no lease")?;
    ensure!(lease.spec.and_then(|spec| spec.holder_identity).is_some(), "ready, and nobody leads");
    let none = format!("image.digests.operator=sha256:{}", "0".repeat(64));
    let ended = upgrade(t, &[&none], HOPELESS).await?;
    ensure!(!ended.success, "helm took a release for installed whose image there is none of");
    let rollback = ["rollback", RELEASE, "1", "--namespace", &t.namespace, "--wait", "--timeout", "3m"];
    shell::run("helm", &rollback).await?;
    works(t, 1, "5").await?;
    ensure!(workers(t).await? == before, "the workers are others than before, or were started again");
    obeys(t, 2).await?;
    obeys(t, 1).await
}

/// The custom resources and the person's objects outlive the release, and so does the work.
async fn without(t: &Trial) -> Result<()> {
    let before = workers(t).await?;
    shell::run("helm", &["uninstall", RELEASE, "--namespace", &t.namespace, "--wait", "--timeout", "1m"]).await?;
    until(READY, async || {
        let left = operators(t).await?.len();
        ensure!(left == 0, "{left} pods of the operator are left");
        Ok(())
    })
    .await?;
    let queries: Api<WindowQuery> = Api::all(t.client.clone());
    queries.list(&ListParams::default()).await.context("the custom resources are gone")?;
    let pipeline = t.api::<IngestPipeline>().get(NAME).await?;
    ensure!(pipeline.metadata.deletion_timestamp.is_none(), "the pipeline is being deleted");
    t.publish(MESSAGES..MESSAGES + 20).await?;
    t.rows(READY, 0..MESSAGES + 20).await?;
    ensure!(workers(t).await? == before, "the workers are others than before, or were started again");
    Ok(())
}

async fn whole_life(t: &Trial) -> Result<()> {
    upgraded(t, &[]).await?;
    works(t, 1, "5").await?;
    t.telemetry().await?;
    let publisher = Publisher::new(MESSAGES, OVER);
    let (flow, changed) = tokio::join!(publisher.run(&t.hub), back_and_forth(t, &publisher));
    changed?;
    flow?;
    t.rows(READY, 0..MESSAGES).await?;
    t.no_dead_letters().await?;
    without(t).await?;
    let before = workers(t).await?;
    upgraded(t, &[]).await?;
    works(t, 1, "5").await?;
    obeys(t, 2).await?;
    let after = workers(t).await?;
    ensure!(before.iter().all(|worker| after.contains(worker)), "{before:?} were replaced: {after:?}");
    t.stands(NAME, SEEN, "Ready", "True", None).await.map(drop)
}

#[tokio::test]
async fn installing_upgrading_going_back_and_uninstalling_lose_nothing() -> Result<()> {
    lone_trial("release", async |t| {
        // Of two operators for one namespace each would put right what the other does.
        shell::run("helm", &["uninstall", operator::RELEASE, "--namespace", NAMESPACE, "--wait"]).await?;
        let lived = whole_life(t).await;
        if lived.is_err() {
            for pod in operators(t).await? {
                eprintln!("{}", t.log(&pod.name_any(), None, false).await.unwrap_or_default());
            }
        }
        let gone = ["uninstall", RELEASE, "--namespace", &t.namespace, "--ignore-not-found", "--wait"];
        let removed = shell::run("helm", &gone).await;
        // One for all again for the tests that follow, whatever is found.
        operator::install_chart(&t.client).await?;
        lived?;
        removed.map(drop)
    })
    .await
}
