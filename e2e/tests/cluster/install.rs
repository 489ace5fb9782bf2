//! The chart installs an operator that may do what it must and no more.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{IngestPipeline, WindowQuery};
use drover_e2e::operator::{self, NAMESPACE, RELEASE};
use drover_e2e::pipeline::{NAME, READY, SEEN, discarding};
use drover_e2e::shell::{self, Ended};
use drover_e2e::surroundings::variable;
use drover_e2e::trial::{Trial, lone_trial, trial};
use drover_e2e::until;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

/// The custom resources, by the names of their definitions.
const CRDS: [&str; 2] = ["ingestpipelines.drover.dev", "windowqueries.drover.dev"];
/// A person who owns a namespace.
const OWNER: &str = "drover-e2e-owner";
/// And what they install.
const OWNED: &str = "drover-owned";

/// Removes release and custom resources; not where that would remove objects of others.
async fn removed(client: &Client) -> Result<bool> {
    let pipelines: Api<IngestPipeline> = Api::all(client.clone());
    let queries: Api<WindowQuery> = Api::all(client.clone());
    let others = pipelines.list(&ListParams::default()).await?.items.len()
        + queries.list(&ListParams::default()).await?.items.len();
    if others > 0 {
        eprintln!("left out: {others} objects of others are on this cluster");
        return Ok(false);
    }
    uninstall().await?;
    delete_crds().await?;
    Ok(true)
}

async fn uninstall() -> Result<()> {
    let words = ["uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout", "1m"];
    shell::run("helm", &words).await.map(drop)
}

async fn delete_crds() -> Result<()> {
    shell::run("kubectl", &["delete", "--ignore-not-found", "-f", "crds/"]).await.map(drop)
}

/// Installs the chart without waiting, with more words for Helm.
async fn install(release: &str, namespace: &str, more: &[&str]) -> Result<Ended> {
    let registry = format!("image.registry={}", variable("DROVER_IMAGE_REGISTRY")?);
    let tag = format!("image.tag={}", variable("DROVER_IMAGE_TAG")?);
    let mut words = vec!["upgrade", "--install", release, "charts/drover", "--namespace", namespace];
    words.extend(["--set-string", &registry, "--set-string", &tag, "--set", "image.pullPolicy=IfNotPresent"]);
    words.extend(more);
    shell::attempt("helm", &words, "").await
}

#[tokio::test]
async fn the_custom_resources_may_come_after_the_operator() -> Result<()> {
    lone_trial("order", async |t| {
        if !removed(&t.client).await? {
            return Ok(());
        }
        let installed = install(RELEASE, NAMESPACE, &["--set", "crds.install=false"]).await;
        // The cluster is whole again for the tests that follow, whatever is found.
        operator::install_crds().await?;
        operator::install_chart(&t.client).await?;
        let ended = installed?;
        ensure!(ended.success, "helm: {}{}", ended.out, ended.err);
        t.apply::<IngestPipeline>(&discarding(NAME)).await?;
        t.ready(NAME).await.map(drop)
    })
    .await
}

/// What tells whether custom resources are the same ones: deleting one and making it again deletes all objects.
async fn uids(client: &Client) -> Result<Vec<String>> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut uids = Vec::new();
    for name in CRDS {
        let crd = crds.get_opt(name).await?.with_context(|| format!("{name} is gone"))?;
        ensure!(crd.metadata.deletion_timestamp.is_none(), "{name} is being deleted");
        uids.push(crd.uid().context("no uid")?);
    }
    Ok(uids)
}

/// The release has the custom resources.
async fn has_crds() -> Result<()> {
    let manifest = shell::run("helm", &["get", "manifest", RELEASE, "--namespace", NAMESPACE]).await?;
    for name in CRDS {
        ensure!(manifest.contains(&format!("name: {name}")), "the release has no {name}");
    }
    Ok(())
}

async fn made_and_kept(t: &Trial) -> Result<()> {
    operator::install_chart(&t.client).await?;
    has_crds().await?;
    let made = uids(&t.client).await?;
    uninstall().await?;
    ensure!(uids(&t.client).await? == made, "uninstalling did not keep the custom resources");
    operator::install_chart(&t.client).await?;
    has_crds().await?;
    ensure!(uids(&t.client).await? == made, "the second installation made others");
    t.apply::<IngestPipeline>(&discarding(NAME)).await?;
    t.ready(NAME).await?;
    t.delete::<IngestPipeline>(NAME, &DeleteParams::default()).await?;
    t.awaits_gone::<IngestPipeline>(NAME, SEEN).await
}

