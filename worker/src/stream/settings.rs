//! What a query's worker is told: environment variables in, settings out. Reads no file and connects to nothing.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use drover_crds::{
    api::{HubSink, OrderingSpec},
    query::{Plan, parse},
    resolved::{self, RoutingKey},
};
use serde::Deserialize;

use crate::{
    hub::HubAddress,
    query::{Tolerance, resolve_tolerance},
    settings::{self, Env, Identity, SettingsError, StoreVariables, name, wrong},
    store::StoreAddress,
};

/// The streams are named by it, `-0` and up.
pub const STREAM: &str = "DROVER_STREAM";
/// Number of streams.
pub const PARTITIONS: &str = "DROVER_PARTITIONS";
/// The query.
pub const QUERY: &str = "DROVER_QUERY";
/// `spec.ordering` as JSON.
pub const ORDERING: &str = "DROVER_ORDERING";
/// `{"postgres":{"table":…}}` or `{"hub":{"exchange":…,"routingKey":…}}`, for a query of one output.
pub const SINK: &str = settings::SINK;
/// A JSON object of such, by the names of the query's outputs.
pub const OUTPUTS: &str = "DROVER_OUTPUTS";
/// `postgres://user:password@host:port/database?sslmode=require`: state, and results in tables.
pub const STORE_URI: &str = "DROVER_STORE_URI";
/// The store's host, without a URI.
pub const STORE_HOST: &str = "DROVER_STORE_HOST";
/// The store's port, without a URI.
pub const STORE_PORT: &str = "DROVER_STORE_PORT";
/// The store's role, without a URI.
pub const STORE_USERNAME: &str = "DROVER_STORE_USERNAME";
/// The role's password, without a URI.
pub const STORE_PASSWORD: &str = "DROVER_STORE_PASSWORD";
/// The database, without a URI.
pub const STORE_DATABASE: &str = "DROVER_STORE_DATABASE";
/// Authorities of the store, PEM.
pub const STORE_CA: &str = "DROVER_STORE_CA";
/// Schema of the tables of state.
pub const STORE_SCHEMA: &str = "DROVER_STORE_SCHEMA";
/// Seconds that a partition stays with a worker that says nothing.
pub const LEASE_SECONDS: &str = "DROVER_LEASE_SECONDS";
/// Silence after which a partition is ticked, in milliseconds; 0 for never.
pub const TICK_MILLIS: &str = "DROVER_TICK_MILLIS";
/// Most messages of a batch.
pub const BATCH_MESSAGES: &str = "DROVER_BATCH_MESSAGES";
/// Longest time that a batch is filled, in milliseconds.
pub const BATCH_MILLIS: &str = "DROVER_BATCH_MILLIS";
/// Starts of one message alone after which it is skipped as what ends workers.
pub const RETRY_ATTEMPTS: &str = "DROVER_RETRY_ATTEMPTS";

/// Those that say where the store is.
const OF_STORE: StoreVariables = StoreVariables {
    uri: STORE_URI,
    host: STORE_HOST,
    port: STORE_PORT,
    username: STORE_USERNAME,
    password: STORE_PASSWORD,
    database: STORE_DATABASE,
    ca: STORE_CA,
};

/// Default of [`STORE_SCHEMA`].
pub const DEFAULT_SCHEMA: &str = "drover";
/// Default of [`LEASE_SECONDS`]: a pod is gone for about so long before its partitions go on elsewhere.
pub const DEFAULT_LEASE_SECONDS: u16 = 15;
/// Default of [`TICK_MILLIS`].
pub const DEFAULT_TICK_MILLIS: u32 = 1_000;
/// Default of [`BATCH_MESSAGES`]: at 80,000 messages a second 20 transactions.
pub const DEFAULT_BATCH_MESSAGES: u16 = 4_000;
/// Default of [`BATCH_MILLIS`].
pub const DEFAULT_BATCH_MILLIS: u32 = 100;
/// Default of [`RETRY_ATTEMPTS`].
pub const DEFAULT_ATTEMPTS: u16 = 5;

