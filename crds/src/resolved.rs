//! What a spec means once its defaults are filled in. The only place where defaults are.

mod credentials;
mod queues;
mod retry;
mod rollout;
mod web;

use crate::api::{
    Binding, DeletionPolicy, Delivery, HandlerSpec, IngestPipelineSpec, PodTemplate, PostgresMode, PostgresSink,
    ScalingMode, ScalingSpec, SecretRef, Sink,
};
use crate::query::{QueryError, parse_transform};
use k8s_openapi::{
    api::{
        core::v1::{EnvVar, ResourceRequirements},
        networking::v1::NetworkPolicyEgressRule,
    },
    apimachinery::pkg::api::resource::Quantity,
};

/// Default of `source.prefetch`.
pub const PREFETCH: u16 = 200;
/// Default of `source.maxBytes`.
pub const MAX_BYTES: u32 = 1024 * 1024;
/// Default of `worker.concurrency`.
pub const CONCURRENCY: u16 = 4;
/// Default of `deadLetter.retentionSeconds`: 14 days.
pub const RETENTION_SECONDS: u32 = 14 * 24 * 3600;
/// Default of `deadLetter.maxMessages`.
pub const MAX_DEAD_LETTERS: u32 = 1_000_000;
/// Default of `transform.handler.port`.
pub const HANDLER_PORT: u16 = 8080;
/// The port of a worker in a pod, for health, metrics and status; a handler beside it cannot have it.
pub const WORKER_PORT: u16 = 9464;
/// Default of `transform.handler.timeoutSeconds`.
pub const HANDLER_TIMEOUT_SECONDS: u32 = 30;
/// Default of `sink.http.timeoutSeconds`.
pub const HTTP_TIMEOUT_SECONDS: u32 = 30;
/// Streams of a `WindowQuery`.
pub const PARTITIONS: u16 = 4;
/// Longest name or routing key of AMQP, in bytes.
pub const NAME_BYTES: usize = 255;
/// Default of `scaling.maxReplicas`.
pub const MAX_REPLICAS: u32 = 20;
/// Default of `scaling.targetUtilization`.
pub const TARGET_UTILIZATION: f64 = 0.8;
/// Default of `scaling.catchUpSeconds`.
pub const CATCH_UP_SECONDS: u32 = 60;
/// Default of `scaling.cooldownSeconds`.
pub const COOLDOWN_SECONDS: u32 = 60;
/// The name after FROM in `transform.query`.
pub const TRANSFORM_ALIAS: &str = "input";

pub use credentials::ROTATE_DAYS;
pub(crate) use credentials::rotate_days;
pub use queues::{SUSPECT_STEPS, delay_key, delay_queue, mirror_queue, suspects_key, suspects_queue};
pub use retry::{RETRY_ATTEMPTS, RETRY_INITIAL_SECONDS, RETRY_MAX_SECONDS, Retry};
pub use rollout::{
    MAX_ERROR_RATIO, MAX_SECONDS, MIN_MESSAGES, MIRROR_PERCENT, PREVIEW_REPLICAS, PROGRESS_DEADLINE_SECONDS, Rollout,
    SCALE_DOWN_DELAY_SECONDS,
};
pub use web::{is_web, web_host, web_port};

