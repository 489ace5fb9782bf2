//! The custom resources as a person writes them: `drover.dev/v1alpha1`.
//!
//! No defaults are in the schema: what the API server writes into a spec is drift to GitOps. See [`crate::resolved`].

pub mod handler;
pub mod hub;
pub mod ingest_pipeline;
pub mod rollout;
pub mod scaling;
pub mod sink;
pub mod source;
pub mod status;
pub mod window_query;
pub mod worker;

pub use handler::HandlerSpec;
pub use hub::{Binding, Credentials, HubSpec, SecretRef};
pub use ingest_pipeline::{
    DeadLetterSpec, DeletionPolicy, IngestPipeline, IngestPipelineSpec, RetrySpec, TransformSpec,
};
pub use rollout::{
    AnalysisSpec, BlueGreenSpec, Cause, Cutover, DUE_REDRIVES, Evidence, PreviewSpec, Proof, RevisionLetters,
    RolloutPhase, RolloutSpec, RolloutStatus, Tally,
};
pub use scaling::{ScalingMode, ScalingSpec};
pub use sink::{Discard, HttpSink, HubSink, PostgresMode, PostgresSink, Sink, UnknownFields};
pub use source::SourceSpec;
pub use status::{
    Delivery, HANDLED_REQUESTS, LAG_HISTORY, LONGEST_REQUEST, LagAt, Phase, PromotionStatus, RedriveStatus,
    ScaleStatus, Status,
};
pub use window_query::{
    OrderingPolicy, OrderingSpec, QueryDeletionPolicy, QueryRetrySpec, QuerySink, ResultTable, RetentionSpec,
    WindowQuery, WindowQuerySpec,
};
pub use worker::{PodTemplate, WorkerSpec};