/// Everything that a query's worker is told.
#[derive(Debug, Clone)]
pub struct StreamSettings {
    /// Who the worker is.
    pub identity: Identity,
    /// Where the hub is.
    pub hub: HubAddress,
    /// Where state is, and results in tables.
    pub store: StoreAddress,
    /// Schema of the tables of state.
    pub schema: String,
    /// The streams are named by it.
    pub stream: String,
    /// Number of streams.
    pub partitions: i32,
    /// Takes ticks (key `tick-<partition>`) and dead letters (key `dead`).
    pub exchange: String,
    /// The query, checked.
    pub plan: Plan,
    /// How time is ordered.
    pub tolerance: Tolerance,
    /// Where results go, by output.
    pub outputs: BTreeMap<String, Output>,
    /// How long a partition stays with a worker that says nothing.
    pub lease: Duration,
    /// Silence after which a partition is ticked.
    pub tick: Option<Duration>,
    /// How batches are cut.
    pub batch: BatchLimits,
    /// Starts of one message alone after which it is skipped.
    pub attempts: i32,
    /// Time from SIGTERM to the end.
    pub grace: Duration,
    /// Where health, metrics and status are served.
    pub listen: SocketAddr,
}

/// How batches are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most messages.
    pub messages: usize,
    /// Longest time to fill it.
    pub fill: Duration,
}

/// Where the rows of one output go.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A table of the store's database: `table` or `schema.table`.
    Table(String),
    /// An exchange of the same hub.
    Hub {
        /// The exchange.
        exchange: String,
        /// The routing key, made from the row.
        routing_key: RoutingKey,
    },
}

#[derive(Debug, Deserialize)]
struct TableSpec {
    table: String,
}

#[derive(Debug, Deserialize)]
struct OutputSpec {
    postgres: Option<TableSpec>,
    hub: Option<HubSink>,
}

impl StreamSettings {
    /// Reads the variables that `lookup` knows. An empty one is as good as none.
    ///
    /// # Errors
    /// The first variable that is missing or wrong, and what is expected of it.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let env = Env(&lookup);
        let stream = name(STREAM, env.required(STREAM, "the name of the streams to read, without -0")?)?;
        let text = env.required(QUERY, "a query")?;
        let plan = parse(&text).map_err(|e| wrong(QUERY, e.to_string()))?;
        let tick: u32 = env.number(TICK_MILLIS, "a number of milliseconds", DEFAULT_TICK_MILLIS)?;
        let fill: u32 = env.number(BATCH_MILLIS, "a number of milliseconds", DEFAULT_BATCH_MILLIS)?;
        let grace: u32 = env.number(settings::GRACE_SECONDS, "a number of seconds", settings::DEFAULT_GRACE_SECONDS)?;
        Ok(Self {
            identity: settings::identity(&env),
            hub: settings::hub(&env)?,
            store: settings::store(&env, &OF_STORE)?,
            schema: env.text(STORE_SCHEMA).unwrap_or_else(|| DEFAULT_SCHEMA.to_owned()),
            partitions: env.positive(PARTITIONS, resolved::PARTITIONS)?.into(),
            exchange: name(
                settings::EXCHANGE,
                env.text(settings::EXCHANGE).unwrap_or_else(|| format!("{stream}.drover")),
            )?,
            stream,
            tolerance: tolerance(&env)?,
            outputs: outputs(&env, &plan)?,
            plan,
            lease: lease(&env)?,
            tick: (tick > 0).then(|| Duration::from_millis(tick.into())),
            batch: BatchLimits {
                messages: env.positive(BATCH_MESSAGES, DEFAULT_BATCH_MESSAGES)?.into(),
                fill: Duration::from_millis(fill.into()),
            },
            attempts: env.positive(RETRY_ATTEMPTS, DEFAULT_ATTEMPTS)?.into(),
            grace: Duration::from_secs(grace.into()),
            listen: env.number(
                settings::LISTEN,
                "an address and port such as 0.0.0.0:8080",
                settings::default_listen(),
            )?,
        })
    }

    /// The query's name in the tables of state.
    #[must_use]
    pub fn query_name(&self) -> String {
        let Identity { namespace, name, .. } = &self.identity;
        if name.is_empty() { self.stream.clone() } else { format!("{namespace}/{name}") }
    }

    /// The stream of a partition.
    #[must_use]
    pub fn stream_of(&self, part: i32) -> String {
        format!("{}-{part}", self.stream)
    }
}

