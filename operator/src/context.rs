//! What all reconciles share.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use drover_crds::api::{IngestPipeline, WindowQuery};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    jiff::Timestamp,
};
use kube::{Client, core::DeserializeGuard};
use kube_runtime::{events::Recorder, reflector::Store};
use tokio::sync::watch;

use crate::{
    audit::Journal,
    config::Config,
    gone::Gone,
    hub::{Hubs, Topologies},
    metrics::Metrics,
    minted::Minted,
    redrive::Redrives,
    rollout::{Ledgers, Turns},
    scales::Scales,
    secrets::Secrets,
    store::Stores,
    windows::Windows,
    workers::Workers,
};

/// A pipeline as it is watched: one that cannot be read does not stop the others.
pub type Guarded = DeserializeGuard<IngestPipeline>;

/// A query as it is watched.
pub type GuardedQuery = DeserializeGuard<WindowQuery>;

/// Clients, caches and settings.
#[derive(Clone)]
pub struct Context {
    /// The API server.
    pub client: Client,
    /// How the operator is set up.
    pub config: Config,
    /// Publishes Events.
    pub recorder: Recorder,
    /// What is counted.
    pub metrics: Metrics,
    /// What was done and is still to be told by an Event.
    pub(crate) journal: std::sync::Arc<Journal>,
    /// Connections to hubs.
    pub hubs: std::sync::Arc<Hubs>,
    /// Topologies that were seen to be there.
    pub topologies: std::sync::Arc<Topologies>,
    /// Samples queues and decides how many workers there should be.
    pub scales: std::sync::Arc<Scales>,
    /// What both sides of each rollout have done.
    pub(crate) ledgers: std::sync::Arc<Ledgers>,
    /// Whose turn it is to change for what the operator itself causes.
    pub(crate) turns: std::sync::Arc<Turns>,
    /// Sends dead letters back.
    pub redrives: std::sync::Arc<Redrives>,
    /// Users of hubs that are made for objects.
    pub minted: std::sync::Arc<Minted>,
    /// Looks at tables.
    pub stores: std::sync::Arc<Stores>,
    /// Secrets that were read.
    pub secrets: std::sync::Arc<Secrets>,
    /// Asks workers.
    pub workers: Workers,
    /// When this process last wrote an object's status.
    pub written: std::sync::Arc<Written>,
    /// Objects that may be gone.
    pub(crate) gone: std::sync::Arc<Gone>,
    /// The pipelines of every namespace that is watched.
    pub pipelines: Vec<Store<Guarded>>,
    /// The queries of every namespace that is watched.
    pub queries: Vec<Store<GuardedQuery>>,
    /// Hubs, stores and workers of queries.
    pub windows: std::sync::Arc<Windows>,
}

/// What is watched in one scope: all namespaces, or one.
#[derive(Clone)]
pub struct Caches {
    /// Workers' Deployments.
    pub deployments: Store<Deployment>,
    /// Their environments.
    pub config_maps: Store<ConfigMap>,
    /// Their identities.
    pub service_accounts: Store<ServiceAccount>,
    /// Whom they may talk to.
    pub network_policies: Store<NetworkPolicy>,
    /// How they may be evicted.
    pub disruption_budgets: Store<PodDisruptionBudget>,
    /// The pods.
    pub pods: Store<Pod>,
    /// True once all of them hold what there is.
    pub filled: watch::Receiver<bool>,
}

impl Caches {
    /// Waits until each cache holds what there is. Ends early only when the watches have ended, with the process.
    pub(crate) async fn ready(&self) {
        let _ = self.filled.clone().wait_for(|filled| *filled).await;
    }

    /// Waits for the stores themselves. Only one may: a store wakes the last who asked, and nobody else.
    pub(crate) async fn fill(&self) {
        let _ = futures::join!(
            self.deployments.wait_until_ready(),
            self.config_maps.wait_until_ready(),
            self.service_accounts.wait_until_ready(),
            self.network_policies.wait_until_ready(),
            self.disruption_budgets.wait_until_ready(),
            self.pods.wait_until_ready(),
        );
    }
}

/// When each object's status was last written, by its UID.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<String, Instant>>);

impl Written {
    /// How long ago that was.
    pub(crate) fn age(&self, uid: &str, now: Instant) -> Option<Duration> {
        self.lock().get(uid).map(|at| now.duration_since(*at))
    }

    /// It was written now.
    pub(crate) fn note(&self, uid: &str, now: Instant) {
        self.lock().insert(uid.to_owned(), now);
    }

    /// The object is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where time enters the operator.
#[expect(clippy::disallowed_methods, reason = "this is where time enters")]
pub(crate) fn now() -> (Timestamp, Instant) {
    (Timestamp::now(), Instant::now())
}