#[tokio::test]
async fn helm_makes_the_custom_resources_keeps_them_and_takes_them_over() -> Result<()> {
    lone_trial("crds", async |t| {
        if !removed(&t.client).await? {
            return Ok(());
        }
        let found = made_and_kept(t).await;
        // Those that kubectl applied again, for the tests that follow, whatever is found.
        let left = t.attempt_kubectl(&["delete", "ingestpipelines", "--all", "--timeout", "1m"]).await?;
        if !left.success {
            eprintln!("{}", left.err);
        }
        uninstall().await?;
        delete_crds().await?;
        operator::install_crds().await?;
        operator::install_chart(&t.client).await?;
        found
    })
    .await
}

/// Lets the owner have the rights of a role in the trial's namespace.
async fn bind(t: &Trial, name: &str, role: &str) -> Result<()> {
    let (role, user) = (format!("--clusterrole={role}"), format!("--user={OWNER}"));
    t.kubectl(&["create", "rolebinding", name, &role, &user]).await.map(drop)
}

/// What `admin` is where no release has added pipelines and queries to it.
async fn plain_admin(t: &Trial, name: &str) -> Result<()> {
    let roles: Api<ClusterRole> = Api::all(t.client.clone());
    let mut granted = roles.get("admin").await?.rules.unwrap_or_default();
    granted.retain(|rule| !rule.api_groups.iter().flatten().any(|group| group == "drover.dev"));
    let mut role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole" });
    role["metadata"] = json!({ "name": name });
    role["rules"] = serde_json::to_value(granted)?;
    apply(&role.to_string()).await
}

async fn apply(manifest: &str) -> Result<()> {
    let ended = shell::attempt("kubectl", &["apply", "-f", "-"], manifest).await?;
    ensure!(ended.success, "{}", ended.err);
    Ok(())
}

/// Uninstalls the owner's release, once its pods have ended: the cluster's garbage collector, which ends them else, is long at a loss where
/// custom resources have come and gone.
async fn disowned(t: &Trial) -> Result<()> {
    // There may be none.
    t.attempt_kubectl(&["scale", "deployment", "--all", "--replicas=0"]).await?;
    until::until(READY, async || {
        let left = t.list::<Pod>("").await?.len();
        ensure!(left == 0, "{left} pods are left");
        Ok(())
    })
    .await?;
    let words = ["uninstall", OWNED, "--namespace", &t.namespace, "--ignore-not-found", "--kube-as-user", OWNER];
    shell::run("helm", &words).await.map(drop)
}

/// First refused, for nobody grants what they do not have; then with the role of the chart's README.
async fn installed_by_the_owner(t: &Trial, admin: &str) -> Result<()> {
    plain_admin(t, admin).await?;
    bind(t, "owner", admin).await?;
    let watched = format!("watchNamespaces={{{}}}", t.namespace);
    let mut words = vec!["--values", "charts/drover/ci/namespaced-values.yaml", "--set", &watched];
    words.extend(["--kube-as-user", OWNER, "--wait", "--timeout", "1m"]);
    let ended = install(OWNED, &t.namespace, &words).await?;
    ensure!(!ended.success && ended.err.contains("RBAC permissions not currently held"), "{}{}", ended.out, ended.err);
    disowned(t).await?;
    let readme = std::fs::read_to_string(shell::repository().join("charts/drover/README.md"))?;
    let (_, role) = readme.split_once("```yaml\n").context("the README has no role")?;
    apply(role.split_once("```").context("no end of the role")?.0).await?;
    bind(t, "drover-installer", "drover-installer").await?;
    let ended = install(OWNED, &t.namespace, &words).await?;
    ensure!(ended.success, "{}{}", ended.out, ended.err);
    Ok(())
}

#[tokio::test]
async fn the_owner_of_a_namespace_installs_with_the_rights_that_the_readme_names() -> Result<()> {
    trial("owner", async |t| {
        let admin = format!("{}-admin", t.namespace);
        let installed = installed_by_the_owner(t, &admin).await;
        let removed = disowned(t).await;
        let roles = ["delete", "--ignore-not-found", "clusterrole", "drover-installer", &admin];
        shell::run("kubectl", &roles).await?;
        installed?;
        removed
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
