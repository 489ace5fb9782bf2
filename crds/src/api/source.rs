//! Where a pipeline's messages come from.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::hub::Binding;

/// The queue a pipeline reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!(has(self.adopt) && self.adopt) || !has(self.bindings) || size(self.bindings) == 0")
        .message("bindings must be empty with adopt: nothing about an adopted queue is declared"),
)]
pub struct SourceSpec {
    /// Name of the queue. Never changes. Declared as a durable quorum queue unless `adopt` is true.
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("source.queue never changes: make a new pipeline"),
        validation = Rule::new("!self.startsWith('amq.')").message("names that begin with amq. belong to the broker"),
    )]
    pub queue: String,
    /// True: the queue exists already, classic or quorum; nothing about it is declared or changed. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<bool>,
    /// What is routed into the queue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub bindings: Vec<Binding>,
    /// Most messages that a worker holds unacknowledged; it holds fewer while it does not need more. Default: 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535), extend("format" = "int32"))]
    pub prefetch: Option<u16>,
    /// What makes a message the same message: `messageId` (the AMQP property), `header:NAME`, or a JSON path such as `$.id`.
    /// Default: messageId.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 255), regex(pattern = r"^(messageId|header:.+|\$\.[^.]+(\.[^.]+)*)$"))]
    pub id: Option<String>,
    /// Larger bodies are dead-lettered, in bytes. Default: 1048576.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 134_217_728), extend("format" = "int32"))]
    pub max_bytes: Option<u32>,
}
