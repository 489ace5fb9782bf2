//! What the spec of a `WindowQuery` means once its defaults are filled in, and what the API server cannot check.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    core::v1::{EnvVar, ResourceRequirements},
    networking::v1::NetworkPolicyEgressRule,
};

use crate::{
    api::{
        Binding, Delivery, OrderingSpec, PodTemplate, QueryDeletionPolicy, QuerySink, ResultTable, SecretRef,
        WindowQuerySpec,
    },
    query::{Plan, QueryError, parse},
    resolved::{
        MAX_DEAD_LETTERS, NAME_BYTES, PARTITIONS, RETENTION_SECONDS, RoutingKey, Scaling, TemplateError,
        default_resources, rotate_days, table,
    },
};

/// Default of `input.alias`.
pub const ALIAS: &str = "input";
/// Default of `input.retention.maxAgeSeconds`: a day.
pub const MAX_AGE_SECONDS: u32 = 24 * 3600;
/// Default of `input.retention.maxBytes`: 10 GiB for each stream.
pub const MAX_STREAM_BYTES: i64 = 10 * 1024 * 1024 * 1024;
/// Default of `store.postgres.schema`.
pub const SCHEMA: &str = "drover";
/// Default of `retry.attempts`.
pub const ATTEMPTS: u16 = 5;
/// Most partitions, as the schema has it.
const MAX_PARTITIONS: i32 = 256;
/// Longest identifier of PostgreSQL, in bytes.
const IDENTIFIER_BYTES: usize = 63;

/// A `WindowQuery` without open questions.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Workers are to be at zero.
    pub suspend: bool,
    /// Name of the hub's secret, and its keys, as written.
    pub hub: SecretRef,
    /// Days that a user of the hub lives which the operator makes; `None` where workers are the secret's own.
    pub rotate_days: Option<u32>,
    /// The streams are named by it.
    pub stream: String,
    /// Number of streams.
    pub partitions: u16,
    /// What is routed into the streams.
    pub bindings: Vec<Binding>,
    /// A stream keeps messages so long.
    pub max_age_seconds: u32,
    /// Most bytes of a stream.
    pub max_stream_bytes: i64,
    /// The query, as written.
    pub text: String,
    /// The query, checked.
    pub plan: Plan,
    /// How late and disordered events are treated, as written.
    pub ordering: OrderingSpec,
    /// Name of the store's secret, and its keys, as written.
    pub store: SecretRef,
    /// Schema of the tables of state.
    pub schema: String,
    /// Where results go, by the names of the query's outputs.
    pub outputs: BTreeMap<String, Output>,
    /// The worker's image, where it is not the operator's default.
    pub image: Option<String>,
    /// Resources of the worker.
    pub resources: ResourceRequirements,
    /// More environment.
    pub env: Vec<EnvVar>,
    /// What else pods carry.
    pub pod_template: PodTemplate,
    /// More egress.
    pub egress: Vec<NetworkPolicyEgressRule>,
    /// How many workers there are; never more than partitions.
    pub scaling: Scaling,
    /// Starts of one message alone after which it is passed over.
    pub attempts: u16,
    /// The dead-letter queue.
    pub dead_letter_queue: String,
    /// Life of a dead letter, in seconds.
    pub retention_seconds: u32,
    /// Most dead letters.
    pub max_dead_letters: u32,
    /// What becomes of streams and state.
    pub deletion_policy: QueryDeletionPolicy,
}

/// Where the rows of an output go.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A table of the store's database.
    Table(ResultTable),
    /// An exchange of the same hub, and the routing key, as written.
    Hub(crate::api::HubSink),
}

/// What the API server cannot check; the field is named.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InvalidQuery {
    /// The query cannot be used.
    #[error("query: {0}")]
    Query(QueryError),
    /// The query reads something else.
    #[error("query: it reads FROM {found}, and input.alias is {alias}: make them the same")]
    Alias {
        /// After FROM.
        found: String,
        /// In the spec.
        alias: String,
    },
    /// `sink` and `outputs`, or neither.
    #[error("either sink or outputs must be set")]
    Sinks,
    /// An output with no place to go, or a place for no output.
    #[error("{0}")]
    Outputs(String),
    /// Neither, or both.
    #[error("{0}: exactly one of postgres and hub must be set")]
    Sink(String),
    /// A table of another form.
    #[error("{field}.postgres.table: {table:?} is neither a table nor schema.table")]
    Table {
        /// Of which output.
        field: String,
        /// As written.
        table: String,
    },
    /// Braces without an end, or empty.
    #[error("{field}.hub.routingKey: {error}")]
    RoutingKey {
        /// Of which output.
        field: String,
        /// What is wrong.
        error: TemplateError,
    },
    /// A number out of its range, where the schema did not refuse it.
    #[error("{0}")]
    Range(&'static str),
    /// A name that the hub or the store cannot take.
    #[error("{field}: {what} is longer than {most} bytes")]
    TooLong {
        /// The field that it comes from.
        field: &'static str,
        /// What it is.
        what: &'static str,
        /// Most bytes.
        most: usize,
    },
    /// Two names that must differ.
    #[error("deadLetter.queue: {0} is one of the query's streams or exchanges: name another")]
    DeadLetterQueue(String),
}

