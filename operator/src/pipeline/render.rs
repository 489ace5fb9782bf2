//! Builds the objects of a pipeline. Pure, and it cannot fail.

use std::collections::BTreeMap;

use drover_crds::{
    api::SecretRef,
    resolved::{MessageId, Pipeline},
};
use drover_worker::settings as var;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::{
            Capabilities, ConfigMap, ConfigMapEnvSource, Container, ContainerPort, EnvFromSource, EnvVar, EnvVarSource,
            HTTPGetAction, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
            ResourceFieldSelector, SeccompProfile, SecretKeySelector, SecurityContext, ServiceAccount,
        },
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};

use super::{
    handler, revision,
    snapshot::{Install, Secrets},
};
use crate::names;

/// Time that a pod has to finish what it holds, in seconds.
const GRACE_SECONDS: i64 = 30;
/// Of it, what is left for ending the process after the worker has returned what it could not finish.
const GRACE_MARGIN: i64 = 5;
/// The unprivileged user of the images.
const USER: i64 = 65532;
/// Annotation of pods: changes with the secrets that they read.
const SECRETS: &str = "drover.dev/secrets";

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
        PodDisruptionBudget {
            metadata: self.meta(self.name, names::labels(self.name)),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(1)),
                selector: Some(self.selector()),
                unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
                ..PodDisruptionBudgetSpec::default()
            }),
            status: None,
        }
    }

    pub(super) fn selector(&self) -> LabelSelector {
        let labels = BTreeMap::from([(names::PIPELINE.to_owned(), self.name.to_owned())]);
        LabelSelector { match_labels: Some(labels), match_expressions: None }
    }

    /// The revision that the spec asks for, with so many pods.
    pub(super) fn revision(&self, replicas: i32) -> Revision {
        let environment = self.environment();
        let mut template = self.template();
        let name = revision::name(&environment, &template);
        let full = names::of_revision(self.name, &name);
        let labels = names::revision_labels(self.name, &name);
        self.stamp(&mut template, &name, &full, &labels);
        let mut data = environment;
        data.insert(var::REVISION.to_owned(), name.clone());
        let config_map = ConfigMap {
            metadata: self.meta(&full, labels.clone()),
            data: Some(data),
            immutable: Some(true),
            ..ConfigMap::default()
        };
        let pods = BTreeMap::from([
            (names::PIPELINE.to_owned(), self.name.to_owned()),
            (names::REVISION.to_owned(), name.clone()),
        ]);
        let deployment = Deployment {
            metadata: self.meta(&full, labels),
            spec: Some(DeploymentSpec {
                replicas: Some(replicas),
                revision_history_limit: Some(0),
                selector: LabelSelector { match_labels: Some(pods), match_expressions: None },
                template,
                ..DeploymentSpec::default()
            }),
            status: None,
        };
        Revision { name, config_map, deployment }
    }

    /// What carries the revision's name, which the name itself must not depend on.
    fn stamp(&self, template: &mut PodTemplateSpec, revision: &str, full: &str, labels: &BTreeMap<String, String>) {
        let meta = template.metadata.get_or_insert_default();
        meta.labels.get_or_insert_default().extend(labels.clone());
        let Some(spec) = template.spec.as_mut() else { return };
        for container in &mut spec.containers {
            container.env_from = Some(vec![EnvFromSource {
                config_map_ref: Some(ConfigMapEnvSource { name: full.to_owned(), optional: Some(false) }),
                ..EnvFromSource::default()
            }]);
        }
        let own = LabelSelector {
            match_labels: Some(BTreeMap::from([
                (names::PIPELINE.to_owned(), self.name.to_owned()),
                (names::REVISION.to_owned(), revision.to_owned()),
            ])),
            match_expressions: None,
        };
        for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
            constraint.label_selector.get_or_insert_with(|| own.clone());
        }
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
            (var::GRACE_SECONDS.to_owned(), (GRACE_SECONDS - GRACE_MARGIN).to_string()),
        ]);
        if let Some(query) = &p.transform {
            env.insert(var::TRANSFORM_QUERY.to_owned(), query.clone());
        }
        if let Some(handler) = &p.handler {
            env.extend(handler::environment(handler));
        }
        env
    }

    fn template(&self) -> PodTemplateSpec {
        let extra = &self.pipeline.pod_template;
        let mut annotations = extra.annotations.clone();
        annotations.insert(SECRETS.to_owned(), self.secrets.digest.clone());
        PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: (!extra.labels.is_empty()).then(|| extra.labels.clone()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            }),
            spec: Some(PodSpec {
                init_containers: self.pipeline.handler.as_ref().map(|handler| vec![handler::container(handler)]),
                containers: vec![self.container()],
                service_account_name: Some(self.name.to_owned()),
                automount_service_account_token: Some(false),
                enable_service_links: Some(false),
                termination_grace_period_seconds: Some(GRACE_SECONDS),
                security_context: Some(PodSecurityContext {
                    run_as_non_root: Some(true),
                    run_as_user: Some(USER),
                    run_as_group: Some(USER),
                    seccomp_profile: Some(SeccompProfile {
                        type_: "RuntimeDefault".to_owned(),
                        localhost_profile: None,
                    }),
                    ..PodSecurityContext::default()
                }),
                node_selector: (!extra.node_selector.is_empty()).then(|| extra.node_selector.clone()),
                tolerations: some(&extra.tolerations),
                affinity: extra.affinity.clone(),
                topology_spread_constraints: some(&extra.topology_spread_constraints),
                priority_class_name: extra.priority_class_name.clone(),
                image_pull_secrets: some(&extra.image_pull_secrets),
                ..PodSpec::default()
            }),
        }
    }

    fn container(&self) -> Container {
        let p = self.pipeline;
        let probe = |path: &str, period, failures| {
            Some(Probe {
                http_get: Some(HTTPGetAction {
                    path: Some(path.to_owned()),
                    port: IntOrString::String("http".to_owned()),
                    ..HTTPGetAction::default()
                }),
                period_seconds: Some(period),
                failure_threshold: Some(failures),
                timeout_seconds: Some(2),
                ..Probe::default()
            })
        };
        Container {
            name: "worker".to_owned(),
            image: Some(p.image.clone().unwrap_or_else(|| self.install.worker_image.clone())),
            image_pull_policy: Some(self.install.pull_policy.clone()),
            args: Some(vec!["ingest".to_owned()]),
            env: Some(self.variables()),
            ports: Some(vec![ContainerPort {
                name: Some("http".to_owned()),
                container_port: names::WORKER_PORT,
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            }]),
            resources: Some(p.resources.clone()),
            readiness_probe: probe("/readyz", 1, 3),
            liveness_probe: probe("/healthz", 10, 3),
            security_context: Some(SecurityContext { read_only_root_filesystem: Some(true), ..confined() }),
            ..Container::default()
        }
    }

    fn variables(&self) -> Vec<EnvVar> {
        let p = self.pipeline;
        let mut env = vec![
            of_field(var::POD, "metadata.name"),
            EnvVar {
                name: var::MEMORY_LIMIT_BYTES.to_owned(),
                value_from: Some(EnvVarSource {
                    resource_field_ref: Some(ResourceFieldSelector {
                        resource: "limits.memory".to_owned(),
                        container_name: Some("worker".to_owned()),
                        divisor: None,
                    }),
                    ..EnvVarSource::default()
                }),
                value: None,
            },
            of_secret(var::HUB_URI, &p.hub, "uri", false),
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

/// What no container here may do.
pub(super) fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

fn id_text(id: &MessageId) -> String {
    match id {
        MessageId::Property => "messageId".to_owned(),
        MessageId::Header(name) => format!("header:{name}"),
        MessageId::Path(names) => format!("$.{}", names.join(".")),
    }
}

fn of_field(variable: &str, path: &str) -> EnvVar {
    EnvVar {
        name: variable.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.to_owned(), api_version: None }),
            ..EnvVarSource::default()
        }),
    }
}

fn of_secret(variable: &str, secret: &SecretRef, key: &str, optional: bool) -> EnvVar {
    EnvVar {
        name: variable.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.name.clone(),
                key: secret.key(key).to_owned(),
                optional: Some(optional),
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}