/// An `IngestPipeline` without open questions.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// Workers are to be at zero.
    pub suspend: bool,
    /// Name of the hub's secret, and its keys, as written.
    pub hub: SecretRef,
    /// Days that a user of the hub lives which the operator makes; `None` where workers are the secret's own.
    pub rotate_days: Option<u32>,
    /// The source queue.
    pub queue: String,
    /// The source is somebody else's.
    pub adopt: bool,
    /// What is routed into the source.
    pub bindings: Vec<Binding>,
    /// Most unacknowledged messages of a worker.
    pub prefetch: u16,
    /// Where a message's id is.
    pub id: MessageId,
    /// Largest body, in bytes.
    pub max_bytes: u32,
    /// The transform's query, as written.
    pub transform: Option<String>,
    /// The user's container that transforms, as written.
    pub handler: Option<HandlerSpec>,
    /// The sink, as written.
    pub sink: Sink,
    /// The worker's image, where it is not the operator's default.
    pub image: Option<String>,
    /// Batches at the same time.
    pub concurrency: u16,
    /// Resources of the worker.
    pub resources: ResourceRequirements,
    /// More environment.
    pub env: Vec<EnvVar>,
    /// What else pods carry.
    pub pod_template: PodTemplate,
    /// More egress.
    pub egress: Vec<NetworkPolicyEgressRule>,
    /// How many workers there are.
    pub scaling: Scaling,
    /// How a new revision takes over.
    pub rollout: Rollout,
    /// The dead-letter queue.
    pub dead_letter_queue: String,
    /// When what failed in passing is tried again.
    pub retry: Retry,
    /// Life of a dead letter, in seconds.
    pub retention_seconds: u32,
    /// Most dead letters.
    pub max_dead_letters: u32,
    /// What becomes of the queues.
    pub deletion_policy: DeletionPolicy,
}

/// How many workers there are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scaling {
    /// Who says how many.
    pub mode: ScalingMode,
    /// Worker pods with `Off` and `Recommend`.
    pub replicas: i32,
    /// Never fewer.
    pub min_replicas: u32,
    /// Never more.
    pub max_replicas: u32,
    /// Share of its time that a worker is to be busy.
    pub target_utilization: f64,
    /// A backlog should be gone within it.
    pub catch_up_seconds: u32,
    /// Fewer only when fewer have been enough for it.
    pub cooldown_seconds: u32,
    /// What runs while the hub cannot be read, if nothing ran.
    pub fallback_replicas: u32,
}

impl Scaling {
    /// Fills in defaults.
    #[must_use]
    pub fn resolve(spec: Option<&ScalingSpec>) -> Self {
        let spec = spec.cloned().unwrap_or_default();
        Self {
            mode: spec.mode.unwrap_or_default(),
            replicas: spec.replicas.unwrap_or(1),
            min_replicas: spec.min_replicas.unwrap_or(0),
            max_replicas: spec.max_replicas.unwrap_or(MAX_REPLICAS),
            target_utilization: spec.target_utilization.unwrap_or(TARGET_UTILIZATION),
            catch_up_seconds: spec.catch_up_seconds.unwrap_or(CATCH_UP_SECONDS),
            cooldown_seconds: spec.cooldown_seconds.unwrap_or(COOLDOWN_SECONDS),
            fallback_replicas: spec.fallback_replicas.unwrap_or(1),
        }
    }
}

/// Where a message's id is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageId {
    /// The AMQP property `message-id`.
    Property,
    /// A header.
    Header(String),
    /// A path in the JSON body, without the `$`.
    Path(Vec<String>),
}

impl MessageId {
    /// Reads the text of `source.id`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "messageId" {
            return Some(Self::Property);
        }
        if let Some(name) = text.strip_prefix("header:") {
            return (!name.is_empty()).then(|| Self::Header(name.to_owned()));
        }
        path(text).map(Self::Path)
    }
}

/// Reads a JSON path of names, such as `$.payloads.pref`.
#[must_use]
pub fn path(text: &str) -> Option<Vec<String>> {
    let names: Vec<String> = text.strip_prefix("$.")?.split('.').map(str::to_owned).collect();
    names.iter().all(|n| !n.is_empty()).then_some(names)
}

/// What the API server cannot check; the field is named.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// The query cannot be used.
    #[error("transform.query: {0}")]
    Query(QueryError),
    /// The query reads something else.
    #[error("transform.query reads FROM {0}; a pipeline's messages are read FROM {TRANSFORM_ALIAS}")]
    Alias(String),
    /// An id of another form, where the schema did not refuse it.
    #[error("source.id: {0:?} is not messageId, header:NAME or a JSON path such as $.id")]
    Id(String),
    /// Not exactly one sink.
    #[error("sink: exactly one of postgres, hub, http and discard must be set")]
    Sink,
    /// Not exactly one transform.
    #[error("transform: exactly one of query and handler must be set")]
    Transform,
    /// A URL of another form.
    #[error("sink.http.url: {0:?} is not http:// or https:// with a host")]
    Url(String),
    /// A path of another form.
    #[error("sink.postgres.columns: {0}: {1:?} is not a JSON path such as $.payloads.pref")]
    Column(String, String),
    /// A table of another form.
    #[error("sink.postgres.table: {0:?} is neither a table nor schema.table")]
    Table(String),
    /// A name that the hub cannot take.
    #[error("{field}: {what} is longer than {NAME_BYTES} bytes, the most that AMQP takes")]
    TooLong {
        /// The field that it comes from.
        field: &'static str,
        /// What it is.
        what: String,
    },
    /// Braces without an end, or empty.
    #[error("sink.hub.routingKey: {0}")]
    RoutingKey(TemplateError),
}

