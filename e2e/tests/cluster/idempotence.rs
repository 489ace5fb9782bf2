//! With nothing changed, nothing is written.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{IngestPipeline, WindowQuery};
use drover_e2e::cluster::{Cluster, Kind};
use drover_e2e::pipeline::{FLOW, NAME};
use drover_e2e::trial::{Trial, lone_trial};
use drover_e2e::until::throughout;
use drover_e2e::{metrics, operator};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;

/// Resources that only the operator and these tests write; what controllers do to them is a subresource's.
const OURS: [&str; 7] = [
    "ingestpipelines",
    "windowqueries",
    "deployments",
    "configmaps",
    "networkpolicies",
    "poddisruptionbudgets",
    "serviceaccounts",
];

async fn versions_of<K: Kind>(cluster: &Cluster, all: &mut BTreeMap<String, String>) -> Result<()> {
    for object in cluster.list::<K>("").await? {
        let name = format!("{}/{}/{}", cluster.namespace, K::kind(&()), object.name_any());
        all.insert(name, object.resource_version().unwrap_or_default());
    }
    Ok(())
}

/// The version of every object of a namespace.
async fn versions(cluster: &Cluster) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    versions_of::<IngestPipeline>(cluster, &mut all).await?;
    versions_of::<WindowQuery>(cluster, &mut all).await?;
    versions_of::<Deployment>(cluster, &mut all).await?;
    versions_of::<Pod>(cluster, &mut all).await?;
    versions_of::<ConfigMap>(cluster, &mut all).await?;
    versions_of::<Secret>(cluster, &mut all).await?;
    versions_of::<ServiceAccount>(cluster, &mut all).await?;
    versions_of::<NetworkPolicy>(cluster, &mut all).await?;
    versions_of::<PodDisruptionBudget>(cluster, &mut all).await?;
    for event in cluster.list::<Event>("").await? {
        // What a kubelet repeats about its node is not ours.
        if event.source.as_ref().and_then(|s| s.component.as_deref()) != Some("kubelet") {
            let name = format!("{}/Event/{}", cluster.namespace, event.name_any());
            all.insert(name, event.resource_version().unwrap_or_default());
        }
    }
    versions_of::<Lease>(cluster, &mut all).await?;
    Ok(all)
}

/// Requests to the API server that write, those that change nothing among them; a status counts where it is ours.
async fn writes(t: &Trial) -> Result<BTreeMap<String, f64>> {
    let request =
        kube::core::Request::new("").get("metrics", &kube::api::GetParams::default()).context("no request")?;
    let text = t.client.request_text(request).await?;
    let mut all = BTreeMap::new();
    for resource in OURS {
        let named = format!("resource=\"{resource}\"");
        let counts = |labels: &str| {
            let writes = ["POST", "PUT", "PATCH", "APPLY", "DELETE"]
                .iter()
                .any(|verb| labels.contains(&format!("verb=\"{verb}\"")));
            // Status of others' kinds is written by controllers; a kubelet renews the operator's token.
            let theirs = labels.contains("subresource=\"status\"") && !labels.contains("group=\"drover.dev\"")
                || labels.contains("subresource=\"token\"");
            labels.contains(&named) && writes && !theirs
        };
        all.insert(
            resource.to_owned(),
            metrics::sum_where(&text, "apiserver_request_total", counts).unwrap_or_default(),
        );
    }
    Ok(all)
}

/// The same versions. An Event of long ago may have expired meanwhile, which is nobody's write.
fn unchanged(now: &BTreeMap<String, String>, before: &BTreeMap<String, String>) -> bool {
    now.iter().all(|(name, version)| before.get(name) == Some(version))
        && before.keys().all(|name| now.contains_key(name) || name.contains("/Event/"))
}

async fn nothing_is_written(t: &Trial, span: Duration) -> Result<()> {
    t.telemetry().await?;
    t.publish(0..10).await?;
    t.rows(FLOW, 0..10).await?;
    let operator = operator::namespace(&t.client);
    // What the start has set in motion comes to rest first: as long unchanged as the operator takes to write numbers again.
    let settled = async || anyhow::Ok((versions(t).await?, versions(&operator).await?, writes(t).await?));
    let mut before = settled().await?;
    let rest = Duration::from_secs(18);
    drover_e2e::until::within(Duration::from_mins(2), async || {
        let start = before.clone();
        let still = throughout(rest, async || {
            let now = settled().await?;
            let same = unchanged(&now.0, &start.0) && unchanged(&now.1, &start.1) && now.2 == start.2;
            before = now;
            ensure!(same, "still at work");
            Ok(())
        });
        still.await
    })
    .await?;
    let definitions = t.hub.definitions().await?;
    throughout(span, async || {
        let now = settled().await?;
        ensure!(unchanged(&now.0, &before.0), "an object was written: {:?} was {:?}", now.0, before.0);
        ensure!(unchanged(&now.1, &before.1), "an object was written: {:?} was {:?}", now.1, before.1);
        ensure!(now.2 == before.2, "requests that write: {:?} was {:?}", now.2, before.2);
        Ok(())
    })
    .await?;
    ensure!(t.hub.definitions().await? == definitions, "the hub's definitions changed");
    ensure!(t.api::<IngestPipeline>().get(NAME).await?.metadata.deletion_timestamp.is_none(), "it is being deleted");
    Ok(())
}

#[tokio::test]
async fn with_nothing_changed_nothing_is_written() -> Result<()> {
    lone_trial("idempotence", async |t| nothing_is_written(t, Duration::from_secs(20)).await).await
}

#[tokio::test]
#[ignore = "takes ten minutes"]
async fn with_nothing_changed_nothing_is_written_in_ten_minutes() -> Result<()> {
    lone_trial("idempotence-long", async |t| nothing_is_written(t, Duration::from_mins(10)).await).await
}
