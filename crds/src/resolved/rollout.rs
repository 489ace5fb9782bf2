//! How a new revision takes over, once defaults are filled in. Pure.

use crate::api::{Cutover, RolloutSpec};

/// Default of `rollout.blueGreen.previewReplicaCount`.
pub const PREVIEW_REPLICAS: u32 = 1;
/// Default of `rollout.blueGreen.preview.mirrorPercent`.
pub const MIRROR_PERCENT: u32 = 10;
/// Default of `rollout.blueGreen.preview.minMessages`.
pub const MIN_MESSAGES: u32 = 100;
/// Default of `rollout.blueGreen.preview.maxSeconds`.
pub const MAX_SECONDS: u32 = 120;
/// Default of `rollout.blueGreen.analysis.maxErrorRatio`.
pub const MAX_ERROR_RATIO: f64 = 0.01;
/// Default of `rollout.blueGreen.scaleDownDelaySeconds`.
pub const SCALE_DOWN_DELAY_SECONDS: u32 = 30;
/// Default of `rollout.blueGreen.progressDeadlineSeconds`.
pub const PROGRESS_DEADLINE_SECONDS: u32 = 600;

/// How a new revision takes over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rollout {
    /// One that has passed its preview takes over by itself.
    pub auto_promotion: bool,
    /// Worker pods of the preview.
    pub preview_replicas: u32,
    /// Share of the copied messages that it works on, in percent.
    pub mirror_percent: u32,
    /// Messages after which it is judged.
    pub min_messages: u32,
    /// Where fewer arrive, when it is judged by what did.
    pub max_seconds: u32,
    /// Share of failed messages above that of the old revision.
    pub max_error_ratio: f64,
    /// Restarts of its pods.
    pub max_restarts: u32,
    /// How long the old revision stays warm at least.
    pub scale_down_delay_seconds: u32,
    /// When a revision that is not proven is given up.
    pub progress_deadline_seconds: u32,
    /// Dead letters of one that is given up go back to the source.
    pub redrive_on_abort: bool,
    /// Whether both may take messages at the same time.
    pub cutover: Cutover,
}

impl Rollout {
    /// Fills in defaults. A preview is judged before the rollout's time is over.
    #[must_use]
    pub fn resolve(spec: Option<&RolloutSpec>) -> Self {
        let spec = spec.and_then(|s| s.blue_green.clone()).unwrap_or_default();
        let (preview, analysis) = (spec.preview.unwrap_or_default(), spec.analysis.unwrap_or_default());
        let progress_deadline_seconds = spec.progress_deadline_seconds.unwrap_or(PROGRESS_DEADLINE_SECONDS);
        Self {
            auto_promotion: spec.auto_promotion_enabled.unwrap_or(true),
            preview_replicas: spec.preview_replica_count.unwrap_or(PREVIEW_REPLICAS),
            mirror_percent: preview.mirror_percent.unwrap_or(MIRROR_PERCENT),
            min_messages: preview.min_messages.unwrap_or(MIN_MESSAGES),
            max_seconds: preview.max_seconds.unwrap_or(MAX_SECONDS).min(progress_deadline_seconds),
            max_error_ratio: analysis.max_error_ratio.unwrap_or(MAX_ERROR_RATIO),
            max_restarts: analysis.max_restarts.unwrap_or(0),
            scale_down_delay_seconds: spec.scale_down_delay_seconds.unwrap_or(SCALE_DOWN_DELAY_SECONDS),
            progress_deadline_seconds,
            redrive_on_abort: spec.redrive_on_abort.unwrap_or(false),
            cutover: spec.cutover.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::BlueGreenSpec;

    #[test]
    fn without_a_word_a_revision_is_previewed_and_promoted_by_itself() {
        let rollout = Rollout::resolve(None);
        assert_eq!(
            (rollout.auto_promotion, rollout.preview_replicas, rollout.mirror_percent, rollout.cutover),
            (true, 1, 10, Cutover::Overlap)
        );
        assert_eq!((rollout.min_messages, rollout.max_seconds, rollout.max_restarts), (100, 120, 0));
        assert!(!rollout.redrive_on_abort);
        assert_eq!((rollout.scale_down_delay_seconds, rollout.progress_deadline_seconds), (30, 600));
    }

    #[test]
    fn a_preview_is_judged_before_the_time_of_the_rollout_is_over() {
        let short = BlueGreenSpec { progress_deadline_seconds: Some(60), ..BlueGreenSpec::default() };
        let rollout = Rollout::resolve(Some(&RolloutSpec { blue_green: Some(short) }));
        assert_eq!((rollout.max_seconds, rollout.progress_deadline_seconds), (60, 60));
    }
}
