//! Objects of one namespace, as a user with kubectl sees them.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GetParams, ListParams, LogParams, Patch, PatchParams};
use kube::core::Request;
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::shell::{self, Ended};
use crate::until::until;

/// The field manager of what tests write.
pub const MANAGER: &str = "drover-e2e";

/// A namespace.
#[derive(Clone)]
pub struct Cluster {
    /// The client, as the cluster's administrator.
    pub client: Client,
    /// Name of the namespace.
    pub namespace: String,
}

impl Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// A kind of the namespace's objects.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static
{
}
impl<K> Kind for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static
{
}

impl Cluster {
    /// The API of a kind.
    #[must_use]
    pub fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies a manifest of a kind, server-side; whatever is wrong with it, the API server says.
    pub async fn apply<K: Kind>(&self, manifest: &Value) -> kube::Result<DynamicObject> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<K>(&()));
        let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
        let mut manifest = manifest.clone();
        manifest["apiVersion"] = K::api_version(&()).into();
        manifest["kind"] = K::kind(&()).into();
        // As kubectl does: a field that does not exist is refused.
        let with = PatchParams::apply(MANAGER).force().validation_strict();
        api.patch(name, &with, &Patch::Apply(&manifest)).await
    }

    /// Changes an object with a merge patch.
    pub async fn merge<K: Kind>(&self, name: &str, patch: &Value) -> kube::Result<K> {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
    }

    /// Objects of a kind with these labels.
    pub async fn list<K: Kind>(&self, labels: &str) -> Result<Vec<K>> {
        Ok(self.api::<K>().list(&ListParams::default().labels(labels)).await?.items)
    }

    /// Deletes an object; what is not there is no failure.
    pub async fn delete<K: Kind>(&self, name: &str, with: &DeleteParams) -> Result<()> {
        match self.api::<K>().delete(name, with).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            other => other.map(drop).context("not deleted"),
        }
    }

    /// Waits until an object is there and pleases.
    pub async fn awaits<K: Kind>(
        &self,
        name: &str,
        expected: Duration,
        pleases: impl Fn(&K) -> Result<()>,
    ) -> Result<K> {
        let api = self.api::<K>();
        let found = until(expected, async || {
            let object = api.get(name).await?;
            pleases(&object)?;
            Ok(object)
        });
        found.await.with_context(|| format!("{} {name}", K::kind(&())))
    }

    /// Waits until an object is gone.
    pub async fn awaits_gone<K: Kind>(&self, name: &str, expected: Duration) -> Result<()> {
        let api = self.api::<K>();
        let gone = until(expected, async || {
            ensure!(api.get_opt(name).await?.is_none(), "it is still there");
            Ok(())
        });
        gone.await.with_context(|| format!("{} {name}", K::kind(&())))
    }

    /// A pipeline's worker pods that are not being deleted.
    pub async fn workers(&self, pipeline: &str) -> Result<Vec<Pod>> {
        let mut pods = self.list::<Pod>(&format!("drover.dev/pipeline={pipeline}")).await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// What a pod serves under a path, through the API server.
    pub async fn ask(&self, pod: &str, port: u16, path: &str) -> Result<String> {
        let prefix = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy", self.namespace);
        let request = Request::new(prefix).get(path, &GetParams::default()).context("no such path")?;
        self.client.request_text(request).await.with_context(|| format!("{pod} does not answer /{path}"))
    }

    /// A pod's log, of its only container or of one of several, as it runs or of the time before it was started again.
    pub async fn log(&self, pod: &str, container: Option<&str>, previous: bool) -> Result<String> {
        let container = container.map(str::to_owned);
        Ok(self.api::<Pod>().logs(pod, &LogParams { container, previous, ..Default::default() }).await?)
    }

    /// Runs kubectl in this namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        shell::run("kubectl", &[&["--namespace", &self.namespace], arguments].concat()).await
    }

    /// What kubectl's plugin says in this namespace.
    pub async fn drover(&self, arguments: &[&str]) -> Result<String> {
        let ended = self.attempt_drover(arguments).await?;
        ensure!(ended.success, "kubectl drover {}: {}{}", arguments.join(" "), ended.out, ended.err);
        Ok(ended.out)
    }

    /// Runs kubectl's plugin in this namespace, whatever comes of it.
    pub async fn attempt_drover(&self, arguments: &[&str]) -> Result<Ended> {
        let program = shell::profile()?.join("kubectl-drover");
        shell::attempt(&program.to_string_lossy(), &[&["--namespace", &self.namespace], arguments].concat(), "").await
    }

    /// Runs kubectl in this namespace, whatever comes of it.
    pub async fn attempt_kubectl(&self, arguments: &[&str]) -> Result<Ended> {
        shell::attempt("kubectl", &[&["--namespace", &self.namespace], arguments].concat(), "").await
    }
}

/// The pod is ready.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// How often the pod's containers were started again.
#[must_use]
pub fn restarts(pod: &Pod) -> i32 {
    let containers = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    containers.iter().map(|container| container.restart_count).sum()
}

/// One line about a pod.
#[must_use]
pub fn line(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let waiting = status.container_statuses.unwrap_or_default().into_iter().filter_map(|c| c.state?.waiting?.reason);
    let waiting: Vec<_> = waiting.collect();
    format!(
        "{} {} ready={} restarts={} {}",
        pod.name_any(),
        status.phase.unwrap_or_default(),
        is_ready(pod),
        restarts(pod),
        waiting.join(" ")
    )
}
