//! The custom resources as a person writes them: `drover.dev/v1alpha1`.
//!
//! No defaults are in the schema: what the API server writes into a spec is drift to GitOps. See [`crate::resolved`].

pub mod hub;
pub mod ingest_pipeline;
pub mod sink;
pub mod source;
pub mod status;
pub mod window_query;
pub mod worker;

pub use hub::{Binding, HubSpec, SecretRef};
pub use ingest_pipeline::{
    DeadLetterSpec, DeletionPolicy, IngestPipeline, IngestPipelineSpec, ScalingSpec, TransformSpec,
};
pub use sink::{Discard, HubSink, PostgresMode, PostgresSink, Sink, UnknownFields};
pub use source::SourceSpec;
pub use status::{Delivery, Phase, Status};
pub use window_query::{OrderingPolicy, OrderingSpec, WindowQuery, WindowQuerySpec};
pub use worker::{PodTemplate, WorkerSpec};
