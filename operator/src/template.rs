//! The pod template of workers, the same for both kinds: restricted, without a token, probed. Pure.

use std::collections::BTreeMap;

use drover_crds::api::{PodTemplate, SecretRef};
use drover_worker::settings::LOG_FORMAT;
use k8s_openapi::{
    api::{
        apps::v1::DeploymentSpec,
        core::v1::{
            Capabilities, ConfigMapEnvSource, Container, ContainerPort, EnvFromSource, EnvVar, EnvVarSource,
            HTTPGetAction, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
            ResourceFieldSelector, ResourceRequirements, SeccompProfile, SecretKeySelector, SecurityContext,
        },
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use crate::{minted::KeyRef, names};

/// Time that a pod has to finish what it holds, in seconds.
const GRACE_SECONDS: i64 = 30;
/// Of it, what is left for ending the process after the worker has returned what it could not finish.
const GRACE_MARGIN: i64 = 5;
/// Of it, what the worker may use.
pub(crate) const WORK_SECONDS: i64 = GRACE_SECONDS - GRACE_MARGIN;
/// The unprivileged user of the images.
const USER: i64 = 65532;
/// Annotation of pods: changes with the secrets that they read.
const SECRETS: &str = "drover.dev/secrets";

/// A Deployment of so many pods, told apart by `pods`.
pub(crate) fn deployment(replicas: i32, pods: BTreeMap<String, String>, template: PodTemplateSpec) -> DeploymentSpec {
    DeploymentSpec {
        replicas: Some(replicas),
        revision_history_limit: Some(0),
        selector: LabelSelector { match_labels: Some(pods), match_expressions: None },
        template,
        ..DeploymentSpec::default()
    }
}

/// At most one worker is evicted at a time; one that is not ready may always be.
pub(crate) fn disruption_budget(metadata: ObjectMeta, selector: LabelSelector) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata,
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

/// What carries the revision's name, which the name itself must not depend on.
pub(crate) fn stamp(
    template: &mut PodTemplateSpec,
    config_map: &str,
    labels: &BTreeMap<String, String>,
    pods: &BTreeMap<String, String>,
) {
    let meta = template.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().extend(labels.clone());
    let Some(spec) = template.spec.as_mut() else { return };
    for container in &mut spec.containers {
        container.env_from = Some(vec![EnvFromSource {
            config_map_ref: Some(ConfigMapEnvSource { name: config_map.to_owned(), optional: Some(false) }),
            ..EnvFromSource::default()
        }]);
    }
    let own = LabelSelector { match_labels: Some(pods.clone()), match_expressions: None };
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        constraint.label_selector.get_or_insert_with(|| own.clone());
    }
}

/// The pods of a revision, with what a person may add to them, and containers that run beside the worker.
pub(crate) fn pods(
    extra: &PodTemplate,
    secrets: &str,
    service_account: &str,
    container: Container,
    beside: Option<Vec<Container>>,
) -> PodTemplateSpec {
    let mut annotations = extra.annotations.clone();
    annotations.insert(SECRETS.to_owned(), secrets.to_owned());
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: (!extra.labels.is_empty()).then(|| extra.labels.clone()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            init_containers: beside,
            containers: vec![container],
            service_account_name: Some(service_account.to_owned()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(GRACE_SECONDS),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(USER),
                run_as_group: Some(USER),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
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

/// The worker: it does what `command` says.
pub(crate) fn container(
    command: &str,
    image: String,
    pull_policy: &str,
    resources: ResourceRequirements,
    env: Vec<EnvVar>,
) -> Container {
    Container {
        name: "worker".to_owned(),
        image: Some(image),
        image_pull_policy: Some(pull_policy.to_owned()),
        args: Some(vec![command.to_owned()]),
        env: Some(env),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: names::WORKER_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(resources),
        readiness_probe: Some(probe("/readyz", 1, 3)),
        liveness_probe: Some(probe("/healthz", 10, 3)),
        security_context: Some(SecurityContext { read_only_root_filesystem: Some(true), ..confined() }),
        ..Container::default()
    }
}

/// What no container here may do.
pub(crate) fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

/// How workers write their log, where that is not as usual.
pub(crate) fn log_format(json: bool) -> Option<(String, String)> {
    json.then(|| (LOG_FORMAT.to_owned(), "json".to_owned()))
}

/// A variable that holds the worker's memory limit in bytes.
pub(crate) fn memory_limit(variable: &str) -> EnvVar {
    EnvVar {
        name: variable.to_owned(),
        value_from: Some(EnvVarSource {
            resource_field_ref: Some(ResourceFieldSelector {
                resource: "limits.memory".to_owned(),
                container_name: Some("worker".to_owned()),
                divisor: None,
            }),
            ..EnvVarSource::default()
        }),
        value: None,
    }
}

/// A variable that holds a field of the pod.
pub(crate) fn of_field(variable: &str, path: &str) -> EnvVar {
    EnvVar {
        name: variable.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.to_owned(), api_version: None }),
            ..EnvVarSource::default()
        }),
    }
}

/// The variable with the hub's address, and in it the user: of the secret, or one that is made for a role.
pub(crate) fn hub_uri(variable: &str, secret: &SecretRef, minted: Option<&KeyRef>) -> EnvVar {
    match minted {
        None => of_secret(variable, secret, "uri", false),
        Some(KeyRef { secret, key, .. }) => {
            of_secret(variable, &SecretRef { name: secret.clone(), keys: BTreeMap::new() }, key, false)
        }
    }
}

/// A variable that holds a key of a secret.
pub(crate) fn of_secret(variable: &str, secret: &SecretRef, key: &str, optional: bool) -> EnvVar {
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
