//! Builds the objects of a pipeline. Pure, and it cannot fail.

use std::collections::BTreeMap;

use drover_crds::{
    api::SecretRef,
    resolved::{MessageId, Pipeline},
};
use drover_worker::settings as var;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, EnvVar, PodTemplateSpec, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
};

use super::{
    handler, revision,
    snapshot::{Install, Secrets},
};
use crate::{
    minted::{KeyRef, Role},
    names,
    template::{self, of_field, of_secret},
};

/// Longest template that is kept, in bytes: all annotations of an object together have room for 256 KiB.
const KEPT: usize = 128 * 1024;

/// Whose objects are built.
#[derive(Debug, Clone)]
pub(super) struct Subject<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    pub owner: OwnerReference,
    pub pipeline: &'a Pipeline,
    pub secrets: &'a Secrets,
    pub install: &'a Install,
}

/// A revision as it should be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Revision {
    /// Its name.
    pub name: String,
    /// The environment of its workers.
    pub config_map: ConfigMap,
    /// Its pods.
    pub deployment: Deployment,
}

impl Revision {
    /// With so many pods. The priority of its consumers is not in the name: it says which of two revisions comes first, and nothing of
    /// what they do.
    pub(super) fn sized(mut self, replicas: i32, priority: i32) -> Self {
        let spec = self.deployment.spec.get_or_insert_default();
        spec.replicas = Some(replicas);
        if priority != 0 {
            set(&mut spec.template, &[(var::CONSUMER_PRIORITY, priority.to_string())]);
        }
        self
    }
}