impl Query {
    /// Fills in defaults and checks what the schema cannot.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn resolve(spec: &WindowQuerySpec) -> Result<Self, InvalidQuery> {
        let input = &spec.input;
        let plan = checked(&spec.query, input.alias.as_deref().unwrap_or(ALIAS))?;
        let outputs = outputs(spec, &plan)?;
        let worker = spec.worker.clone().unwrap_or_default();
        let dead = spec.dead_letter.clone().unwrap_or_default();
        let retention = input.retention.clone().unwrap_or_default();
        let partitions = partitions(input.partitions)?;
        let query = Self {
            suspend: spec.suspend.unwrap_or(false),
            hub: spec.hub.secret_ref.clone(),
            rotate_days: rotate_days(&spec.hub),
            stream: input.stream.clone(),
            partitions,
            bindings: input.bindings.clone(),
            max_age_seconds: retention.max_age_seconds.unwrap_or(MAX_AGE_SECONDS),
            max_stream_bytes: retention.max_bytes.unwrap_or(MAX_STREAM_BYTES),
            text: spec.query.clone(),
            plan,
            ordering: spec.ordering.clone().unwrap_or_default(),
            store: spec.store.postgres.secret_ref.clone(),
            schema: spec.store.postgres.schema.clone().unwrap_or_else(|| SCHEMA.to_owned()),
            outputs,
            image: worker.image,
            resources: worker.resources.unwrap_or_else(default_resources),
            env: worker.env,
            pod_template: worker.pod_template.unwrap_or_default(),
            egress: worker.egress,
            scaling: scaling(spec, partitions)?,
            attempts: spec.retry.as_ref().and_then(|r| r.attempts).unwrap_or(ATTEMPTS),
            dead_letter_queue: dead.queue.unwrap_or_else(|| format!("{}.dead", input.stream)),
            retention_seconds: dead.retention_seconds.unwrap_or(RETENTION_SECONDS),
            max_dead_letters: dead.max_messages.unwrap_or(MAX_DEAD_LETTERS),
            deletion_policy: spec.deletion_policy.unwrap_or_default(),
        };
        query.check_names()?;
        Ok(query)
    }

    /// AMQP and PostgreSQL count bytes, the schema characters.
    fn check_names(&self) -> Result<(), InvalidQuery> {
        let last = self.stream_of(self.partitions.saturating_sub(1));
        let mut names = vec![
            ("input.stream", "a stream's name", last),
            ("input.stream", "the exchange's name, <stream>.drover,", self.exchange()),
            ("deadLetter.queue", "the queue's name", self.dead_letter_queue.clone()),
        ];
        for binding in &self.bindings {
            names.push(("input.bindings", "an exchange's name", binding.exchange.clone()));
            names.push(("input.bindings", "a routing key", binding.routing_key.clone()));
        }
        for hub in self.hub_outputs() {
            names.push(("hub.exchange", "the exchange's name", hub.exchange.clone()));
            names.push(("hub.routingKey", "the routing key", hub.routing_key.clone().unwrap_or_default()));
        }
        if let Some((field, what, _)) = names.into_iter().find(|(_, _, name)| name.len() > NAME_BYTES) {
            return Err(InvalidQuery::TooLong { field, what, most: NAME_BYTES });
        }
        if self.schema.len() > IDENTIFIER_BYTES {
            let (field, what) = ("store.postgres.schema", "the schema's name");
            return Err(InvalidQuery::TooLong { field, what, most: IDENTIFIER_BYTES });
        }
        let dead = &self.dead_letter_queue;
        if self.streams().contains(dead) || *dead == self.stream || *dead == self.exchange() {
            return Err(InvalidQuery::DeadLetterQueue(dead.clone()));
        }
        Ok(())
    }

    /// The query's own exchange: ticks go through it to the streams, dead letters to their queue.
    #[must_use]
    pub fn exchange(&self) -> String {
        format!("{}.drover", self.stream)
    }

    /// The stream of a partition.
    #[must_use]
    pub fn stream_of(&self, part: u16) -> String {
        format!("{}-{part}", self.stream)
    }

    /// The streams, by partition.
    #[must_use]
    pub fn streams(&self) -> Vec<String> {
        (0..self.partitions).map(|part| self.stream_of(part)).collect()
    }

    /// Outputs that are exchanges.
    pub fn hub_outputs(&self) -> impl Iterator<Item = &crate::api::HubSink> {
        self.outputs.values().filter_map(|output| match output {
            Output::Hub(hub) => Some(hub),
            Output::Table(_) => None,
        })
    }

    /// Outputs that are tables.
    pub fn tables(&self) -> impl Iterator<Item = &ResultTable> {
        self.outputs.values().filter_map(|output| match output {
            Output::Table(table) => Some(table),
            Output::Hub(_) => None,
        })
    }

    /// What delivery amounts to: a table is written in the transaction that closes the window.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        if self.hub_outputs().next().is_none() { Delivery::EffectivelyOnce } else { Delivery::AtLeastOnce }
    }
}

