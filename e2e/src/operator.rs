//! The operator, installed once for all tests of a run by its chart, with the rights that the chart gives it and no more.

use std::fs::{File, OpenOptions};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, DeleteParams, ListParams, LogParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::cluster::{Cluster, MANAGER, is_ready};
use crate::surroundings::variable;
use crate::until::until;
use crate::{hub, shell, store};

/// Where the operator runs.
pub const NAMESPACE: &str = "drover-system";

/// Where the operator serves `/metrics`.
pub const PORT: u16 = 8080;

/// The Helm release.
pub const RELEASE: &str = "drover";

/// Marks the namespaces of tests.
pub const MARK: &str = "drover.dev/e2e";

/// What the names of tests' namespaces, virtual hosts and databases begin with.
pub const PREFIX: &str = "e2e-";

/// A namespace or virtual host is gone with all that is in it: a bench fills one with thousands of objects and queues.
pub const REMOVED: Duration = Duration::from_secs(30);

/// Held while this process lives: another run of these tests on this machine waits.
static INSTALLED: OnceCell<File> = OnceCell::const_new();

/// Installs custom resources and operator, unless this run did so already, and removes what runs before it left behind.
pub async fn installed(client: &Client) -> Result<()> {
    let install = async || {
        let lock = lock().await?;
        install_crds().await?;
        install_chart(client).await?;
        sweep(client).await?;
        anyhow::Ok(lock)
    };
    INSTALLED.get_or_try_init(install).await.context("the operator cannot be installed").map(drop)
}

async fn lock() -> Result<File> {
    let path = std::env::temp_dir().join("drover-e2e.lock");
    let file = OpenOptions::new().create(true).append(true).open(&path).with_context(|| path.display().to_string())?;
    let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
    locked.await?.context("no lock")
}

/// The custom resources, as the README says.
pub async fn install_crds() -> Result<()> {
    shell::run("kubectl", &["apply", "--server-side", "--force-conflicts", "-f", "crds/"]).await.map(drop)
}

/// The chart, in a namespace that allows nothing but restricted pods.
pub async fn install_chart(client: &Client) -> Result<()> {
    install_chart_with(client, &[]).await
}

/// The chart with more values, each `name=value`; those that are not named are the chart's own again.
pub async fn install_chart_with(client: &Client, values: &[&str]) -> Result<()> {
    let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    let namespace =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE, "labels": labels } });
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.patch(NAMESPACE, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&namespace)).await?;
    let registry = format!("image.registry={}", variable("DROVER_IMAGE_REGISTRY")?);
    let tag = format!("image.tag={}", variable("DROVER_IMAGE_TAG")?);
    let mut words = vec!["upgrade", "--install", RELEASE, "charts/drover", "--namespace", NAMESPACE];
    words.extend(["--wait", "--timeout", "3m", "--set-string", &registry, "--set-string", &tag]);
    words.extend(["--set", "image.pullPolicy=IfNotPresent"]);
    words.extend(values.iter().flat_map(|value| ["--set", *value]));
    shell::run("helm", &words).await.map(drop)
}

/// Removes what runs that were killed left behind.
async fn sweep(client: &Client) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let old = namespaces.list(&ListParams::default().labels(MARK)).await?;
    for namespace in &old {
        namespaces.delete(&namespace.name_any(), &DeleteParams::default()).await?;
    }
    let gone = until(REMOVED, async || {
        let left = namespaces.list(&ListParams::default().labels(MARK)).await?.items.len();
        anyhow::ensure!(left == 0, "{left} namespaces of an earlier run are still there");
        Ok(())
    });
    gone.await?;
    let hosts = crate::management::call("GET", "vhosts", None).await?;
    for host in hosts.as_array().into_iter().flatten().filter_map(|host| host["name"].as_str()) {
        if host.starts_with(PREFIX) {
            hub::remove(host).await?;
        }
    }
    let users = crate::management::call("GET", "users", None).await?;
    for user in users.as_array().into_iter().flatten().filter_map(|user| user["name"].as_str()) {
        if user.starts_with(&format!("drover.{PREFIX}")) {
            crate::management::call("DELETE", &format!("users/{}", crate::management::segment(user)), None).await?;
        }
    }
    for database in store::databases(&PREFIX.replace('-', "_")).await? {
        store::remove(&database).await?;
    }
    Ok(())
}

/// The operator's namespace.
#[must_use]
pub fn namespace(client: &Client) -> Cluster {
    Cluster { client: client.clone(), namespace: NAMESPACE.to_owned() }
}

/// The operator's pods that are ready and not being deleted.
pub async fn pods(client: &Client) -> Result<Vec<Pod>> {
    let mut pods = namespace(client).list::<Pod>("").await?;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod));
    Ok(pods)
}

/// The operator's pod, where it has one replica.
pub async fn pod(client: &Client) -> Result<Pod> {
    pods(client).await?.into_iter().next().context("no pod of the operator is ready")
}

/// The name of the pod that holds the lease.
pub async fn leader(client: &Client) -> Result<String> {
    let lease = namespace(client).api::<Lease>().get(RELEASE).await.context("no lease")?;
    lease.spec.and_then(|spec| spec.holder_identity).context("nobody holds the lease")
}

/// The logs of all replicas, all of it or of the last seconds.
pub async fn log(client: &Client, since_seconds: Option<i64>) -> Result<String> {
    let parameters = LogParams { since_seconds, ..Default::default() };
    let mut logs = String::new();
    for pod in pods(client).await? {
        logs.push_str(&namespace(client).api::<Pod>().logs(&pod.name_any(), &parameters).await?);
    }
    Ok(logs)
}

/// What the operator tells of itself under `/metrics`.
pub async fn metrics(client: &Client) -> Result<String> {
    let pod = pod(client).await?;
    namespace(client).ask(&pod.name_any(), PORT, "metrics").await
}