impl Pipeline {
    /// Fills in defaults and checks what the schema cannot.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn resolve(spec: &IngestPipelineSpec) -> Result<Self, Invalid> {
        let source = &spec.source;
        let worker = spec.worker.clone().unwrap_or_default();
        let dead = spec.dead_letter.clone().unwrap_or_default();
        let id = source.id.as_deref().unwrap_or("messageId");
        let (transform, handler) =
            spec.transform.as_ref().map_or((None, None), |t| (t.query.clone(), t.handler.clone()));
        if spec.transform.is_some() && transform.is_some() == handler.is_some() {
            return Err(Invalid::Transform);
        }
        if let Some(query) = &transform {
            check_transform(query)?;
        }
        check_sink(&spec.sink)?;
        let pipeline = Self {
            suspend: spec.suspend.unwrap_or(false),
            hub: spec.hub.secret_ref.clone(),
            rotate_days: rotate_days(&spec.hub),
            queue: source.queue.clone(),
            adopt: source.adopt.unwrap_or(false),
            bindings: source.bindings.clone(),
            prefetch: source.prefetch.unwrap_or(PREFETCH),
            id: MessageId::parse(id).ok_or_else(|| Invalid::Id(id.to_owned()))?,
            max_bytes: source.max_bytes.unwrap_or(MAX_BYTES),
            transform,
            handler,
            sink: spec.sink.clone(),
            image: worker.image,
            concurrency: worker.concurrency.unwrap_or(CONCURRENCY),
            resources: worker.resources.unwrap_or_else(default_resources),
            env: worker.env,
            pod_template: worker.pod_template.unwrap_or_default(),
            egress: worker.egress,
            scaling: Scaling::resolve(spec.scaling.as_ref()),
            rollout: Rollout::resolve(spec.rollout.as_ref()),
            dead_letter_queue: dead.queue.unwrap_or_else(|| format!("{}.dead", source.queue)),
            retry: Retry::resolve(spec.retry.as_ref()),
            retention_seconds: dead.retention_seconds.unwrap_or(RETENTION_SECONDS),
            max_dead_letters: dead.max_messages.unwrap_or(MAX_DEAD_LETTERS),
            deletion_policy: spec.deletion_policy.unwrap_or_default(),
        };
        pipeline.check_names()?;
        Ok(pipeline)
    }

    /// The schema counts characters; AMQP counts bytes, and some names here are made of others.
    fn check_names(&self) -> Result<(), Invalid> {
        let mut names = vec![
            ("source.queue", "the queue's name", self.queue.clone()),
            ("source.queue", "the exchange's name, <queue>.drover,", self.exchange()),
            (
                "source.queue",
                "the mirror queue's name, <queue>.mirror-<revision>,",
                mirror_queue(&self.queue, "0123456789"),
            ),
            ("deadLetter.queue", "the queue's name", self.dead_letter_queue.clone()),
        ];
        for step in 1..=SUSPECT_STEPS {
            names.push(("source.queue", "the name of the queue of suspects", suspects_queue(&self.queue, step)));
        }
        for step in self.delays() {
            names.push(("source.queue", "the name of a queue that delays", delay_queue(&self.queue, step)));
        }
        for binding in &self.bindings {
            names.push(("source.bindings", "an exchange's name", binding.exchange.clone()));
            names.push(("source.bindings", "a routing key", binding.routing_key.clone()));
        }
        if let Some(hub) = &self.sink.hub {
            names.push(("sink.hub.exchange", "the exchange's name", hub.exchange.clone()));
            names.push(("sink.hub.routingKey", "the routing key", hub.routing_key.clone().unwrap_or_default()));
        }
        match names.into_iter().find(|(_, _, name)| name.len() > NAME_BYTES) {
            Some((field, what, _)) => Err(Invalid::TooLong { field, what: what.to_owned() }),
            None => Ok(()),
        }
    }

    /// The pipeline's own exchange, which workers return and dead-letter through.
    #[must_use]
    pub fn exchange(&self) -> String {
        format!("{}.drover", self.queue)
    }

    /// Waits that messages may need, in seconds: none where nothing fails in passing for one message alone.
    #[must_use]
    pub fn delays(&self) -> Vec<u32> {
        if self.handler.is_some() || self.sink.http.is_some() { self.retry.steps() } else { Vec::new() }
    }

    /// What delivery amounts to.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        match &self.sink.postgres {
            Some(PostgresSink { mode: Some(PostgresMode::Upsert), .. } | PostgresSink { id_column: Some(_), .. }) => {
                Delivery::EffectivelyOnce
            }
            _ => Delivery::AtLeastOnce,
        }
    }
}

