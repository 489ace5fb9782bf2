//! A cluster in memory: it does what plans say, and its Deployments get pods when the test lets them.

use std::{sync::Arc, time::Duration};

use drover_crds::api::{Evidence, IngestPipeline, IngestPipelineSpec, RolloutPhase, ScalingMode, Status};
use drover_worker::status::{Failures, HoldingStatus, WorkerStatus};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentStatus},
        core::v1::{ContainerState, ContainerStateWaiting, ContainerStatus, Pod, PodStatus},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use serde_json::{Value, json};

use super::super::{
    decide::decide,
    plan::{Doomed, Object, Plan},
    size,
    snapshot::{HubFacts, Install, Owned, Secrets, Snapshot, Worker},
};
use crate::{
    config::Collector,
    names,
    pipeline::admit,
    problem::{External, Problem},
    redrive::{Order, Progress},
    rollout::Mirror,
    scaling::{Decision, Reason},
};

/// The world that a pipeline lives in.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub object: IngestPipeline,
    pub owned: Owned,
    pub secrets: Option<Secrets>,
    pub hub: External<HubFacts>,
    pub store: External<()>,
    pub workers: Vec<Worker>,
    pub suspects: Option<Vec<u32>>,
    pub clock: Timestamp,
    pub status_age: Option<Duration>,
    pub scale: Option<Decision>,
    pub turn: bool,
    /// What both sides do in each phase that is judged.
    pub does: Evidence,
    /// The same once the new side is on the source, where that is something else.
    pub does_on_source: Option<Evidence>,
    pub redrive: Option<Progress>,
    /// Why the object is refused, beside its spec.
    pub refused: Option<Problem>,
    /// Redrives that were begun, by operators that died too.
    pub orders: Vec<Order>,
    /// The collector of traces that the operator was installed with.
    pub collector: Collector,
    /// The log of the operator is JSON.
    pub json_log: bool,
}

pub(super) fn spec() -> Value {
    json!({
        "hub": {"secretRef": {"name": "hub"}},
        "source": {"queue": "q", "bindings": [{"exchange": "amq.topic", "routingKey": "devices.#"}]},
        "sink": {"postgres": {"secretRef": {"name": "warehouse"}, "table": "t", "idColumn": "id"}},
        "scaling": {"mode": "Off"},
    })
}

impl World {
    /// All is well outside, and nothing has been made yet.
    pub(super) fn new(spec: Value) -> Self {
        let spec: IngestPipelineSpec = serde_json::from_value(spec).unwrap();
        let mut object = IngestPipeline::new("p", spec);
        object.metadata = ObjectMeta {
            name: Some("p".to_owned()),
            namespace: Some("n".to_owned()),
            uid: Some("u".to_owned()),
            generation: Some(1),
            creation_timestamp: Some(Time("2026-01-01T00:00:00Z".parse().unwrap())),
            ..ObjectMeta::default()
        };
        Self {
            object,
            owned: Owned::default(),
            secrets: Some(Secrets { digest: "d".to_owned(), minted: None, hub_port: 5671, sink_port: Some(5432) }),
            hub: External::Fine(HubFacts { dead: 0, oldest: None }),
            store: External::Fine(()),
            suspects: None,
            workers: Vec::new(),
            clock: "2026-01-01T00:00:00Z".parse().unwrap(),
            status_age: None,
            scale: None,
            turn: true,
            does: Evidence::default(),
            does_on_source: None,
            redrive: None,
            refused: None,
            orders: Vec::new(),
            collector: Collector::default(),
            json_log: false,
        }
    }

    /// So many workers were decided on; `mode` becomes Auto.
    pub(super) fn decided(&mut self, desired: u32) {
        self.object.spec.scaling.get_or_insert_default().mode = Some(ScalingMode::Auto);
        self.scale = Some(Decision { desired, reason: Reason::Load, ..Decision::default() });
    }

