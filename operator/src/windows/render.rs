//! Builds the objects of a query. Pure, and it cannot fail.
//!
//! A revision is a Deployment and its environment. Several revisions may work on one version of the state: only what changes the rows
//! of results makes another version.

use std::collections::BTreeMap;

use drover_crds::resolved_query::{Output, Query};
use drover_worker::{query::resolve_tolerance, settings as var, stream::settings as stream};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, EnvVar, PodTemplateSpec, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
};
use serde_json::{Value, json};

use crate::{
    minted::{KeyRef, Role},
    names,
    pipeline::{
        network,
        revision::{self, digest},
        snapshot::{Install, Secrets},
    },
    template::{self, of_field, of_secret},
};

/// Digits of the name of a version of the state: as many as of a revision's.
const DIGITS: usize = 10;

/// Whose objects are built.
#[derive(Debug, Clone)]
pub(super) struct Subject<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    pub owner: OwnerReference,
    pub query: &'a Query,
    pub secrets: &'a Secrets,
    pub install: &'a Install,
}

/// A revision as it should be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Revision {
    /// Its name.
    pub name: String,
    /// The version of the state that it works on.
    pub state: String,
    /// The environment of its workers.
    pub config_map: ConfigMap,
    /// Its pods.
    pub deployment: Deployment,
}

/// The version of the state: changes with what the rows of results are made of and where they go.
pub(super) fn state(query: &Query) -> String {
    let tolerance = resolve_tolerance(&query.ordering).map_or_else(|e| e.to_string(), |t| format!("{t:?}"));
    let told = serde_json::to_string(&(&query.text, tolerance, outputs(query)));
    digest(told.expect("texts and JSON values are valid JSON").as_bytes(), DIGITS)
}

/// Where results go, as workers read it: secrets come by reference.
fn outputs(query: &Query) -> Value {
    let output = |output: &Output| match output {
        Output::Table(table) => json!({ "postgres": { "table": table.table } }),
        Output::Hub(hub) => json!({ "hub": hub }),
    };
    query.outputs.iter().map(|(name, o)| (name.clone(), output(o))).collect::<serde_json::Map<_, _>>().into()
}

impl Subject<'_> {
    fn meta(&self, name: &str, labels: BTreeMap<String, String>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.to_owned()),
            labels: Some(labels),
            owner_references: Some(vec![self.owner.clone()]),
            ..ObjectMeta::default()
        }
    }

    /// A pipeline may have the same name: what is not named by a revision tells its kind.
    fn shared(&self) -> ObjectMeta {
        self.meta(&account(self.name), names::query_labels(self.name))
    }

    /// Identity of the pods; it may do nothing.
    pub(super) fn service_account(&self) -> ServiceAccount {
        ServiceAccount {
            metadata: self.shared(),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        }
    }

    /// At most one worker is evicted at a time; one that is not ready may always be.
    pub(super) fn disruption_budget(&self) -> PodDisruptionBudget {
        template::disruption_budget(self.shared(), self.selector())
    }

    /// Out: DNS, hub and store. In: health, metrics and state.
    pub(super) fn network_policy(&self) -> NetworkPolicy {
        let ports = [Some(self.secrets.hub_port), self.secrets.sink_port];
        let operator = self.install.namespace.as_deref();
        network::policy(self.shared(), self.selector(), &ports, &self.query.egress, operator)
    }

    fn selector(&self) -> LabelSelector {
        let labels = BTreeMap::from([(names::QUERY.to_owned(), self.name.to_owned())]);
        LabelSelector { match_labels: Some(labels), match_expressions: None }
    }

    /// The revision that the spec asks for, with so many pods.
    pub(super) fn revision(&self, replicas: i32) -> Revision {
        let state = state(self.query);
        let environment = self.environment(&state);
        let mut template = self.template();
        let name = revision::name(&environment, &template);
        let full = names::of_revision(self.name, &name);
        let mut labels = names::query_labels(self.name);
        labels.insert(names::REVISION.to_owned(), name.clone());
        labels.insert(names::STATE.to_owned(), state.clone());
        let pods = BTreeMap::from([
            (names::QUERY.to_owned(), self.name.to_owned()),
            (names::REVISION.to_owned(), name.clone()),
        ]);
        template::stamp(&mut template, &full, &labels, &pods);
        let config_map = ConfigMap {
            metadata: self.meta(&full, labels.clone()),
            data: Some(environment),
            immutable: Some(true),
            ..ConfigMap::default()
        };
        let deployment = Deployment {
            metadata: self.meta(&full, labels),
            spec: Some(template::deployment(replicas, pods, template)),
            status: None,
        };
        Revision { name, state, config_map, deployment }
    }

    /// What the workers do, as they read it.
    fn environment(&self, state: &str) -> BTreeMap<String, String> {
        let q = self.query;
        let ordering = serde_json::to_string(&q.ordering).expect("numbers and names are valid JSON");
        [
            (var::LISTEN, format!("0.0.0.0:{}", names::WORKER_PORT)),
            (var::NAMESPACE, self.namespace.to_owned()),
            (var::NAME, self.name.to_owned()),
            (var::REVISION, state.to_owned()),
            (stream::STREAM, q.stream.clone()),
            (stream::PARTITIONS, q.partitions.to_string()),
            (var::EXCHANGE, q.exchange()),
            (stream::QUERY, q.text.clone()),
            (stream::ORDERING, ordering),
            (stream::OUTPUTS, outputs(q).to_string()),
            (stream::STORE_SCHEMA, q.schema.clone()),
            (stream::RETRY_ATTEMPTS, q.attempts.to_string()),
            (var::GRACE_SECONDS, template::WORK_SECONDS.to_string()),
        ]
        .into_iter()
        .map(|(variable, value)| (variable.to_owned(), value))
        .chain(template::log_format(self.install.json_log))
        .collect()
    }

    /// The user of the hub that is made for it.
    fn user(&self) -> Option<&KeyRef> {
        self.secrets.minted.as_ref()?.keys.get(&Role::Query)
    }

    fn template(&self) -> PodTemplateSpec {
        let q = self.query;
        let image = q.image.clone().unwrap_or_else(|| self.install.worker_image.clone());
        let container =
            template::container("query", image, &self.install.pull_policy, q.resources.clone(), self.variables());
        template::pods(&q.pod_template, &self.secrets.digest, &account(self.name), container, None)
    }

    fn variables(&self) -> Vec<EnvVar> {
        let q = self.query;
        let mut env = vec![
            of_field(var::POD, "metadata.name"),
            template::hub_uri(var::HUB_URI, &q.hub, self.user()),
            of_secret(var::HUB_CA, &q.hub, "ca.crt", true),
            of_secret(var::HUB_CERT, &q.hub, "tls.crt", true),
            of_secret(var::HUB_KEY, &q.hub, "tls.key", true),
        ];
        let keys = [
            (stream::STORE_URI, "uri"),
            (stream::STORE_HOST, "host"),
            (stream::STORE_PORT, "port"),
            (stream::STORE_USERNAME, "username"),
            (stream::STORE_PASSWORD, "password"),
            (stream::STORE_DATABASE, "database"),
            (stream::STORE_CA, "ca.crt"),
        ];
        env.extend(keys.map(|(variable, key)| of_secret(variable, &q.store, key, true)));
        env.extend(q.env.iter().cloned());
        env
    }
}

/// Name of the `ServiceAccount`, the `NetworkPolicy` and the `PodDisruptionBudget`.
fn account(query: &str) -> String {
    format!("{query}-query")
}