fn check_transform(query: &str) -> Result<(), Invalid> {
    let plan = parse_transform(query).map_err(Invalid::Query)?;
    if plan.source.eq_ignore_ascii_case(TRANSFORM_ALIAS) { Ok(()) } else { Err(Invalid::Alias(plan.source)) }
}

fn check_sink(sink: &Sink) -> Result<(), Invalid> {
    let set = [sink.postgres.is_some(), sink.hub.is_some(), sink.http.is_some(), sink.discard.is_some()];
    if set.into_iter().filter(|s| *s).count() != 1 {
        return Err(Invalid::Sink);
    }
    if let Some(http) = sink.http.as_ref().filter(|http| !is_web(&http.url)) {
        return Err(Invalid::Url(http.url.clone()));
    }
    if let Some(postgres) = &sink.postgres {
        table(&postgres.table).ok_or_else(|| Invalid::Table(postgres.table.clone()))?;
        for (column, text) in &postgres.columns {
            path(text).ok_or_else(|| Invalid::Column(column.clone(), text.clone()))?;
        }
    }
    if let Some(key) = sink.hub.as_ref().and_then(|h| h.routing_key.as_deref()) {
        RoutingKey::parse(key).map_err(Invalid::RoutingKey)?;
    }
    Ok(())
}

/// Splits `table` or `schema.table`.
#[must_use]
pub fn table(text: &str) -> Option<(Option<&str>, &str)> {
    match text.split_once('.') {
        None => (!text.is_empty()).then_some((None, text)),
        Some((schema, table)) => {
            (!schema.is_empty() && !table.is_empty() && !table.contains('.')).then_some((Some(schema), table))
        }
    }
}

/// A routing key with places for the message's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutingKey(pub Vec<Part>);

/// A part of a routing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text as it is.
    Text(String),
    /// A value of the message.
    Field(Vec<String>),
}

/// What is wrong with a routing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` without `}`.
    #[error("a {{ has no }}")]
    Open,
    /// `{}` or `{a..b}`.
    #[error("{{}} must name a field, such as {{deviceId}} or {{payloads.pref}}")]
    Empty,
}

impl RoutingKey {
    /// Reads `clean.{deviceId}`.
    ///
    /// # Errors
    /// If a brace is not closed or names nothing.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, behind) = after.split_once('}').ok_or(TemplateError::Open)?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let names: Vec<String> = name.split('.').map(str::to_owned).collect();
            if names.iter().any(String::is_empty) {
                return Err(TemplateError::Empty);
            }
            parts.push(Part::Field(names));
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }
}

pub(crate) fn default_resources() -> ResourceRequirements {
    let quantities = |pairs: &[(&str, &str)]| {
        Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect())
    };
    ResourceRequirements {
        requests: quantities(&[("cpu", "50m"), ("memory", "48Mi")]),
        limits: quantities(&[("memory", "256Mi")]),
        claims: None,
    }
}