impl Subject<'_> {
    /// Of an object that goes when the pipeline goes.
    pub(super) fn meta(&self, name: &str, labels: BTreeMap<String, String>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.namespace.to_owned()),
            labels: Some(labels),
            owner_references: Some(vec![self.owner.clone()]),
            ..ObjectMeta::default()
        }
    }

    /// Identity of the pods; it may do nothing.
    pub(super) fn service_account(&self) -> ServiceAccount {
        ServiceAccount {
            metadata: self.meta(self.name, names::labels(self.name)),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        }
    }

    /// At most one worker is evicted at a time; one that is not ready may always be.
    pub(super) fn disruption_budget(&self) -> PodDisruptionBudget {
        template::disruption_budget(self.meta(self.name, names::labels(self.name)), self.selector())
    }

    pub(super) fn selector(&self) -> LabelSelector {
        let labels = BTreeMap::from([(names::PIPELINE.to_owned(), self.name.to_owned())]);
        LabelSelector { match_labels: Some(labels), match_expressions: None }
    }

    /// The revision that the spec asks for, without a pod.
    pub(super) fn revision(&self) -> Revision {
        self.build(self.environment(), self.template())
    }

    /// A revision as its `ConfigMap` tells of it, without a pod; `None` where that tells nothing, or of anything but what the name is
    /// the hash of.
    pub(super) fn restored(&self, name: &str, kept: &ConfigMap) -> Option<Revision> {
        let mut environment = kept.data.clone()?;
        environment.remove(var::REVISION);
        let template = serde_json::from_str(kept.metadata.annotations.as_ref()?.get(names::TEMPLATE)?).ok()?;
        let same = revision::name(&environment, &template) == name;
        same.then(|| self.build(environment, template))
    }

    fn build(&self, environment: BTreeMap<String, String>, mut template: PodTemplateSpec) -> Revision {
        let name = revision::name(&environment, &template);
        let work = revision::work(&environment, &template);
        let full = names::of_revision(self.name, &name);
        let labels = names::revision_labels(self.name, &name);
        let mut data = environment;
        data.insert(var::REVISION.to_owned(), name.clone());
        let kept = serde_json::to_string(&template).ok().filter(|text| text.len() <= KEPT);
        let config_map = ConfigMap {
            metadata: ObjectMeta {
                annotations: kept.map(|text| BTreeMap::from([(names::TEMPLATE.to_owned(), text)])),
                ..self.meta(&full, labels.clone())
            },
            data: Some(data),
            immutable: Some(true),
            ..ConfigMap::default()
        };
        let pods = BTreeMap::from([
            (names::PIPELINE.to_owned(), self.name.to_owned()),
            (names::REVISION.to_owned(), name.clone()),
        ]);
        template::stamp(&mut template, &full, &labels, &pods);
        let mut labels = labels;
        labels.insert(names::WORK.to_owned(), work);
        let deployment = Deployment {
            metadata: self.meta(&full, labels),
            spec: Some(template::deployment(0, pods, template)),
            status: None,
        };
        Revision { name, config_map, deployment }
    }

    /// Pods of a revision that read copies of what arrives instead of the source.
    pub(super) fn preview(&self, revision: &Revision, replicas: i32, percent: u32) -> Deployment {
        let labels = names::preview_labels(self.name, &revision.name);
        let pods = BTreeMap::from([
            (names::PIPELINE.to_owned(), self.name.to_owned()),
            (names::PREVIEW.to_owned(), revision.name.clone()),
        ]);
        let mut template = revision.deployment.spec.clone().unwrap_or_default().template;
        let of_pods = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        of_pods.remove(names::REVISION);
        of_pods.extend(labels.clone());
        if let Some(mirror) = self.user(Role::Mirror) {
            connect_as(&mut template, &template::hub_uri(var::HUB_URI, &self.pipeline.hub, Some(mirror)));
        }
        set(&mut template, &[(var::PREVIEW, "true".to_owned()), (var::PREVIEW_PERCENT, percent.to_string())]);
        Deployment {
            metadata: self.meta(&names::of_preview(self.name, &revision.name), labels),
            spec: Some(template::deployment(replicas, pods, template)),
            status: None,
        }
    }

    /// The user of the hub that is made for a role.
    fn user(&self, role: Role) -> Option<&KeyRef> {
        self.secrets.minted.as_ref()?.keys.get(&role)
    }

    /// What the workers do, as they read it.
    fn environment(&self) -> BTreeMap<String, String> {
        let p = self.pipeline;
        let mut sink = p.sink.clone();
        if let Some(postgres) = sink.postgres.as_mut() {
            // The secret comes by reference; which one it is changes the pod template.
            postgres.secret_ref = SecretRef { name: String::new(), keys: BTreeMap::new() };
        }
        if let Some(http) = sink.http.as_mut() {
            http.secret_ref = None;
        }
        let mut env = BTreeMap::from([
            (var::LISTEN.to_owned(), format!("0.0.0.0:{}", names::WORKER_PORT)),
            (var::RETRY_ATTEMPTS_VAR.to_owned(), p.retry.attempts.to_string()),
            (var::RETRY_INITIAL_SECONDS_VAR.to_owned(), p.retry.initial_seconds.to_string()),
            (var::RETRY_MAX_SECONDS_VAR.to_owned(), p.retry.max_seconds.to_string()),
            (var::NAMESPACE.to_owned(), self.namespace.to_owned()),
            (var::NAME.to_owned(), self.name.to_owned()),
            (var::SOURCE_QUEUE.to_owned(), p.queue.clone()),
            (var::SOURCE_ADOPT.to_owned(), p.adopt.to_string()),
            (var::SOURCE_PREFETCH.to_owned(), p.prefetch.to_string()),
            (var::SOURCE_ID.to_owned(), id_text(&p.id)),
            (var::SOURCE_MAX_BYTES.to_owned(), p.max_bytes.to_string()),
            (var::EXCHANGE.to_owned(), p.exchange()),
            (var::SINK.to_owned(), serde_json::to_string(&sink).expect("a sink is valid JSON")),
            (var::WORKER_CONCURRENCY.to_owned(), p.concurrency.to_string()),
            (var::GRACE_SECONDS.to_owned(), template::WORK_SECONDS.to_string()),
        ]);
        env.extend(template::log_format(self.install.json_log));
        let collector = &self.install.collector.environment;
        env.extend(collector.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        if let Some(query) = &p.transform {
            env.insert(var::TRANSFORM_QUERY.to_owned(), query.clone());
        }
        if let Some(handler) = &p.handler {
            env.extend(handler::environment(handler));
        }
        env
    }

    fn template(&self) -> PodTemplateSpec {
        let p = self.pipeline;
        let container = template::container(
            "ingest",
            p.image.clone().unwrap_or_else(|| self.install.worker_image.clone()),
            &self.install.pull_policy,
            p.resources.clone(),
            self.variables(),
        );
        let beside = p.handler.as_ref().map(|handler| vec![handler::container(handler)]);
        template::pods(&p.pod_template, &self.secrets.digest, self.name, container, beside)
    }

    fn variables(&self) -> Vec<EnvVar> {
        let p = self.pipeline;
        let mut env = vec![
            of_field(var::POD, "metadata.name"),
            template::memory_limit(var::MEMORY_LIMIT_BYTES),
            template::hub_uri(var::HUB_URI, &p.hub, self.user(Role::Worker)),
            of_secret(var::HUB_CA, &p.hub, "ca.crt", true),
            of_secret(var::HUB_CERT, &p.hub, "tls.crt", true),
            of_secret(var::HUB_KEY, &p.hub, "tls.key", true),
        ];
        if let Some(postgres) = &p.sink.postgres {
            let keys = [
                (var::SINK_URI, "uri"),
                (var::SINK_HOST, "host"),
                (var::SINK_PORT, "port"),
                (var::SINK_USERNAME, "username"),
                (var::SINK_PASSWORD, "password"),
                (var::SINK_DATABASE, "database"),
                (var::SINK_CA, "ca.crt"),
            ];
            env.extend(keys.map(|(variable, key)| of_secret(variable, &postgres.secret_ref, key, true)));
        }
        if let Some(secret) = p.sink.http.as_ref().and_then(|http| http.secret_ref.as_ref()) {
            let keys = [
                (var::SINK_TOKEN, "token"),
                (var::SINK_CA, "ca.crt"),
                (var::SINK_CERT, "tls.crt"),
                (var::SINK_KEY, "tls.key"),
            ];
            env.extend(keys.map(|(variable, key)| of_secret(variable, secret, key, true)));
        }
        env.extend(p.env.iter().cloned());
        env
    }
}

/// Has the worker be another user of the hub.
fn connect_as(template: &mut PodTemplateSpec, uri: &EnvVar) {
    let containers = template.spec.iter_mut().flat_map(|spec| &mut spec.containers);
    let variables = containers.flat_map(|container| container.env.iter_mut().flatten());
    variables.filter(|variable| variable.name == uri.name).for_each(|variable| variable.clone_from(uri));
}

/// Gives the worker more to read from its environment.
fn set(template: &mut PodTemplateSpec, variables: &[(&str, String)]) {
    let Some(worker) = template.spec.as_mut().and_then(|spec| spec.containers.first_mut()) else { return };
    worker.env.get_or_insert_default().extend(variables.iter().map(|(name, value)| EnvVar {
        name: (*name).to_owned(),
        value: Some(value.clone()),
        value_from: None,
    }));
}

fn id_text(id: &MessageId) -> String {
    match id {
        MessageId::Property => "messageId".to_owned(),
        MessageId::Header(name) => format!("header:{name}"),
        MessageId::Path(names) => format!("$.{}", names.join(".")),
    }
}
