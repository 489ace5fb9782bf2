//! Asks workers how they are, over HTTP, directly at their pods.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use k8s_openapi::api::core::v1::Pod;

use serde::de::DeserializeOwned;

use crate::names;

/// A worker that does not answer within this is taken as silent.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pods asked at the same time, for one pipeline.
const AT_ONCE: usize = 16;
/// Most of an answer, in bytes.
const MAX_ANSWER: usize = 256 * 1024;

/// Asks workers; connections are kept and used again.
#[derive(Debug, Clone)]
pub struct Workers {
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Default for Workers {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(PATIENCE));
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_mins(1)).build(connector),
        }
    }
}

/// True if a pod runs and is not told to end.
pub(crate) fn is_running(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

/// Name and address of a pod that runs: where its worker can be asked.
pub(crate) fn reachable(pod: &Pod) -> Option<(String, String)> {
    let address = pod.status.as_ref()?.pod_ip.clone().filter(|_| is_running(pod))?;
    Some((pod.metadata.name.clone()?, address))
}

impl Workers {
    /// What each pod, given by name and address, says of itself; in their order.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, pods: Vec<(String, String)>) -> Vec<(String, Option<T>)> {
        stream::iter(pods)
            .map(|(name, address)| async move { (name, self.one(&address).await) })
            .buffered(AT_ONCE)
            .collect()
            .await
    }

    async fn one<T: DeserializeOwned>(&self, address: &str) -> Option<T> {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let uri = format!("http://{host}:{}/status", names::WORKER_PORT).parse().ok()?;
        let answer = async {
            let response = self.client.get(uri).await.ok()?;
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.ok()?;
            serde_json::from_slice(&body.to_bytes()).ok()
        };
        tokio::time::timeout(PATIENCE, answer).await.ok()?
    }
}
