//! The chart installs an operator that may do what it must and no more.

use std::time::Duration;

use anyhow::{Result, ensure};
use drover_crds::api::{IngestPipeline, WindowQuery};
use drover_e2e::operator::{self, NAMESPACE, RELEASE};
use drover_e2e::pipeline::{NAME, discarding};
use drover_e2e::trial::{lone_trial, trial};
use drover_e2e::{shell, until};
use kube::Api;
use kube::api::ListParams;

#[tokio::test]
async fn the_custom_resources_may_come_after_the_operator() -> Result<()> {
    lone_trial("order", async |t| {
        let pipelines: Api<IngestPipeline> = Api::all(t.client.clone());
        let queries: Api<WindowQuery> = Api::all(t.client.clone());
        let others = pipelines.list(&ListParams::default()).await?.items.len()
            + queries.list(&ListParams::default()).await?.items.len();
        if others > 0 {
            // Removing the custom resources would remove these.
            eprintln!("left out: {others} objects of others are on this cluster");
            return Ok(());
        }
        shell::run("helm", &["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"]).await?;
        shell::run("kubectl", &["delete", "--ignore-not-found", "-f", "crds/"]).await?;
        let absent = async || {
            let mut words = vec![
                "upgrade",
                "--install",
                RELEASE,
                "charts/drover",
                "--namespace",
                NAMESPACE,
                "--set",
                "crds.install=false",
            ];
            let registry = format!("image.registry={}", drover_e2e::surroundings::variable("DROVER_IMAGE_REGISTRY")?);
            let tag = format!("image.tag={}", drover_e2e::surroundings::variable("DROVER_IMAGE_TAG")?);
            words.extend(["--set-string", &registry, "--set-string", &tag, "--set", "image.pullPolicy=IfNotPresent"]);
            shell::run("helm", &words).await
        };
        let installed = absent().await;
        // The cluster is whole again for the tests that follow, whatever is found.
        operator::install_crds().await?;
        operator::install_chart(&t.client).await?;
        installed?;
        t.apply::<IngestPipeline>(&discarding(NAME)).await?;
        t.ready(NAME).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn the_chart_names_what_it_needs() -> Result<()> {
    trial("chart", async |_| {
        let ended = shell::attempt("helm", &["template", "charts/drover"], "").await?;
        ensure!(!ended.success, "it needs no registry");
        ensure!(ended.err.contains("image.registry") || ended.err.contains("registry"), "{}", ended.err);
        let ended = shell::attempt(
            "helm",
            &["template", "charts/drover", "--set", "image.registry=r", "--set", "image.tga=1"],
            "",
        )
        .await?;
        ensure!(!ended.success && ended.err.contains("tga"), "a misspelt value is taken: {}", ended.err);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_operator_is_ready_and_restricted() -> Result<()> {
    trial("operator", async |t| {
        let pod = until::until(Duration::from_secs(5), async || operator::pod(&t.client).await).await?;
        let spec = pod.spec.unwrap_or_default();
        let context = spec.security_context.unwrap_or_default();
        ensure!(context.run_as_non_root == Some(true), "it may run as root");
        let containers = spec.containers.into_iter().map(|container| container.security_context.unwrap_or_default());
        for context in containers {
            ensure!(context.read_only_root_filesystem == Some(true), "it may write to its own root");
            ensure!(context.allow_privilege_escalation == Some(false), "it may gain privileges");
        }
        Ok(())
    })
    .await
}