fn lease(env: &Env<'_>) -> Result<Duration, SettingsError> {
    /// Statements end two thirds of a lease after they began, and nothing ends in less than a second.
    const LEAST: u16 = 2;
    let seconds = env.positive(LEASE_SECONDS, DEFAULT_LEASE_SECONDS)?;
    if seconds < LEAST {
        return Err(wrong(LEASE_SECONDS, format!("at least {LEAST} seconds")));
    }
    Ok(Duration::from_secs(seconds.into()))
}

fn tolerance(env: &Env<'_>) -> Result<Tolerance, SettingsError> {
    const EXPECTED: &str = r#"JSON such as {"policy":"Adjust","lateArrivalSeconds":5,"outOfOrderSeconds":0}"#;
    let Some(text) = env.text(ORDERING) else { return Ok(Tolerance::default()) };
    let spec: OrderingSpec = serde_json::from_str(&text).map_err(|e| wrong(ORDERING, format!("{EXPECTED}: {e}")))?;
    resolve_tolerance(&spec).map_err(|e| wrong(ORDERING, e.to_string()))
}

fn outputs(env: &Env<'_>, plan: &Plan) -> Result<BTreeMap<String, Output>, SettingsError> {
    const EXPECTED: &str = r#"{"postgres":{"table":"counts"}} or {"hub":{"exchange":"counts"}}"#;
    let names = plan.outputs();
    let specs: BTreeMap<String, OutputSpec> = if let Some(text) = env.text(OUTPUTS) {
        serde_json::from_str(&text).map_err(|e| wrong(OUTPUTS, format!("by output, {EXPECTED}: {e}")))?
    } else {
        let text = env.required(SINK, EXPECTED)?;
        let spec = serde_json::from_str(&text).map_err(|e| wrong(SINK, format!("{EXPECTED}: {e}")))?;
        let [only] = names[..] else {
            return Err(wrong(OUTPUTS, format!("is missing: the query has outputs {}", names.join(", "))));
        };
        BTreeMap::from([(only.to_owned(), spec)])
    };
    let one = |output: &&str| {
        let spec = specs.get(*output).ok_or_else(|| wrong(OUTPUTS, format!("has no {output}")))?;
        Ok(((*output).to_owned(), resolve(output, spec, EXPECTED)?))
    };
    names.iter().map(one).collect()
}

fn resolve(output: &str, spec: &OutputSpec, expected: &str) -> Result<Output, SettingsError> {
    match (&spec.postgres, &spec.hub) {
        (Some(postgres), None) => {
            resolved::table(&postgres.table)
                .ok_or_else(|| wrong(OUTPUTS, format!("{:?} is neither table nor schema.table", postgres.table)))?;
            Ok(Output::Table(postgres.table.clone()))
        }
        (None, Some(hub)) => {
            let key = hub.routing_key.as_deref().unwrap_or(output);
            let routing_key = RoutingKey::parse(key).map_err(|e| wrong(OUTPUTS, e.to_string()))?;
            Ok(Output::Hub { exchange: name(OUTPUTS, hub.exchange.clone())?, routing_key })
        }
        _ => Err(wrong(OUTPUTS, format!("{output}: {expected}"))),
    }
}
