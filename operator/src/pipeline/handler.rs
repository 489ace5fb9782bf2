//! The user's container beside the worker. Pure.

use drover_crds::{
    api::HandlerSpec,
    resolved::{HANDLER_PORT, HANDLER_TIMEOUT_SECONDS},
};
use drover_worker::settings as var;
use k8s_openapi::{
    api::core::v1::{Container, ContainerPort, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::{names, template::confined};

/// What the worker is told of it.
pub(super) fn environment(handler: &HandlerSpec) -> [(String, String); 3] {
    let timeout = handler.timeout_seconds.unwrap_or(HANDLER_TIMEOUT_SECONDS);
    [
        (var::SUSPECTS.to_owned(), "true".to_owned()),
        (var::HANDLER_PORT.to_owned(), port(handler).to_string()),
        (var::HANDLER_TIMEOUT_SECONDS_VAR.to_owned(), timeout.to_string()),
    ]
}

/// An init container that always restarts: it starts before the worker and ends after it, so that the worker can finish what it
/// holds. Whether it hangs only the worker knows, so the kubelet asks there.
pub(super) fn container(handler: &HandlerSpec) -> Container {
    Container {
        name: "handler".to_owned(),
        image: Some(handler.image.clone()),
        restart_policy: Some("Always".to_owned()),
        command: some(&handler.command),
        args: some(&handler.args),
        env: some(&handler.env),
        env_from: some(&handler.env_from),
        ports: Some(vec![ContainerPort {
            name: Some("handler".to_owned()),
            container_port: port(handler).into(),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: handler.resources.clone(),
        liveness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/handlerz".to_owned()),
                port: IntOrString::Int(names::WORKER_PORT),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(1),
            // More than the pause in which a worker that starts does not answer yet.
            failure_threshold: Some(5),
            initial_delay_seconds: Some(10),
            timeout_seconds: Some(2),
            ..Probe::default()
        }),
        security_context: Some(confined()),
        ..Container::default()
    }
}

fn port(handler: &HandlerSpec) -> u16 {
    handler.port.unwrap_or(HANDLER_PORT)
}

fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}