fn checked(text: &str, alias: &str) -> Result<Plan, InvalidQuery> {
    let plan = parse(text).map_err(InvalidQuery::Query)?;
    if plan.source.eq_ignore_ascii_case(alias) {
        Ok(plan)
    } else {
        Err(InvalidQuery::Alias { found: plan.source, alias: alias.to_owned() })
    }
}

fn partitions(wanted: Option<i32>) -> Result<u16, InvalidQuery> {
    let wanted = wanted.unwrap_or_else(|| PARTITIONS.into());
    let fits = (1..=MAX_PARTITIONS).contains(&wanted).then_some(wanted).and_then(|n| u16::try_from(n).ok());
    fits.ok_or(InvalidQuery::Range("input.partitions: 1 to 256"))
}

fn scaling(spec: &WindowQuerySpec, partitions: u16) -> Result<Scaling, InvalidQuery> {
    let mut scaling = Scaling::resolve(spec.scaling.as_ref());
    let most = u32::from(partitions);
    if scaling.min_replicas > most || i64::from(scaling.replicas) > i64::from(most) {
        return Err(InvalidQuery::Range("scaling: more workers than input.partitions have nothing to read"));
    }
    scaling.max_replicas = scaling.max_replicas.min(most);
    scaling.fallback_replicas = scaling.fallback_replicas.min(scaling.max_replicas);
    Ok(scaling)
}

fn outputs(spec: &WindowQuerySpec, plan: &Plan) -> Result<BTreeMap<String, Output>, InvalidQuery> {
    let names = plan.outputs();
    match (&spec.sink, &spec.outputs) {
        (Some(sink), None) => {
            let [only] = names[..] else {
                let message = format!("sink: the query has outputs {}: name them in outputs", names.join(", "));
                return Err(InvalidQuery::Outputs(message));
            };
            Ok(BTreeMap::from([(only.to_owned(), output("sink", sink)?)]))
        }
        (None, Some(outputs)) => {
            if let Some(missing) = names.iter().find(|n| !outputs.contains_key(**n)) {
                return Err(InvalidQuery::Outputs(format!("outputs: there is none for INTO {missing}")));
            }
            if let Some(extra) = outputs.keys().find(|k| !names.contains(&k.as_str())) {
                let message = format!("outputs: {extra} is no output of the query, which has {}", names.join(", "));
                return Err(InvalidQuery::Outputs(message));
            }
            let resolve =
                |(name, sink): (&String, &QuerySink)| Ok((name.clone(), output(&format!("outputs.{name}"), sink)?));
            outputs.iter().map(resolve).collect()
        }
        _ => Err(InvalidQuery::Sinks),
    }
}

fn output(field: &str, sink: &QuerySink) -> Result<Output, InvalidQuery> {
    let field = field.to_owned();
    match (&sink.postgres, &sink.hub) {
        (Some(postgres), None) => match table(&postgres.table) {
            Some(_) => Ok(Output::Table(postgres.clone())),
            None => Err(InvalidQuery::Table { field, table: postgres.table.clone() }),
        },
        (None, Some(hub)) => {
            let key = hub.routing_key.as_deref().unwrap_or_default();
            RoutingKey::parse(key).map_err(|error| InvalidQuery::RoutingKey { field, error })?;
            Ok(Output::Hub(hub.clone()))
        }
        _ => Err(InvalidQuery::Sink(field)),
    }
}
