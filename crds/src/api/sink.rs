//! Where a pipeline's results go.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hub::SecretRef;

/// Exactly one of the fields says where results go.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.postgres) ? 1 : 0) + (has(self.hub) ? 1 : 0) + (has(self.http) ? 1 : 0) + (has(self.discard) ? 1 : 0) == 1")
        .message("exactly one of postgres, hub, http and discard must be set"),
)]
pub struct Sink {
    /// Rows of a PostgreSQL table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresSink>,
    /// Messages to an exchange of the same hub, with confirms. At least once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubSink>,
    /// Events to a server of yours, CloudEvents 1.0 over HTTP in binary mode. At least once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSink>,
    /// Results are dropped; for trials and measurements.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard: Option<Discard>,
}

/// A PostgreSQL table that exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.mode) || self.mode != 'Upsert' || (has(self.key) && has(self.orderBy))")
        .message("mode Upsert needs key and orderBy"),
    validation = Rule::new("(has(self.mode) && self.mode == 'Upsert') || (!has(self.key) && !has(self.orderBy))")
        .message("key and orderBy belong to mode Upsert"),
    validation = Rule::new("!has(self.mode) || self.mode != 'Upsert' || !has(self.idColumn)")
        .message("idColumn belongs to mode Append"),
)]
pub struct PostgresSink {
    /// Secret of the same namespace: key `uri` (postgres://user:password@host:port/database?sslmode=require), or the keys `host`,
    /// `port`, `username`, `password` and `database`; optionally `ca.crt` (PEM).
    pub secret_ref: SecretRef,
    /// The table, with its schema where that is not in the search path: `table` or `schema.table`.
    #[schemars(length(min = 1, max = 127))]
    pub table: String,
    /// Append inserts rows, and one whose id is there already is not inserted again. Upsert keeps the newest row of each key.
    /// Default: Append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<PostgresMode>,
    /// Column from JSON path, such as `{ pref: $.payloads.pref }`. Columns not named take the field of their own name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 256,
        "additionalProperties" = {"type": "string", "maxLength": 255, "pattern": r"^\$\.[^.]+(\.[^.]+)*$"},
    ))]
    pub columns: BTreeMap<String, String>,
    /// Append: the column that takes the message's id. It needs a unique index. Without it rows are written at least once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub id_column: Option<String>,
    /// Upsert: the columns that make a row the same row. They need a unique index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 63)))]
    pub key: Option<Vec<String>>,
    /// Upsert: the column that orders the rows of a key; a row is replaced only by one that is newer or equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub order_by: Option<String>,
    /// What becomes of a message with a field that no column takes. Default: Ignore (and count).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_fields: Option<UnknownFields>,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PostgresMode {
    /// Insert; a repeated id changes nothing.
    #[default]
    Append,
    /// Insert or replace by a newer row.
    Upsert,
}

/// What becomes of fields that no column takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UnknownFields {
    /// They are ignored and counted.
    #[default]
    Ignore,
    /// The message is dead-lettered.
    DeadLetter,
}

/// An exchange of the pipeline's hub.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HubSink {
    /// An exchange that exists. A message that it routes nowhere is not taken as delivered.
    #[schemars(length(min = 1, max = 255))]
    pub exchange: String,
    /// The routing key; `{field}` and `{field.inner}` are replaced by the message's values. Default: the message's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub routing_key: Option<String>,
}

/// A server that takes CloudEvents 1.0 over HTTP in binary mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpSink {
    /// Where results are posted, `http://` or `https://`. Without credentials: they belong into the secret.
    #[schemars(
        length(min = 8, max = 2048),
        regex(pattern = r"^https?://([^/?#@:\s\[\]]+|\[[0-9a-fA-F:.]+\])(:[0-9]+)?([/?][^\s#]*)?$")
    )]
    pub url: String,
    /// Secret of the same namespace, all keys optional: `token` (sent as a bearer token), `ca.crt` (PEM), `tls.crt` and `tls.key`
    /// (PEM, a client certificate).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// A post that is not answered in this time has failed, in seconds. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600), extend("format" = "int32"))]
    pub timeout_seconds: Option<u32>,
}

/// No settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Discard {}
