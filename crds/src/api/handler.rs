//! A container of the user's that transforms messages.

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, ResourceRequirements};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The user's own container beside the worker. It is sent each message as an event (CloudEvents 1.0, HTTP binary mode) on localhost. An
/// answer of 2xx takes the message, and a JSON body in it replaces the message for the sink; 204 drops the message; 4xx refuses it for
/// what it is, except 408 and 429, which ask to be tried again later, as 5xx do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HandlerSpec {
    /// Image of the container.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,
    /// Port that it listens on. Default: 8080.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535), extend("format" = "int32"))]
    #[x_kube(validation = Rule::new("self != 9464").message("port 9464 is the worker's own"))]
    pub port: Option<u16>,
    /// A message that is not answered in this time has hung, in seconds. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600), extend("format" = "int32"))]
    pub timeout_seconds: Option<u32>,
    /// Entrypoint, in place of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub command: Vec<String>,
    /// Arguments, in place of the image's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub env: Vec<EnvVar>,
    /// Environment variables from `ConfigMap`s and Secrets of the same namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env_from: Vec<EnvFromSource>,
    /// Resources of the container. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
}
