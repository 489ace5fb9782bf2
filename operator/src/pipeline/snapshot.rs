//! Everything that a decision about a pipeline is made from, read once. Data only.

use std::{sync::Arc, time::Duration};

use drover_crds::{
    api::{Evidence, IngestPipeline},
    resolved::Pipeline,
};
use drover_worker::status::WorkerStatus;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    jiff::Timestamp,
};

use crate::{
    config::{Collector, Config},
    minted::Found,
    problem::{External, Problem},
    redrive::Progress,
    rollout::Mirror,
    scaling::Decision,
};

/// What was seen of a pipeline and of what belongs to it.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// When it was seen.
    pub now: Timestamp,
    /// How long ago its status was written by this process, if it was.
    pub status_age: Option<Duration>,
    /// The object as the API server has it.
    pub object: Arc<IngestPipeline>,
    /// What its spec means, or why it is refused.
    pub admitted: Result<Pipeline, Problem>,
    /// Its secrets; `None` where one is missing or not looked at, which `hub` or `store` then tells.
    pub secrets: Option<Secrets>,
    /// Its queues.
    pub hub: External<HubFacts>,
    /// Its table; `Unseen` also where the sink needs none.
    pub store: External<()>,
    /// What it owns in the cluster.
    pub owned: Owned,
    /// What was done at its hub and no Event has told yet.
    pub made: Vec<String>,
    /// Suspects that wait at each step; `None` where that is not known or there can be none.
    pub suspects: Option<Vec<u32>>,
    /// What its workers say of themselves.
    pub workers: Vec<Worker>,
    /// How many workers there should be; `None` where it is not decided yet, and what runs stays.
    pub scale: Option<Decision>,
    /// The mirror queue that the status names.
    pub mirror: Mirror,
    /// What both sides of a rollout have done since its phase began.
    pub evidence: Option<Evidence>,
    /// How much longer batches of the new side take than they would at the old side's cost.
    pub pace: Option<f64>,
    /// A revision that the operator itself causes may start.
    pub turn: bool,
    /// The redrive that this process runs or has run.
    pub redrive: Option<Progress>,
    /// What the operator was installed with.
    pub install: Install,
}

/// What a revision needs to know of the secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Secrets {
    /// Changes with what the workers read of the secrets.
    pub digest: String,
    /// Users of the hub that the operator makes, where it does.
    pub minted: Option<Found>,
    /// Port of the hub.
    pub hub_port: u16,
    /// Port of the sink's server, where there is one.
    pub sink_port: Option<u16>,
}

/// What the hub says of a pipeline's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HubFacts {
    /// Messages in the dead-letter queue.
    pub dead: u32,
    /// Since when the oldest of them is there, where that is known.
    pub oldest: Option<Timestamp>,
}

/// What a pipeline owns in the cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owned {
    /// One for each revision.
    pub deployments: Vec<Arc<Deployment>>,
    /// Those that try a revision on copies of what arrives.
    pub previews: Vec<Arc<Deployment>>,
    /// One for each step of suspects that there has been.
    pub suspects: Vec<Arc<Deployment>>,
    /// One for each revision.
    pub config_maps: Vec<Arc<ConfigMap>>,
    /// One.
    pub service_account: Option<Arc<ServiceAccount>>,
    /// One.
    pub network_policy: Option<Arc<NetworkPolicy>>,
    /// One.
    pub disruption_budget: Option<Arc<PodDisruptionBudget>>,
    /// Of all revisions.
    pub pods: Vec<Arc<Pod>>,
}

/// A worker and what it says.
#[derive(Debug, Clone)]
pub(crate) struct Worker {
    /// Name of its pod.
    pub pod: String,
    /// What it says; `None` where it did not answer.
    pub status: Option<WorkerStatus>,
}

/// What the operator was installed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Install {
    /// Image of workers, where a pipeline names none.
    pub worker_image: String,
    /// Its pull policy.
    pub pull_policy: String,
    /// Namespace of the operator.
    pub namespace: Option<String>,
    /// Workers write their log as the operator does: as JSON.
    pub json_log: bool,
    /// Where workers of pipelines send spans.
    pub collector: Collector,
}

impl Install {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            worker_image: config.worker_image.clone(),
            pull_policy: config.worker_pull_policy.clone(),
            namespace: config.pod_namespace.clone(),
            json_log: config.log_format == "json",
            collector: config.traces.collector(),
        }
    }
}

impl Snapshot {
    /// Name of the pipeline.
    pub(crate) fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// What the worker in a pod says, where it has answered.
    pub(crate) fn said(&self, pod: &Pod) -> Option<&WorkerStatus> {
        let name = pod.metadata.name.as_deref()?;
        self.workers.iter().find(|w| w.pod == name)?.status.as_ref()
    }

    /// The status as it was last written.
    pub(crate) fn old_status(&self) -> drover_crds::api::Status {
        self.object.status.clone().unwrap_or_default()
    }
}
