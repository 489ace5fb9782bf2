//! Where the hub is, and what is bound to a queue.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The message broker (RabbitMQ): one hub is one address, vhost and user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.rotateDays) || (has(self.credentials) && self.credentials == 'Minted')")
        .message("hub.rotateDays is for hub.credentials: Minted"),
    validation = Rule::new(
        "!(has(oldSelf.credentials) && oldSelf.credentials == 'Minted') || (has(self.credentials) && self.credentials == 'Minted')"
    )
    .message("hub.credentials does not go back from Minted: delete the object with deletionPolicy: Retain, and make it again"),
)]
pub struct HubSpec {
    /// Secret of the same namespace with the key `uri` (amqp[s]://user:password@host:port/vhost) and, for TLS, optionally
    /// `ca.crt` (PEM; else the system's authorities), `tls.crt` and `tls.key` (a client certificate). With `credentials: Minted` also
    /// `managementUri` (http[s]://user:password@host:port, without a user that of `uri`), whose user is an administrator.
    pub secret_ref: SecretRef,
    /// Whom the workers are to the hub. Secret: the user of `uri`. Minted: users that the operator makes, one for each role, which may do
    /// what that role needs and nothing else. It goes from Secret to Minted, and not back. Default: Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// With Minted: days after which a user is followed by another with a new password. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 365))]
    pub rotate_days: Option<u32>,
}

/// Whom the workers are to the hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Credentials {
    /// The user that the secret names.
    #[default]
    Secret,
    /// Users that the operator makes.
    Minted,
}

impl HubSpec {
    /// True if the operator makes users of the hub.
    #[must_use]
    pub fn is_minted(&self) -> bool {
        self.credentials.unwrap_or_default() == Credentials::Minted
    }
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
