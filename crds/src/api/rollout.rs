//! How a new revision takes over.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most revisions that were given up and whose dead letters wait to go back.
pub const DUE_REDRIVES: usize = 16;

/// How a new revision takes over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Blue-Green: the new revision is tried before it takes over, and the old one stays until it is proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blue_green: Option<BlueGreenSpec>,
}

/// Blue-Green. Names are those of Argo Rollouts where they exist there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "!has(self.preview) || !has(self.preview.maxSeconds) || self.preview.maxSeconds <= \
         (has(self.progressDeadlineSeconds) ? self.progressDeadlineSeconds : 600)"
    )
    .message("preview.maxSeconds is more than progressDeadlineSeconds, which is 600 where it is not set"),
)]
pub struct BlueGreenSpec {
    /// False: a revision that has passed its preview waits for `kubectl drover promote`. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_promotion_enabled: Option<bool>,
    /// Worker pods of the preview. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100), extend("format" = "int32"))]
    pub preview_replica_count: Option<u32>,
    /// The trial on a copy of what arrives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<PreviewSpec>,
    /// What a new revision may cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<AnalysisSpec>,
    /// The old revision stays warm at least so many seconds after the new one has taken over. Default: 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400), extend("format" = "int32"))]
    pub scale_down_delay_seconds: Option<u32>,
    /// A revision that does not consume, or is not proven, after so many seconds is given up. Default: 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86400), extend("format" = "int32"))]
    pub progress_deadline_seconds: Option<u32>,
    /// Whether both revisions may take messages at the same time. Default: Overlap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cutover: Option<Cutover>,
    /// True: dead letters that a revision has made on the source go back there when it is given up, and the old revision works on
    /// them. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive_on_abort: Option<bool>,
}

/// The trial on a copy of what arrives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviewSpec {
    /// Share of the copied messages that the preview works on, in percent. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100), extend("format" = "int32"))]
    pub mirror_percent: Option<u32>,
    /// Messages after which it is judged. Default: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000), extend("format" = "int32"))]
    pub min_messages: Option<u32>,
    /// Where fewer arrive, it is judged by what did after so many seconds. Default: 120, or progressDeadlineSeconds where
    /// that is less.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400), extend("format" = "int32"))]
    pub max_seconds: Option<u32>,
}

/// What a new revision may cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AnalysisSpec {
    /// Share of failed messages above that of the old revision. Default: 0.01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_error_ratio: Option<f64>,
    /// Restarts of its pods. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000), extend("format" = "int32"))]
    pub max_restarts: Option<u32>,
}

/// Whether both revisions may take messages at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Cutover {
    /// The new one takes them by consumer priority; the old one stays connected.
    #[default]
    Overlap,
    /// The old one has finished all that it held before the new one takes its first.
    Exclusive,
}

/// Where a rollout is. What must survive the operator's death is here, and nowhere else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// Where it is.
    pub phase: RolloutPhase,
    /// Since when, as RFC 3339.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// Why, in `CamelCase`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The same for a person, or what is waited for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The revision that takes the messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<String>,
    /// The revision that is to take over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
    /// The revision that stays warm after another has taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retained: Option<String>,
    /// The revision that was given up: the same spec does not start it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aborted_revision: Option<String>,
    /// Consumer priority of the active revision; one that takes over has one more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// Whether the new revision is previewed before it takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// What the new revision came of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The new side was given more workers once, since the old one still took messages.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub scaled_up: bool,
    /// A mirror queue that may be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// Since when the new revision has been on the source, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_source_since: Option<String>,
    /// Dead letters of revisions that were given up, which are to go back to the source: one after another, and after what is
    /// under way in `status.redrive`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = DUE_REDRIVES))]
    pub redrives: Vec<RevisionLetters>,
    /// What both sides have done since this phase began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

/// Dead letters that a revision has made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionLetters {
    /// The revision.
    pub revision: String,
    /// Since when, as RFC 3339.
    pub since: String,
    /// When it was gone, as RFC 3339: what its pods had in hand comes to its end a little later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// What both sides of a rollout have done in the same time. It only grows, also when pods go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Seconds in which facts of both sides arrived; time without facts does not count.
    pub seconds: f64,
    /// Seconds in which the new side was seen not to consume yet.
    #[serde(default)]
    pub waiting_seconds: f64,
    /// Second of these at which the new side was last done with a message, or had none to work on.
    #[serde(default)]
    pub progress_at_seconds: f64,
    /// What the old side has done in the phases before: its usual rate, also while it has little to do.
    #[serde(default)]
    pub before: Tally,
    /// The old side.
    pub active: Tally,
    /// The new side.
    pub preview: Tally,
}

/// What one side has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Messages that it is done with, those that failed among them.
    pub processed: i64,
    /// Messages that failed, each counted once.
    pub failed: i64,
    /// Messages that it dead-lettered, or in a preview would have.
    pub dead_letters: i64,
    /// Restarts of its pods.
    pub restarts: i64,
    /// Time in which its workers were busy.
    pub busy_seconds: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// Where a rollout is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutPhase {
    /// One revision, and it is the one that is asked for.
    #[default]
    Stable,
    /// The new one works on a copy of what arrives.
    Previewing,
    /// It has passed, and a person decides.
    AwaitingPromotion,
    /// It starts on the real queue.
    Promoting,
    /// It takes the messages; the old one stays warm.
    Verifying,
    /// It is taken away, and the old one goes on.
    RollingBack,
    /// It was given up; the same spec does not start it again.
    Aborted,
}

/// What a revision must show before it takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Proof {
    /// A preview, and a verdict after the cutover.
    Preview,
    /// That it consumes.
    Readiness,
}

/// What a new revision came of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Cause {
    /// The spec was changed.
    Spec,
    /// The operator's default image or a secret was changed.
    Operator,
}