    /// Changes the spec, as a person would.
    pub(super) fn edit(&mut self, edit: impl FnOnce(&mut IngestPipelineSpec)) {
        edit(&mut self.object.spec);
        self.object.metadata.generation = self.object.metadata.generation.map(|g| g + 1);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            now: self.clock,
            status_age: self.status_age,
            admitted: self.refused.clone().map_or_else(|| admit::resolve(&self.object), Err),
            object: Arc::new(self.object.clone()),
            secrets: self.secrets.clone(),
            hub: self.hub.clone(),
            store: self.store.clone(),
            owned: self.owned.clone(),
            made: Vec::new(),
            suspects: self.suspects.clone(),
            workers: self.workers.clone(),
            scale: self.scale,
            mirror: self.mirror(),
            evidence: self.evidence(),
            pace: None,
            turn: self.turn,
            redrive: self.redrive.clone(),
            install: Install {
                worker_image: "registry.example/drover-worker:1".to_owned(),
                pull_policy: "IfNotPresent".to_owned(),
                namespace: Some("drover-system".to_owned()),
                json_log: self.json_log,
                collector: self.collector.clone(),
            },
        }
    }

    /// The hub does with the mirror what the status says.
    fn mirror(&self) -> Mirror {
        let state = self.status().rollout.unwrap_or_default();
        match state.phase {
            _ if state.mirror.is_none() || !self.hub.is_fine() => Mirror::Unknown,
            RolloutPhase::Previewing => Mirror::Declared,
            _ => Mirror::Gone,
        }
    }

    fn evidence(&self) -> Option<Evidence> {
        let state = self.status().rollout?;
        let does = self.does_on_source.filter(|_| state.phase == RolloutPhase::Verifying).unwrap_or(self.does);
        state.evidence.map(|e| Evidence { before: e.before, ..does })
    }

    pub(super) fn plan(&self) -> Plan {
        decide(&self.snapshot())
    }

    /// One reconcile: what is planned happens.
    pub(super) fn step(&mut self) -> Plan {
        self.clock += Duration::from_secs(1);
        let plan = self.plan();
        self.act(&plan, usize::MAX);
        plan
    }

    /// The first `writes` writes of a plan happen; then the operator dies.
    pub(super) fn act(&mut self, plan: &Plan, writes: usize) {
        let mut left = writes;
        let mut next = || {
            let alive = left > 0;
            left = left.saturating_sub(1);
            alive
        };
        if let Some(status) = plan.status.as_ref().filter(|_| plan.status_first) {
            if !next() {
                return;
            }
            self.object.status = Some(status.clone());
        }
        for (object, _) in &plan.writes {
            if next() {
                self.write(object.clone());
            }
        }
        if let Some(status) = plan.status.as_ref().filter(|_| !plan.status_first)
            && next()
        {
            self.object.status = Some(status.clone());
        }
        for doomed in &plan.deletes {
            if next() {
                self.delete(doomed);
            }
        }
        // What runs ends with its operator.
        match &plan.redrive {
            _ if !next() => self.redrive = None,
            Some(order) => {
                self.redrive = Some(Progress { id: order.id.clone(), ..Progress::default() });
                self.orders.push(order.clone());
            }
            None => {}
        }
    }

    fn write(&mut self, object: Object) {
        match object {
            Object::ServiceAccount(o) => self.owned.service_account = Some(Arc::new(o)),
            Object::NetworkPolicy(o) => self.owned.network_policy = Some(Arc::new(o)),
            Object::DisruptionBudget(o) => self.owned.disruption_budget = Some(Arc::new(o)),
            Object::ConfigMap(o) => {
                self.owned.config_maps.retain(|c| c.metadata.name != o.metadata.name);
                self.owned.config_maps.push(Arc::new(o));
            }
            Object::Deployment(mut o) => {
                let labels = o.metadata.labels.as_ref();
                let list = if labels.is_some_and(|l| l.contains_key(names::PREVIEW)) {
                    &mut self.owned.previews
                } else if labels.is_some_and(|l| l.contains_key(names::SUSPECTS)) {
                    &mut self.owned.suspects
                } else {
                    &mut self.owned.deployments
                };
                let old = list.iter().find(|d| d.metadata.name == o.metadata.name).cloned();
                o.metadata.generation = Some(old.as_ref().and_then(|d| d.metadata.generation).unwrap_or(0) + 1);
                o.status = old.and_then(|d| d.status.clone());
                list.retain(|d| d.metadata.name != o.metadata.name);
                list.push(Arc::new(*o));
            }
        }
    }

    fn delete(&mut self, doomed: &Doomed) {
        match doomed {
            Doomed::Deployment(name) => {
                self.change(name, |d| d.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH)));
            }
            Doomed::Pod(name) | Doomed::PodNow(name) => {
                self.owned.pods.retain(|p| p.metadata.name.as_ref() != Some(name));
            }
            Doomed::ConfigMap(name) => self.owned.config_maps.retain(|c| c.metadata.name.as_ref() != Some(name)),
        }
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Deployment)) {
        let all = self.owned.deployments.iter_mut().chain(&mut self.owned.previews);
        if let Some(d) = all.into_iter().find(|d| d.metadata.name.as_deref() == Some(name)) {
            change(Arc::make_mut(d));
        }
    }

    /// Every Deployment gets the pods that it wants, and they consume; those that are deleted drain and go. A redrive ends.
    pub(super) fn settle(&mut self) {
        if let Some(run) = &mut self.redrive {
            (run.redriven, run.remaining, run.end) = (3, Some(2), Some(Ok(())));
        }
        self.owned.deployments.retain(|d| d.metadata.deletion_timestamp.is_none());
        self.owned.previews.retain(|d| d.metadata.deletion_timestamp.is_none());
        for name in self.deployments().into_iter().chain(self.previews()) {
            let wanted = self.replicas(&name);
            self.available(&name, wanted);
        }
    }

    /// So many pods of a Deployment are there and consume.
    pub(super) fn available(&mut self, name: &str, count: i32) {
        self.change(name, |d| {
            d.status = Some(DeploymentStatus {
                observed_generation: d.metadata.generation,
                replicas: d.spec.as_ref().and_then(|s| s.replicas),
                ready_replicas: Some(count),
                ..DeploymentStatus::default()
            });
        });
    }

    pub(super) fn deployments(&self) -> Vec<String> {
        self.owned.deployments.iter().filter_map(|d| d.metadata.name.clone()).collect()
    }

    pub(super) fn previews(&self) -> Vec<String> {
        self.owned.previews.iter().filter_map(|d| d.metadata.name.clone()).collect()
    }

    pub(super) fn replicas(&self, name: &str) -> i32 {
        let found = self
            .owned
            .deployments
            .iter()
            .chain(&self.owned.previews)
            .find(|d| d.metadata.name.as_deref() == Some(name));
        found.and_then(|d| d.spec.as_ref()?.replicas).unwrap_or(0)
    }

    /// Pods that the largest revision asks for.
    pub(super) fn asked(&self) -> i32 {
        size::running(&self.owned)
    }

    /// Pods that consume, over all revisions that are not told to end.
    pub(super) fn consuming(&self) -> i32 {
        let live = self.owned.deployments.iter().filter(|d| d.metadata.deletion_timestamp.is_none());
        live.filter_map(|d| d.status.as_ref()?.ready_replicas).sum()
    }

    /// Pods of the active revision that consume.
    pub(super) fn consuming_of_active(&self) -> i32 {
        let active = self.status().rollout.and_then(|r| r.active).map(|r| names::of_revision("p", &r));
        let found = self.owned.deployments.iter().find(|d| d.metadata.name == active);
        found.and_then(|d| d.status.as_ref()?.ready_replicas).unwrap_or(0)
    }

    pub(super) fn status(&self) -> Status {
        self.object.status.clone().unwrap_or_default()
    }

    /// Reconciles and settles until nothing changes, or fails.
    pub(super) fn converge(&mut self) {
        for _ in 0..12 {
            let before = format!("{:?}{:?}", self.owned, self.object.status);
            self.step();
            self.settle();
            if before == format!("{:?}{:?}", self.owned, self.object.status) {
                return;
            }
        }
        panic!("does not settle: {:#?}", self.status());
    }

    pub(super) fn hub_fails(&mut self) {
        self.hub = External::Problem(Problem::new("Unreachable", "hub: no answer"));
    }

    /// A pod of a Deployment runs and has so many messages in hand.
    pub(super) fn pod_works(&mut self, deployment: &str, name: &str, in_flight: u64) {
        let revision = deployment.rsplit('-').next().unwrap();
        self.owned.pods.push(Arc::new(Pod {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(names::revision_labels("p", revision)),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        }));
        let status = WorkerStatus { holding: None, in_flight, ..holding("").status.unwrap() };
        self.workers.push(Worker { pod: name.to_owned(), status: Some(status) });
    }

    /// A pod of a Deployment waits for a reason.
    pub(super) fn pod_waits(&mut self, deployment: &str, reason: &str, message: &str) {
        let revision = deployment.rsplit('-').next().unwrap();
        let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message: Some(message.to_owned()) };
        let container = ContainerStatus {
            image: "registry.example/x:1".to_owned(),
            state: Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() }),
            ..ContainerStatus::default()
        };
        self.owned.pods.push(Arc::new(Pod {
            metadata: ObjectMeta { labels: Some(names::revision_labels("p", revision)), ..ObjectMeta::default() },
            status: Some(PodStatus { container_statuses: Some(vec![container]), ..PodStatus::default() }),
            spec: None,
        }));
    }
}

/// A worker that holds.
pub(super) fn holding(reason: &str) -> Worker {
    Worker {
        pod: "p-1".to_owned(),
        status: Some(WorkerStatus {
            role: "main".to_owned(),
            revision: String::new(),
            connected: true,
            consuming: true,
            holding: Some(HoldingStatus {
                stage: "sink".to_owned(),
                reason: reason.to_owned(),
                message: "could not extend file".to_owned(),
                since_seconds: 1,
            }),
            in_flight: 1,
            held: 0,
            busy_seconds: 0.0,
            processed: 0,
            dead_lettered: 0,
            suspected: 0,
            delayed: 0,
            failed: Failures::default(),
            skipped: 0,
            started_seconds: 0,
            batches: None,
        }),
    }
}
