//! What the operator reports: the same for both kinds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    hub::Binding,
    rollout::{RevisionLetters, RolloutStatus},
};

/// Most ids of answered requests that are kept: an annotation has one at a time, and older ones never come back.
pub const HANDLED_REQUESTS: usize = 16;
/// Longest id of a request that is kept among them, in characters.
pub const LONGEST_REQUEST: usize = 256;
/// Most entries of a lag's history.
pub const LAG_HISTORY: usize = 40;

/// What was seen and decided.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where the object is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// One line: what is the matter, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Ready, Reconciling and Stalled as kstatus reads them, then Accepted, HubReady, StoreReady, WorkersReady, Progressing,
    /// then `SinkLimited` of pipelines, `DataLoss` and `InputSound` of queries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What delivery to the sink amounts to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// Worker pods of all revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Label selector of the worker pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The revision that takes messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_revision: Option<String>,
    /// The revision that is to take over, or that was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview_revision: Option<String>,
    /// Where its rollout is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// Ids of the requests by annotation that were answered last, the newest at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = HANDLED_REQUESTS), inner(length(max = LONGEST_REQUEST)))]
    pub handled_requests: Vec<String>,
    /// Of queries: the request by the annotation `drover.dev/promote` that waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotion: Option<PromotionStatus>,
    /// How many workers there should be, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale: Option<ScaleStatus>,
    /// Messages in the dead-letter queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<i64>,
    /// The last redrive: by the annotation `drover.dev/redrive`, or of a revision that was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive: Option<RedriveStatus>,
    /// Bindings of the source that were made, so that one that is no longer asked for is removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bindings: Vec<Binding>,
}

/// A request that a version of a query takes over, whatever is said of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PromotionStatus {
    /// Id of the request: the value of the annotation.
    pub id: String,
    /// The version of the state that the query asked for when the request was seen. It is for no other.
    pub version: String,
}

/// How many workers there should be, and what that was decided from. Numbers that are not known are left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleStatus {
    /// Messages that wait longer than they should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<i64>,
    /// Messages that no worker has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<i64>,
    /// Messages that workers have and have not acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unacked: Option<i64>,
    /// Messages per second that arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival_rate: Option<f64>,
    /// Messages per second of a worker that is busy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_replica: Option<f64>,
    /// Seconds until what waits now is begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
    /// What `lagSeconds` was in the last ten minutes, the newest at the end; an entry for each change that was told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = LAG_HISTORY))]
    pub lag_history: Vec<LagAt>,
    /// Workers that there should be.
    pub desired: i32,
    /// Why.
    pub reason: String,
}

/// A lag, from a moment on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LagAt {
    /// When it was told.
    pub at: Time,
    /// Seconds until what waited then was begun.
    pub seconds: f64,
}

/// Dead letters that are sent back to where they came from, once for each request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedriveStatus {
    /// Id of the request: the value of the annotation, or one that the operator has made.
    pub id: String,
    /// Only those of a revision that was given up; all of them where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<RevisionLetters>,
    /// Where nobody has asked for this one: id of the request that came before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_request: Option<String>,
    /// Dead letters that were sent back.
    pub redriven: i64,
    /// Of those that were there when it began, how many are left; not known before it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<i64>,
    /// When the operator took it up.
    pub started_at: Time,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// Why it ended before all were sent back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Where an object is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// It is refused as it is written; `message` says why.
    Refused,
    /// Something that it needs is missing or does not answer.
    Waiting,
    /// Workers start, or a new revision takes over.
    Progressing,
    /// Workers run and messages flow.
    Running,
    /// `suspend` is true.
    Suspended,
    /// The sink does not take rows; messages wait in the hub.
    Holding,
    /// It is being deleted.
    Deleting,
}

/// What delivery to the sink amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Delivery {
    /// A message that is delivered twice has the effect of one.
    EffectivelyOnce,
    /// A message may have its effect more than once: there is no id, or the sink cannot tell.
    AtLeastOnce,
}
