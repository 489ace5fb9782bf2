//! `IngestPipeline`: messages of a queue through workers to a sink.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    handler::HandlerSpec, hub::HubSpec, rollout::RolloutSpec, scaling::ScalingSpec, sink::Sink, source::SourceSpec,
    status::Status, worker::WorkerSpec,
};

/// Takes messages of a hub's queue through stateless workers to a sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "drover.dev",
    version = "v1alpha1",
    kind = "IngestPipeline",
    plural = "ingestpipelines",
    shortname = "ipl",
    category = "drover",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    doc = "Takes messages of a RabbitMQ queue through stateless workers to PostgreSQL or another sink.",
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
        description = "Seconds until what waits now is begun"
    ),
    printcolumn(
        name = "Rate",
        type_ = "number",
        json_path = ".status.scale.arrivalRate",
        description = "Messages per second that arrive"
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
    validation = Rule::new("!has(self.deadLetter) || !has(self.deadLetter.queue) || self.deadLetter.queue != self.source.queue")
        .message("deadLetter.queue and source.queue must differ"),
    validation = Rule::new(
        "(has(self.deadLetter) && has(self.deadLetter.queue) ? self.deadLetter.queue : self.source.queue + '.dead') == \
         (has(oldSelf.deadLetter) && has(oldSelf.deadLetter.queue) ? oldSelf.deadLetter.queue : oldSelf.source.queue + '.dead')"
    )
    .message("deadLetter.queue never changes: make a new pipeline"),
    validation = Rule::new("(has(self.source.adopt) && self.source.adopt) == (has(oldSelf.source.adopt) && oldSelf.source.adopt)")
        .message("source.adopt never changes: make a new pipeline"),
)]
pub struct IngestPipelineSpec {
    /// True: workers to zero; nothing else changes. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// The hub.
    pub hub: HubSpec,
    /// Where messages come from.
    pub source: SourceSpec,
    /// What is done to each message. Without it a message is passed on as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<TransformSpec>,
    /// Where results go.
    pub sink: Sink,
    /// How workers are made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerSpec>,
    /// How many workers run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingSpec>,
    /// When a message is tried again that failed in passing, and how often one is started that was in flight when its worker
    /// or handler died.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
    /// Where messages go that cannot be processed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetterSpec>,
    /// How a new revision takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutSpec>,
    /// What becomes of the queues when the pipeline is deleted. Default: Retain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
}

/// What is done to each message: exactly one of the fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.query) != has(self.handler)")
        .message("exactly one of transform.query and transform.handler must be set"),
)]
pub struct TransformSpec {
    /// A query of the Stream Analytics dialect without a window: filter, projection, functions, CROSS APPLY. It reads FROM input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub query: Option<String>,
    /// A container of yours beside the worker, which is sent each message: CloudEvents 1.0 over HTTP, binary mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<HandlerSpec>,
}

/// When a message is tried again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "(has(self.maxSeconds) ? self.maxSeconds : 300) >= (has(self.initialSeconds) ? self.initialSeconds : 1)"
    )
    .message("retry.maxSeconds is less than retry.initialSeconds"),
)]
pub struct RetrySpec {
    /// Tries in all, the first among them; then a message is dead-lettered. Default: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100), extend("format" = "int32"))]
    pub attempts: Option<u16>,
    /// Wait after the first try, in seconds; each further wait is twice as long. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600), extend("format" = "int32"))]
    pub initial_seconds: Option<u32>,
    /// Longest wait, in seconds. Default: 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400), extend("format" = "int32"))]
    pub max_seconds: Option<u32>,
}

/// The dead-letter queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterSpec {
    /// Name of the queue. Never changes. Default: the source's name with `.dead`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("!self.startsWith('amq.')").message("names that begin with amq. belong to the broker"))]
    pub queue: Option<String>,
    /// A dead letter is dropped after so many seconds. Default: 1209600 (14 days).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 315_360_000), extend("format" = "int32"))]
    pub retention_seconds: Option<u32>,
    /// Most dead letters; when the queue is full the source stops. Default: 1000000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000), extend("format" = "int32"))]
    pub max_messages: Option<u32>,
}

/// What becomes of the queues when the object is deleted. Adopted queues stay in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Queues, bindings and exchange stay: messages go on being collected.
    #[default]
    Retain,
    /// Bindings go, workers run until the source is empty, then the empty queues go. Dead letters that are left stay.
    DrainThenDelete,
    /// Queues go with what is in them.
    Delete,
}
