//! How the operator is set up: flags, or environment variables of the same meaning.

mod traces;

use std::net::SocketAddr;

use crate::hosts::AllowedHosts;
pub(crate) use traces::Collector;
pub use traces::Traces;

/// Settings of `drover-operator run`.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Image of the workers, where a pipeline names none
    #[arg(long, env = "DROVER_WORKER_IMAGE")]
    pub worker_image: String,
    /// Pull policy of the workers' image
    #[arg(long, env = "DROVER_WORKER_PULL_POLICY", default_value = "IfNotPresent",
          value_parser = ["Always", "IfNotPresent", "Never"])]
    pub worker_pull_policy: String,
    /// Namespaces to look after, comma-separated; all where it is empty
    #[arg(long, env = "DROVER_NAMESPACES", value_delimiter = ',', hide_default_value = true, default_value = "")]
    pub namespaces: Vec<String>,
    /// Hosts that hubs, stores and sinks may be on, comma-separated: names, `*.name` for all below it, addresses, networks. All where
    /// it is empty
    #[arg(long, env = "DROVER_ALLOWED_HOSTS", hide_default_value = true, default_value = "")]
    pub allowed_hosts: AllowedHosts,
    /// Where workers send spans
    #[command(flatten)]
    pub traces: Traces,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "DROVER_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Pipelines that change at the same time for what the operator itself causes: a new default image, a rotated secret
    #[arg(long, env = "DROVER_MAX_ROLLOUTS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_rollouts: u32,
    /// Format of the log
    #[arg(long, env = "DROVER_LOG_FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
    /// Namespace of the operator itself, from where workers may be asked for their state
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: Option<String>,
    /// Work only while holding a lease, so that several replicas may run; it needs the pod's name and namespace
    #[arg(long, env = "DROVER_LEADER_ELECTION", requires = "pod_name", requires = "pod_namespace")]
    pub leader_election: bool,
    /// Name of that lease, in the operator's own namespace
    #[arg(long, env = "DROVER_LEASE", default_value = "drover")]
    pub lease: String,
    /// Name of this cluster: state of queries that another one has made is refused
    #[arg(long, env = "DROVER_CLUSTER_ID")]
    pub cluster_id: Option<String>,
    /// Name of the operator's pod, as it reports events
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
}

impl Config {
    /// The namespaces that are watched; `None` stands for all of them.
    #[must_use]
    pub fn scopes(&self) -> Vec<Option<String>> {
        let named: Vec<_> = self.namespaces.iter().map(|n| n.trim()).filter(|n| !n.is_empty()).collect();
        if named.is_empty() { vec![None] } else { named.into_iter().map(|n| Some(n.to_owned())).collect() }
    }
}
