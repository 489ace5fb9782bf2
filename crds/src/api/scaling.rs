//! How many workers run.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many workers run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        "(has(self.minReplicas) ? self.minReplicas : 0) <= (has(self.maxReplicas) ? self.maxReplicas : 20)"
    )
    .message("scaling.minReplicas is more than scaling.maxReplicas, which is 20 where it is not set"),
    validation = Rule::new("!has(self.fallbackReplicas) || self.fallbackReplicas <= (has(self.maxReplicas) ? self.maxReplicas : 20)")
        .message("scaling.fallbackReplicas is more than scaling.maxReplicas, which is 20 where it is not set"),
)]
pub struct ScalingSpec {
    /// Who says how many. Default: Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ScalingMode>,
    /// Worker pods with mode Off or Recommend; what `kubectl scale` sets. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// Never fewer. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000), extend("format" = "int32"))]
    pub min_replicas: Option<u32>,
    /// Never more. Default: 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("format" = "int32"))]
    pub max_replicas: Option<u32>,
    /// Share of its time that a worker is to be busy. Default: 0.8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.1, max = 1.0))]
    pub target_utilization: Option<f64>,
    /// A backlog should be gone within so many seconds. Default: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 86400), extend("format" = "int32"))]
    pub catch_up_seconds: Option<u32>,
    /// Fewer workers, or none, only when fewer have been enough for so many seconds. Default: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 5, max = 86400), extend("format" = "int32"))]
    pub cooldown_seconds: Option<u32>,
    /// What runs while the hub cannot be read, if nothing ran. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000), extend("format" = "int32"))]
    pub fallback_replicas: Option<u32>,
}

/// Who says how many workers run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ScalingMode {
    /// What arrives and waits in the hub.
    #[default]
    Auto,
    /// `replicas`; what Auto would do is reported.
    Recommend,
    /// `replicas`.
    Off,
}
