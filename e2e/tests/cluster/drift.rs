//! What is changed by hand behind the operator's back is put right.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::IngestPipeline;
use drover_e2e::operator;
use drover_e2e::pipeline::{FLOW, NAME, SEEN};
use drover_e2e::trial::{Trial, trial};
use drover_e2e::until::{until, within};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;

/// In which drift of the hub is promised to be put right, and a little for the test's own look at it.
const PROMISED: Duration = Duration::from_secs(65);

/// The name of the revision's Deployment and ConfigMap.
async fn revision(t: &Trial) -> Result<String> {
    let pipeline = t.telemetry().await?;
    let active = pipeline.status.and_then(|status| status.active_revision).context("no active revision")?;
    Ok(format!("{NAME}-{active}"))
}

#[tokio::test]
async fn a_deleted_queue_and_its_bindings_come_back() -> Result<()> {
    trial("drift-queue", async |t| {
        t.telemetry().await?;
        let before = t.hub.definitions().await?;
        t.hub.delete_queue(NAME).await?;
        t.hub.delete_queue(&format!("{NAME}.dead")).await?;
        within(PROMISED, async || {
            ensure!(t.hub.definitions().await? == before, "the hub's definitions are not what they were");
            Ok(())
        })
        .await?;
        t.publish(0..20).await?;
        // Workers notice that their queue was deleted and consume again.
        t.rows(SEEN, 0..20).await
    })
    .await
}

#[tokio::test]
async fn a_removed_binding_and_a_deleted_exchange_come_back() -> Result<()> {
    trial("drift-binding", async |t| {
        t.telemetry().await?;
        let before = t.hub.definitions().await?;
        t.hub.unbind(NAME, "amq.topic", "devices.#").await?;
        t.hub.delete_exchange(&format!("{NAME}.drover")).await?;
        within(PROMISED, async || {
            ensure!(t.hub.definitions().await? == before, "the hub's definitions are not what they were");
            Ok(())
        })
        .await?;
        t.publish(0..20).await?;
        t.rows(FLOW, 0..20).await
    })
    .await
}

#[tokio::test]
async fn deleted_objects_come_back() -> Result<()> {
    trial("drift-objects", async |t| {
        let name = revision(t).await?;
        t.delete::<Deployment>(&name, &DeleteParams::default()).await?;
        t.delete::<ConfigMap>(&name, &DeleteParams::default()).await?;
        t.delete::<NetworkPolicy>(NAME, &DeleteParams::default()).await?;
        t.awaits(&name, SEEN, |map: &ConfigMap| {
            ensure!(map.metadata.deletion_timestamp.is_none(), "it is being deleted");
            Ok(())
        })
        .await?;
        t.awaits(NAME, SEEN, |_: &NetworkPolicy| Ok(())).await?;
        t.awaits(&name, SEEN, |deployment: &Deployment| {
            let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas);
            ensure!(ready == Some(1), "{ready:?} pods are ready");
            Ok(())
        })
        .await?;
        t.ready(NAME).await?;
        t.publish(0..20).await?;
        t.rows(FLOW, 0..20).await
    })
    .await
}

#[tokio::test]
async fn a_deployment_edited_by_hand_is_put_right() -> Result<()> {
    trial("drift-edit", async |t| {
        let name = revision(t).await?;
        let before = t.api::<Deployment>().get(&name).await?.spec.context("no spec")?;
        let container = before.template.spec.as_ref().and_then(|spec| spec.containers.first()).context("no container")?;
        let edits = [
            json!({ "spec": { "replicas": 3 } }),
            json!({ "spec": { "template": { "spec": { "containers": [{ "name": container.name, "image": "elsewhere.example/other:1" }] } } } }),
            json!({ "spec": { "template": { "spec": { "containers": [{ "name": container.name, "env": [{ "name": "EXTRA", "value": "1" }] }] } } } }),
        ];
        for edit in edits {
            let patch = kube::api::Patch::Strategic(&edit);
            t.api::<Deployment>().patch(&name, &kube::api::PatchParams::default(), &patch).await?;
            until(SEEN, async || {
                let now = t.api::<Deployment>().get(&name).await?.spec.context("no spec")?;
                ensure!(now == before, "not yet put right after {edit}");
                Ok(())
            })
            .await?;
        }
        t.ready(NAME).await?;
        // Each edit is in the audit once, with who it was done for and why.
        let uid = t.api::<IngestPipeline>().get(NAME).await?.uid().context("no uid")?;
        // It is written once the API server has answered, which the edit's end is seen before.
        until(SEEN, async || {
            let log = operator::log(&t.client, None).await?;
            let lines = log.lines().filter(|line| line.contains("drover::audit") && line.contains(&uid));
            let repairs: Vec<_> = lines.filter(|line| line.contains("verb=\"replace\"") && line.contains(&name)).collect();
            ensure!(repairs.len() >= 3 && repairs.iter().all(|line| line.contains("outcome=\"done\"")), "{repairs:#?}");
            Ok(())
        })
        .await?;
        let pods = t.workers(NAME).await?;
        ensure!(pods.iter().all(|pod| pod.name_any().starts_with(&name)), "pods of another revision");
        Ok(())
    })
    .await
}
