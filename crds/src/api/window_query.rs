//! `WindowQuery`: streaming SQL over time windows.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    hub::{Binding, HubSpec, SecretRef},
    ingest_pipeline::DeadLetterSpec,
    scaling::ScalingSpec,
    sink::HubSink,
    status::Status,
    worker::WorkerSpec,
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
    doc = "Streaming SQL over time windows: reads RabbitMQ streams exactly once; its state and its results are in PostgreSQL.",
    scale(
        spec_replicas_path = ".spec.scaling.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Lag",
        type_ = "number",
        json_path = ".status.scale.lagSeconds",
        description = "Age of what was read last, in seconds"
    ),
    printcolumn(
        name = "Rate",
        type_ = "number",
        json_path = ".status.scale.arrivalRate",
        description = "Events per second"
    ),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.activeRevision"),
    printcolumn(
        name = "Dead",
        type_ = "integer",
        json_path = ".status.deadLetters",
        description = "Messages in the dead-letter queue"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    validation = Rule::new("size(self.metadata.name) <= 48")
        .message("metadata.name is longer than 48 characters: the names of its Deployments are made from it"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.sink) != has(self.outputs)")
        .message("either sink or outputs must be set: outputs where the query has INTO, by its names"),
    validation = Rule::new(
        "!has(self.scaling) || [has(self.scaling.replicas) ? self.scaling.replicas : 0, \
         has(self.scaling.minReplicas) ? self.scaling.minReplicas : 0, \
         has(self.scaling.maxReplicas) ? self.scaling.maxReplicas : 0, \
         has(self.scaling.fallbackReplicas) ? self.scaling.fallbackReplicas : 0]\
         .all(n, n <= (has(self.input.partitions) ? self.input.partitions : 4))"
    )
    .message("scaling: more workers than input.partitions, which is 4 where it is not set, have nothing to read"),
    validation = Rule::new("!has(self.worker) || !has(self.worker.concurrency)")
        .message("worker.concurrency belongs to pipelines: a query's worker reads its partitions side by side"),
    validation = Rule::new(
        "(has(self.deadLetter) && has(self.deadLetter.queue) ? self.deadLetter.queue : self.input.stream + '.dead') == \
         (has(oldSelf.deadLetter) && has(oldSelf.deadLetter.queue) ? oldSelf.deadLetter.queue : oldSelf.input.stream + '.dead')"
    )
    .message("deadLetter.queue never changes: make a new query"),
)]
pub struct WindowQuerySpec {
    /// True: workers to zero; nothing else changes. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
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
    /// Where offsets, watermarks and partial aggregates are kept. Never changes.
    #[x_kube(validation = Rule::new("self == oldSelf").message("store never changes: make a new query"))]
    pub store: StoreSpec,
    /// Where results go, for a query with one output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<QuerySink>,
    /// Where results go, one for each INTO of the query, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32))]
    pub outputs: Option<BTreeMap<String, QuerySink>>,
    /// How workers are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerSpec>,
    /// How many workers run: at most one for each partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingSpec>,
    /// What becomes of a message that ends its worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<QueryRetrySpec>,
    /// Where messages go that cannot be processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetterSpec>,
    /// What becomes of streams and state when the query is deleted. Default: Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<QueryDeletionPolicy>,
}

/// What becomes of a message that ends its worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueryRetrySpec {
    /// Starts of one message alone after which it is passed over, as a dead letter. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100), extend("format" = "int32"))]
    pub attempts: Option<u16>,
}

/// What becomes of streams and state when the query is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum QueryDeletionPolicy {
    /// Streams, exchanges and state stay: events go on being collected, and a query of the same name goes on where this one was.
    #[default]
    Retain,
    /// Streams go with what is in them, exchanges and state too. Dead letters that are left stay, and so do result tables.
    Delete,
}

/// The streams that are read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(has(self.partitions) ? self.partitions : 4) >= (has(oldSelf.partitions) ? oldSelf.partitions : 4)"
)
.message("input.partitions may grow, never shrink; it is 4 where it is not set"))]
pub struct InputSpec {
    /// The name after FROM. Default: input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub alias: Option<String>,
    /// The streams are named by it, `-0` and up. Never changes.
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("input.stream never changes: make a new query"),
        validation = Rule::new("!self.startsWith('amq.')").message("names that begin with amq. belong to the broker"),
    )]
    pub stream: String,
    /// Number of streams. It may grow, never shrink. Default: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub partitions: Option<i32>,
    /// How long messages are kept, read or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionSpec>,
    /// What is routed into the streams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub bindings: Vec<Binding>,
}

/// How long a stream keeps messages, read or not: whichever limit is reached first. Whole segments go, so somewhat more is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionSpec {
    /// For so many seconds. Default: 86400 (a day).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 315_360_000), extend("format" = "int32"))]
    pub max_age_seconds: Option<u32>,
    /// Most bytes of each stream. Default: 10737418240 (10 GiB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_000_000, max = 1_000_000_000_000_000_i64))]
    pub max_bytes: Option<i64>,
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

/// Where the rows of an output go: exactly one of the fields says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.postgres) != has(self.hub)").message("exactly one of postgres and hub must be set"))]
pub struct QuerySink {
    /// A table of the store's database: exactly once. Made by the workers where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<ResultTable>,
    /// Messages to an exchange of the same hub, with confirms: at least once, each row with a message id of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubSink>,
}

/// The table of a query's results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResultTable {
    /// Secret of the same namespace; it must name the database of `store`, in whose transactions results are written.
    pub secret_ref: SecretRef,
    /// The table, with its schema where that is not in the search path: `table` or `schema.table`.
    #[schemars(length(min = 1, max = 127))]
    pub table: String,
}
