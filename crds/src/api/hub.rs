//! Where the hub is, and what is bound to a queue.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The message broker (RabbitMQ): one hub is one address, vhost and user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HubSpec {
    /// Secret of the same namespace with the key `uri` (amqp[s]://user:password@host:port/vhost) and, for TLS, optionally
    /// `ca.crt` (PEM; else the system's authorities), `tls.crt` and `tls.key` (a client certificate).
    pub secret_ref: SecretRef,
}

/// A secret of the same namespace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Other names for keys of the secret, such as `{ uri: connection-string }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub keys: BTreeMap<String, String>,
}

impl SecretRef {
    /// The key of the secret that holds what is known as `key`.
    #[must_use]
    pub fn key<'a>(&'a self, key: &'a str) -> &'a str {
        self.keys.get(key).map_or(key, String::as_str)
    }
}

/// A binding of a queue to an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// An exchange that exists, such as `amq.topic`.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self != ''").message("exchange is empty: the default exchange takes no bindings"))]
    pub exchange: String,
    /// The routing key, a pattern where the exchange is a topic exchange. Default: empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 255))]
    pub routing_key: String,
}
