//! `WindowQuery`: streaming SQL over time windows.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    hub::{Binding, HubSpec, SecretRef},
    status::Status,
};

/// Streaming SQL over time windows, exactly once, all state in PostgreSQL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "drover.dev",
    version = "v1alpha1",
    kind = "WindowQuery",
    plural = "windowqueries",
    shortname = "wq",
    category = "drover",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    doc = "Streaming SQL over time windows. Its text is checked when it is applied; it is not run on a cluster by this version.",
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 48").message("metadata.name is longer than 48 characters"),
)]
#[serde(rename_all = "camelCase")]
pub struct WindowQuerySpec {
    /// The hub.
    pub hub: HubSpec,
    /// The streams that are read.
    pub input: InputSpec,
    /// The query, in the dialect of Azure Stream Analytics.
    #[schemars(length(min = 1, max = 65536))]
    pub query: String,
    /// How late and disordered events are treated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering: Option<OrderingSpec>,
    /// Where offsets, watermarks and partial aggregates are kept.
    pub store: StoreSpec,
    /// Where results go.
    pub sink: QuerySink,
}

/// The streams that are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InputSpec {
    /// The name after FROM. Default: input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub alias: Option<String>,
    /// The streams are named by it, `-0` and up. Never changes.
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("input.stream never changes: make a new query"))]
    pub stream: String,
    /// Number of streams. It may grow, never shrink. Default: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("input.partitions may grow, never shrink"))]
    pub partitions: Option<i32>,
    /// What is routed into the streams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub bindings: Vec<Binding>,
}

/// How late and disordered events are treated.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderingSpec {
    /// What becomes of an event beyond a tolerance. Default: Adjust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<OrderingPolicy>,
    /// An event may arrive so many seconds after its time. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_814_400))]
    pub late_arrival_seconds: Option<i64>,
    /// An event may come so many seconds before an earlier one. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3_600))]
    pub out_of_order_seconds: Option<i64>,
}

/// What becomes of an event beyond a tolerance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OrderingPolicy {
    /// Its time moves to the tolerance's edge.
    #[default]
    Adjust,
    /// It is dropped and counted.
    Drop,
    /// It is kept for a person.
    DeadLetter,
}

/// Where state is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StoreSpec {
    /// A PostgreSQL database.
    pub postgres: StorePostgres,
}

/// A PostgreSQL database for state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorePostgres {
    /// Secret of the same namespace.
    pub secret_ref: SecretRef,
    /// Schema of the tables of state. Default: drover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub schema: Option<String>,
}

/// Where a query's results go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuerySink {
    /// A table.
    pub postgres: ResultTable,
}

/// The table of a query's results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultTable {
    /// Secret of the same namespace.
    pub secret_ref: SecretRef,
    /// The table.
    #[schemars(length(min = 1, max = 127))]
    pub table: String,
}
