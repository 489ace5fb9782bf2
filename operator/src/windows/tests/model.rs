//! A cluster and a store in memory: they do what plans say, and what versions of the state do to each other.

use std::{collections::BTreeSet, sync::Arc};

use drover_crds::api::{ScalingMode, Status, WindowQuery, WindowQuerySpec};
use drover_worker::stream::{
    schema::{Emission, Partition, State},
    status::{HoldingStatus, QueryStatus},
};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentStatus},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use serde_json::{Value, json};

use super::super::{
    admit,
    decide::decide,
    outside::HubFacts,
    render,
    scale::{Decision, Reason},
    snapshot::{Snapshot, state_of},
};
use crate::{
    config::Collector,
    pipeline::{
        plan::{Doomed, Object, Plan},
        snapshot::{Install, Owned, Secrets},
    },
    problem::{External, Problem},
    rollout::Command,
    scaling::Numbers,
};

pub(super) const COUNTS: &str =
    "SELECT pref, COUNT(*) AS n FROM input TIMESTAMP BY ts GROUP BY pref, TUMBLINGWINDOW(second, 10)";
pub(super) const SUMS: &str =
    "SELECT pref, SUM(x) AS n FROM input TIMESTAMP BY ts GROUP BY pref, TUMBLINGWINDOW(second, 10)";

/// The world that a query lives in.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub object: WindowQuery,
    pub owned: Owned,
    pub secrets: Option<Secrets>,
    pub hub: External<HubFacts>,
    /// The rows of the store, while it can be read.
    pub rows: State,
    pub store: Option<Problem>,
    pub workers: Vec<(String, Option<QueryStatus>)>,
    pub clock: Timestamp,
    pub scale: Option<Decision>,
    /// Why the object is refused, beside its spec.
    pub refused: Option<Problem>,
}

pub(super) fn spec() -> Value {
    json!({
        "hub": {"secretRef": {"name": "hub"}},
        "input": {"stream": "s", "bindings": [{"exchange": "amq.topic", "routingKey": "devices.#"}]},
        "query": COUNTS,
        "store": {"postgres": {"secretRef": {"name": "warehouse"}}},
        "sink": {"postgres": {"secretRef": {"name": "warehouse"}, "table": "t"}},
        "scaling": {"mode": "Off"},
    })
}

impl World {
    /// All is well outside, and nothing has been made yet.
    pub(super) fn new(spec: Value) -> Self {
        let spec: WindowQuerySpec = serde_json::from_value(spec).unwrap();
        let mut object = WindowQuery::new("w", spec);
        object.metadata = ObjectMeta {
            name: Some("w".to_owned()),
            namespace: Some("n".to_owned()),
            uid: Some("u".to_owned()),
            generation: Some(1),
            creation_timestamp: Some(Time("2026-01-01T00:00:00Z".parse().unwrap())),
            ..ObjectMeta::default()
        };
        let mut world = Self {
            object,
            owned: Owned::default(),
            secrets: Some(Secrets { digest: "d".to_owned(), minted: None, hub_port: 5671, sink_port: Some(5432) }),
            hub: External::Fine(HubFacts { dead: 0, routed: 4 }),
            rows: State::default(),
            store: None,
            workers: Vec::new(),
            clock: "2026-01-01T00:00:00Z".parse().unwrap(),
            scale: None,
            refused: None,
        };
        world.begin();
        world
    }

    /// One that works, of which another text is asked for that has its rows; the versions before and after.
    pub(super) fn with_another_text() -> (Self, String, String) {
        let mut world = Self::new(spec());
        world.converge();
        let old = world.wanted();
        world.edit(|s| s.query = SUMS.to_owned());
        world.begin();
        let new = world.wanted();
        (world, old, new)
    }

    /// A person asks by annotation that the new version takes over.
    pub(super) fn promote(&mut self, id: &str) {
        self.object.metadata.annotations = Some([(Command::Promote.annotation().to_owned(), id.to_owned())].into());
    }

    /// The version that the spec asks for.
    pub(super) fn wanted(&self) -> String {
        render::state(&admit::resolve(&self.object).unwrap())
    }

    /// The store has rows for the version that the spec asks for.
    pub(super) fn begin(&mut self) {
        let revision = self.wanted();
        if !self.rows.revisions.contains(&revision) {
            self.rows.partitions.push(Partition {
                revision: revision.clone(),
                part: 0,
                generation: 0,
                next_offset: 0,
                gone: false,
                taken: 0,
                dead_lettered: 0,
                read_at: None,
                lost: 0,
                lost_at: None,
                without_arrival: 0,
                skipped: 0,
            });
            self.rows.revisions.push(revision);
        }
    }

    /// A version has taken so many events, and so many not, and has read all that there is.
    pub(super) fn reads(&mut self, version: &str, taken: i64, dead_lettered: i64) {
        for partition in self.rows.partitions.iter_mut().filter(|p| p.revision == version) {
            (partition.taken, partition.dead_lettered, partition.read_at) = (taken, dead_lettered, Some(0));
        }
    }

    /// Who emits up to where.
    pub(super) fn emits(&mut self, old: &str, new: &str, at: Option<i64>, passed: bool) {
        let [old, new] = [old, new].map(str::to_owned);
        self.rows.emission = Some(Emission { old, new, at, passed });
    }

    pub(super) fn edit(&mut self, edit: impl FnOnce(&mut WindowQuerySpec)) {
        edit(&mut self.object.spec);
        self.object.metadata.generation = self.object.metadata.generation.map(|g| g + 1);
    }

    pub(super) fn decided(&mut self, desired: u32) {
        self.object.spec.scaling.get_or_insert_default().mode = Some(ScalingMode::Auto);
        self.scale = Some(Decision { desired, reason: Reason::Load, numbers: Numbers::default() });
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            now: self.clock,
            status_age: None,
            admitted: self.refused.clone().map_or_else(|| admit::resolve(&self.object), Err),
            object: Arc::new(self.object.clone()),
            secrets: self.secrets.clone(),
            hub: self.hub.clone(),
            store: self.store.clone().map_or_else(|| External::Fine(self.rows.clone()), External::Problem),
            owned: self.owned.clone(),
            made: Vec::new(),
            workers: self.workers.clone(),
            scale: self.scale,
            install: Install {
                worker_image: "registry.example/drover-worker:1".to_owned(),
                pull_policy: "IfNotPresent".to_owned(),
                namespace: Some("drover-system".to_owned()),
                json_log: false,
                collector: Collector::default(),
            },
        }
    }

    pub(super) fn plan(&self) -> Plan {
        decide(&self.snapshot())
    }

    /// One reconcile: what is planned happens.
    pub(super) fn step(&mut self) -> Plan {
        self.clock += std::time::Duration::from_secs(1);
        let plan = self.plan();
        self.act(&plan, usize::MAX);
        plan
    }

    /// The first `writes` writes of a plan happen; then the operator dies.
    pub(super) fn act(&mut self, plan: &Plan, writes: usize) {
        for (object, _) in plan.writes.iter().take(writes) {
            self.write(object.clone());
        }
        if writes > plan.writes.len() {
            self.object.status = plan.status.clone().or(self.object.status.take());
            for doomed in &plan.deletes {
                self.delete(doomed);
            }
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
                let old = self.owned.deployments.iter().find(|d| d.metadata.name == o.metadata.name).cloned();
                o.metadata.generation = Some(old.as_ref().and_then(|d| d.metadata.generation).unwrap_or(0) + 1);
                o.status = old.and_then(|d| d.status.clone());
                self.owned.deployments.retain(|d| d.metadata.name != o.metadata.name);
                self.owned.deployments.push(Arc::new(*o));
            }
        }
    }

    fn delete(&mut self, doomed: &Doomed) {
        match doomed {
            Doomed::Deployment(name) => {
                let found = self.owned.deployments.iter_mut().find(|d| d.metadata.name.as_ref() == Some(name));
                if let Some(d) = found {
                    Arc::make_mut(d).metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
                }
            }
            Doomed::ConfigMap(name) => self.owned.config_maps.retain(|c| c.metadata.name.as_ref() != Some(name)),
            Doomed::PodNow(_) | Doomed::Pod(_) => {}
        }
    }

    /// Every Deployment gets the pods that it wants, and they work; those that are deleted end and go.
    pub(super) fn settle(&mut self) {
        self.owned.deployments.retain(|d| d.metadata.deletion_timestamp.is_none());
        let deployments = std::mem::take(&mut self.owned.deployments);
        self.owned.pods.clear();
        for mut deployment in deployments {
            let replicas = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
            let d = Arc::make_mut(&mut deployment);
            d.status = Some(DeploymentStatus {
                observed_generation: d.metadata.generation,
                replicas: Some(replicas),
                ready_replicas: Some(replicas),
                ..DeploymentStatus::default()
            });
            let labels = d.metadata.labels.clone();
            let pod =
                |_| Pod { metadata: ObjectMeta { labels: labels.clone(), ..ObjectMeta::default() }, ..Pod::default() };
            self.owned.pods.extend((0..replicas).map(pod).map(Arc::new));
            self.owned.deployments.push(deployment);
        }
    }

    /// Deployments that are not told to end, with the version of the state and the pods that each asks for.
    pub(super) fn live(&self) -> Vec<(String, i32)> {
        let live = self.owned.deployments.iter().filter(|d| d.metadata.deletion_timestamp.is_none());
        let tell = |d: &Arc<Deployment>| {
            let replicas = d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
            (state_of(&d.metadata).unwrap_or_default().to_owned(), replicas)
        };
        live.map(tell).collect()
    }

    /// The versions that have a Deployment.
    pub(super) fn states(&self) -> BTreeSet<String> {
        self.live().into_iter().map(|(state, _)| state).collect()
    }

    pub(super) fn status(&self) -> Status {
        self.object.status.clone().unwrap_or_default()
    }

    /// Reason and status of a condition.
    pub(super) fn condition(&self, type_: &str) -> (String, String) {
        let status = self.status();
        let found =
            crate::condition::find(&status.conditions, type_).unwrap_or_else(|| panic!("no {type_}: {status:#?}"));
        (found.status.clone(), found.reason.clone())
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

    /// A worker says that a stage waits.
    pub(super) fn holds(&mut self, stage: &str, reason: &str) {
        let holding = HoldingStatus {
            stage: stage.to_owned(),
            reason: reason.to_owned(),
            message: "why".to_owned(),
            since_seconds: 1,
        };
        self.workers = vec![("w-1".to_owned(), Some(QueryStatus { holding: vec![holding], ..QueryStatus::default() }))];
    }
}
