//! What a worker is told: environment variables in, settings out. Reads no file and connects to nothing.

mod role;
mod traces;
mod web;

use std::{fmt::Display, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use drover_crds::{
    api::Sink,
    resolved::{
        self, CONCURRENCY, HANDLER_TIMEOUT_SECONDS, MAX_BYTES, MessageId, PREFETCH, RETRY_ATTEMPTS,
        RETRY_INITIAL_SECONDS, RETRY_MAX_SECONDS, Retry,
    },
};

use crate::{
    hub::HubAddress,
    store::{StoreAddress, StoreParts},
    tls::Material,
};

pub use role::Role;
pub use traces::{TRACES_CA, TRACES_ENDPOINT, TRACES_OFF, TRACES_OTHER_ENDPOINT, TRACES_RATIO, Traces};
pub use web::{Handler, Server};

/// Namespace of the pipeline; for logs and headers.
pub const NAMESPACE: &str = "DROVER_NAMESPACE";
/// Name of the pipeline; for logs and headers.
pub const NAME: &str = "DROVER_NAME";
/// Revision of the worker; for logs and headers.
pub const REVISION: &str = "DROVER_REVISION";
/// Name of the pod; for logs and headers.
pub const POD: &str = "DROVER_POD";
/// `amqp[s]://user:password@host:port/vhost`.
pub const HUB_URI: &str = "DROVER_HUB_URI";
/// Authorities of the hub, PEM.
pub const HUB_CA: &str = "DROVER_HUB_CA";
/// The worker's certificate for the hub, PEM.
pub const HUB_CERT: &str = "DROVER_HUB_CERT";
/// The key of the worker's certificate, PEM.
pub const HUB_KEY: &str = "DROVER_HUB_KEY";
/// The queue that is read.
pub const SOURCE_QUEUE: &str = "DROVER_SOURCE_QUEUE";
/// `true` where nothing of Drover's is bound to the queue.
pub const SOURCE_ADOPT: &str = "DROVER_SOURCE_ADOPT";
/// Most messages held unacknowledged.
pub const SOURCE_PREFETCH: &str = "DROVER_SOURCE_PREFETCH";
/// Where a message's id is, as `source.id`.
pub const SOURCE_ID: &str = "DROVER_SOURCE_ID";
/// Largest body, in bytes.
pub const SOURCE_MAX_BYTES: &str = "DROVER_SOURCE_MAX_BYTES";
/// Priority of the consumer: of two revisions the one with the higher number is given messages as long as it takes them.
pub const CONSUMER_PRIORITY: &str = "DROVER_CONSUMER_PRIORITY";
/// The pipeline's exchange, which dead letters and returns go through.
pub const EXCHANGE: &str = "DROVER_EXCHANGE";
/// The transform's query.
pub const TRANSFORM_QUERY: &str = "DROVER_TRANSFORM_QUERY";
/// Port on localhost of the handler that transforms, in place of a query.
pub const HANDLER_PORT: &str = "DROVER_HANDLER_PORT";
/// Seconds after which a message has hung in the handler.
pub const HANDLER_TIMEOUT_SECONDS_VAR: &str = "DROVER_HANDLER_TIMEOUT_SECONDS";
/// `true`: the worker reads copies, from the queue of [`resolved::mirror_queue`]. It writes nothing that stays, and
/// dead-letters nothing.
pub const PREVIEW: &str = "DROVER_PREVIEW";
/// A preview works on so many messages in a hundred, and skips the rest.
pub const PREVIEW_PERCENT: &str = "DROVER_PREVIEW_PERCENT";
/// `main`, `suspects-1` or `suspects-2`: which of the pipeline's queues is read.
pub const ROLE: &str = "DROVER_ROLE";
/// `true` where what was in flight at a crash is handled apart, by workers of its own.
pub const SUSPECTS: &str = "DROVER_SUSPECTS";
/// A file that has the last known exit of a worker or handler of this pipeline.
pub const LAST_EXIT_FILE: &str = "DROVER_LAST_EXIT_FILE";
/// Tries of a message in all.
pub const RETRY_ATTEMPTS_VAR: &str = "DROVER_RETRY_ATTEMPTS";
/// Seconds to wait after the first try.
pub const RETRY_INITIAL_SECONDS_VAR: &str = "DROVER_RETRY_INITIAL_SECONDS";
/// Longest wait, in seconds.
pub const RETRY_MAX_SECONDS_VAR: &str = "DROVER_RETRY_MAX_SECONDS";
/// `spec.sink` as JSON.
pub const SINK: &str = "DROVER_SINK";
/// `postgres://user:password@host:port/database?sslmode=require`.
pub const SINK_URI: &str = "DROVER_SINK_URI";
/// The store's host, without a URI.
pub const SINK_HOST: &str = "DROVER_SINK_HOST";
/// The store's port, without a URI.
pub const SINK_PORT: &str = "DROVER_SINK_PORT";
/// The store's role, without a URI.
pub const SINK_USERNAME: &str = "DROVER_SINK_USERNAME";
/// The role's password, without a URI.
pub const SINK_PASSWORD: &str = "DROVER_SINK_PASSWORD";
/// The database, without a URI.
pub const SINK_DATABASE: &str = "DROVER_SINK_DATABASE";
/// A bearer token for a sink that is a server.
pub const SINK_TOKEN: &str = "DROVER_SINK_TOKEN";
/// The worker's certificate for a sink that is a server, PEM.
pub const SINK_CERT: &str = "DROVER_SINK_CERT";
/// The key of that certificate, PEM.
pub const SINK_KEY: &str = "DROVER_SINK_KEY";
/// Authorities of the store or the server, PEM.
pub const SINK_CA: &str = "DROVER_SINK_CA";
/// Batches that are written at the same time.
pub const WORKER_CONCURRENCY: &str = "DROVER_CONCURRENCY";
/// Seconds from SIGTERM to the end.
pub const GRACE_SECONDS: &str = "DROVER_GRACE_SECONDS";
/// The container's memory limit, in bytes.
pub const MEMORY_LIMIT_BYTES: &str = "DROVER_MEMORY_LIMIT_BYTES";
/// Address and port of health, metrics and status.
pub const LISTEN: &str = "DROVER_LISTEN";
/// `text` or `json`.
pub const LOG_FORMAT: &str = "DROVER_LOG_FORMAT";

/// Default of [`GRACE_SECONDS`]: that of Kubernetes.
pub const DEFAULT_GRACE_SECONDS: u32 = 30;
/// Default of [`LISTEN`].
pub const DEFAULT_LISTEN: &str = "0.0.0.0:8080";

/// Longest name of a queue or an exchange, in bytes; AMQP has no room for more.
const MAX_NAME: usize = 255;

/// A variable is missing or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {expected}")]
pub struct SettingsError {
    /// The variable.
    pub variable: &'static str,
    /// What is expected of it, and what is wrong.
    pub expected: String,
}

/// Everything a worker is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who the worker is.
    pub identity: Identity,
    /// Where the hub is.
    pub hub: HubAddress,
    /// What is read.
    pub source: Source,
    /// The pipeline's exchange.
    pub exchange: String,
    /// The transform's query.
    pub transform: Option<String>,
    /// The handler that transforms in place of a query.
    pub handler: Option<Handler>,
    /// The worker is a preview, and works on so many messages in a hundred.
    pub preview: Option<u32>,
    /// Which queue is read.
    pub role: Role,
    /// What was in flight at a crash is handled apart.
    pub suspects: bool,
    /// Has the last known exit of a worker or handler.
    pub last_exit: Option<PathBuf>,
    /// When what failed in passing is tried again.
    pub retry: Retry,
    /// Where results go.
    pub sink: Sink,
    /// Where the store is; there is one where the sink is PostgreSQL.
    pub store: Option<StoreAddress>,
    /// How a server that is the sink is spoken to.
    pub server: Server,
    /// Batches at the same time.
    pub concurrency: u16,
    /// Time from SIGTERM to the end.
    pub grace: Duration,
    /// The container's memory limit, in bytes.
    pub memory_limit: Option<u64>,
    /// Where health, metrics and status are served.
    pub listen: SocketAddr,
    /// Where spans go, if anywhere.
    pub traces: Option<Traces>,
}

/// Who a worker is; empty texts where it is run by hand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Namespace of the pipeline.
    pub namespace: String,
    /// Name of the pipeline.
    pub name: String,
    /// Revision of the worker.
    pub revision: String,
    /// The pod.
    pub pod: String,
}

impl Identity {
    /// What hub and store show of the worker's connections.
    pub(crate) fn connection_name(&self) -> String {
        let parts = [&self.namespace, &self.name, &self.pod];
        let named: Vec<&str> = parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        format!("drover-worker {}", named.join("/")).trim_end().to_owned()
    }
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The queue.
    pub queue: String,
    /// It is somebody else's: nothing of Drover's is bound to it.
    pub adopt: bool,
    /// Most messages held unacknowledged.
    pub prefetch: u16,
    /// Where a message's id is.
    pub id: MessageId,
    /// Largest body, in bytes.
    pub max_bytes: u32,
    /// Priority of the consumer.
    pub priority: i32,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

impl Settings {
    /// Reads the variables that `lookup` knows. An empty one is as good as none.
    ///
    /// # Errors
    /// The first variable that is missing or wrong, and what is expected of it.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let env = Env(&lookup);
        let queue = name(SOURCE_QUEUE, env.required(SOURCE_QUEUE, "the name of the queue to read")?)?;
        let sink = sink(&env)?;
        let grace = env.number(GRACE_SECONDS, "a number of seconds", DEFAULT_GRACE_SECONDS)?;
        Ok(Self {
            identity: identity(&env),
            hub: hub(&env)?,
            exchange: name(EXCHANGE, env.text(EXCHANGE).unwrap_or_else(|| format!("{queue}.drover")))?,
            source: source(&env, queue)?,
            transform: env.text(TRANSFORM_QUERY),
            handler: handler(&env)?,
            preview: preview(&env)?,
            role: role(&env)?,
            suspects: env.number(SUSPECTS, "true or false", false)?,
            last_exit: env.text(LAST_EXIT_FILE).map(PathBuf::from),
            retry: retry(&env)?,
            server: Server {
                token: env.text(SINK_TOKEN),
                tls: Material { ca: env.text(SINK_CA), cert: env.text(SINK_CERT), key: env.text(SINK_KEY) },
            },
            store: if sink.postgres.is_some() { Some(store(&env, &OF_SINK)?) } else { None },
            sink,
            concurrency: env.positive(WORKER_CONCURRENCY, CONCURRENCY)?,
            grace: Duration::from_secs(grace.into()),
            memory_limit: env.optional(MEMORY_LIMIT_BYTES, "a number of bytes")?,
            listen: env.number(LISTEN, "an address and port such as 0.0.0.0:8080", default_listen())?,
            traces: Traces::from_env(&env)?,
        })
    }
}

impl Settings {
    /// The queue that is read: the source, one of its suspects, or that of the copies.
    #[must_use]
    pub fn queue(&self) -> String {
        match self.preview {
            Some(_) => resolved::mirror_queue(&self.source.queue, &self.identity.revision),
            None => self.role.queue(&self.source.queue),
        }
    }
}

impl LogFormat {
    /// Reads [`LOG_FORMAT`].
    ///
    /// # Errors
    /// If it is neither `text` nor `json`.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        match Env(&lookup).text(LOG_FORMAT).as_deref() {
            None | Some("text") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            Some(other) => Err(wrong(LOG_FORMAT, format!("text or json, not {other:?}"))),
        }
    }
}

pub(crate) fn identity(env: &Env<'_>) -> Identity {
    Identity {
        namespace: env.text(NAMESPACE).unwrap_or_default(),
        name: env.text(NAME).unwrap_or_default(),
        revision: env.text(REVISION).unwrap_or_default(),
        pod: env.text(POD).unwrap_or_default(),
    }
}

pub(crate) fn default_listen() -> SocketAddr {
    DEFAULT_LISTEN.parse().expect("the default is an address")
}

pub(crate) fn hub(env: &Env<'_>) -> Result<HubAddress, SettingsError> {
    let uri = env.required(HUB_URI, "amqps://user:password@host:port/vhost")?;
    let tls = Material { ca: env.text(HUB_CA), cert: env.text(HUB_CERT), key: env.text(HUB_KEY) };
    let address = HubAddress { uri, tls };
    address.identity().map_err(|e| wrong(HUB_URI, e.message))?;
    Ok(address)
}

fn handler(env: &Env<'_>) -> Result<Option<Handler>, SettingsError> {
    let Some(port) = env.optional(HANDLER_PORT, "a TCP port")? else { return Ok(None) };
    if env.text(TRANSFORM_QUERY).is_some() {
        return Err(wrong(HANDLER_PORT, format!("not together with {TRANSFORM_QUERY}")));
    }
    let seconds: u32 = env.number(HANDLER_TIMEOUT_SECONDS_VAR, "a number of seconds", HANDLER_TIMEOUT_SECONDS)?;
    Ok(Some(Handler { port, timeout: Duration::from_secs(seconds.max(1).into()) }))
}

fn retry(env: &Env<'_>) -> Result<Retry, SettingsError> {
    let seconds = "a number of seconds";
    let initial_seconds = env.number(RETRY_INITIAL_SECONDS_VAR, seconds, RETRY_INITIAL_SECONDS)?.max(1);
    Ok(Retry {
        attempts: env.positive(RETRY_ATTEMPTS_VAR, RETRY_ATTEMPTS)?,
        initial_seconds,
        max_seconds: env.number(RETRY_MAX_SECONDS_VAR, seconds, RETRY_MAX_SECONDS)?.max(initial_seconds),
    })
}

fn source(env: &Env<'_>, queue: String) -> Result<Source, SettingsError> {
    let id = env.text(SOURCE_ID).unwrap_or_else(|| "messageId".to_owned());
    let id = MessageId::parse(&id)
        .ok_or_else(|| wrong(SOURCE_ID, format!("messageId, header:NAME or a JSON path such as $.id, not {id:?}")))?;
    Ok(Source {
        queue,
        adopt: env.number(SOURCE_ADOPT, "true or false", false)?,
        prefetch: env.positive(SOURCE_PREFETCH, PREFETCH)?,
        id,
        max_bytes: env.number(SOURCE_MAX_BYTES, "a number of bytes", MAX_BYTES)?,
        priority: env.number(CONSUMER_PRIORITY, "a whole number", 0)?,
    })
}

fn preview(env: &Env<'_>) -> Result<Option<u32>, SettingsError> {
    const EXPECTED: &str = "a percentage from 1 to 100";
    let percent = env.optional(PREVIEW_PERCENT, EXPECTED)?;
    if let Some(wrong_one) = percent.filter(|percent| !(1..=100).contains(percent)) {
        return Err(wrong(PREVIEW_PERCENT, format!("{EXPECTED}, not {wrong_one}")));
    }
    match (env.number(PREVIEW, "true or false", false)?, percent) {
        (true, percent) => Ok(Some(percent.unwrap_or(100))),
        (false, None) => Ok(None),
        (false, Some(_)) => Err(wrong(PREVIEW_PERCENT, format!("only together with {PREVIEW}"))),
    }
}

fn role(env: &Env<'_>) -> Result<Role, SettingsError> {
    let role = env.number(ROLE, "main, suspects-1 or suspects-2", Role::Main)?;
    if role != Role::Main && preview(env)?.is_some() {
        return Err(wrong(ROLE, format!("main together with {PREVIEW}")));
    }
    Ok(role)
}

fn sink(env: &Env<'_>) -> Result<Sink, SettingsError> {
    const EXPECTED: &str = r#"a sink as JSON, such as {"postgres":{"table":"telemetry"}}, {"hub":{"exchange":"cleaned"}}, {"http":{"url":"https://example"}} or {"discard":{}}"#;
    let text = env.required(SINK, EXPECTED)?;
    let mut json: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| wrong(SINK, format!("{EXPECTED}: {e}")))?;
    // The address comes by variables of its own.
    if let Some(postgres) = json.get_mut("postgres").and_then(serde_json::Value::as_object_mut) {
        postgres.entry("secretRef").or_insert_with(|| serde_json::json!({ "name": "" }));
    }
    let sink: Sink = serde_json::from_value(json).map_err(|e| wrong(SINK, format!("{EXPECTED}: {e}")))?;
    let set = [sink.postgres.is_some(), sink.hub.is_some(), sink.http.is_some(), sink.discard.is_some()];
    if set.into_iter().filter(|s| *s).count() != 1 {
        return Err(wrong(SINK, EXPECTED.to_owned()));
    }
    if let Some(http) = sink.http.as_ref().filter(|http| !resolved::is_web(&http.url)) {
        return Err(wrong(SINK, format!("a url of http:// or https://, not {:?}", http.url)));
    }
    if let Some(hub) = &sink.hub {
        name(SINK, hub.exchange.clone())?;
    }
    Ok(sink)
}

/// The variables that say where a store is.
pub(crate) struct StoreVariables {
    pub(crate) uri: &'static str,
    pub(crate) host: &'static str,
    pub(crate) port: &'static str,
    pub(crate) username: &'static str,
    pub(crate) password: &'static str,
    pub(crate) database: &'static str,
    pub(crate) ca: &'static str,
}

/// Those of a sink.
const OF_SINK: StoreVariables = StoreVariables {
    uri: SINK_URI,
    host: SINK_HOST,
    port: SINK_PORT,
    username: SINK_USERNAME,
    password: SINK_PASSWORD,
    database: SINK_DATABASE,
    ca: SINK_CA,
};

pub(crate) fn store(env: &Env<'_>, names: &StoreVariables) -> Result<StoreAddress, SettingsError> {
    let ca = env.text(names.ca);
    if let Some(uri) = env.text(names.uri) {
        return StoreAddress::from_uri(&uri, ca).map_err(|e| wrong(names.uri, e.message));
    }
    let Some(host) = env.text(names.host) else {
        let StoreVariables { host, username, .. } = names;
        let expected = format!("postgres://user:password@host:port/database, or {host} and {username}");
        return Err(wrong(names.uri, expected));
    };
    let parts = StoreParts {
        host,
        port: env.optional(names.port, "a TCP port")?,
        username: env.required(names.username, "the role to log in as")?,
        password: env.text(names.password),
        database: env.text(names.database),
    };
    Ok(StoreAddress::from_parts(&parts, ca))
}

pub(crate) fn name(variable: &'static str, name: String) -> Result<String, SettingsError> {
    let bytes = name.len();
    if bytes > MAX_NAME {
        Err(wrong(variable, format!("a name of at most {MAX_NAME} bytes, not {bytes}")))
    } else {
        Ok(name)
    }
}

pub(crate) fn wrong(variable: &'static str, expected: String) -> SettingsError {
    SettingsError { variable, expected }
}

pub(crate) struct Env<'a>(pub(crate) &'a dyn Fn(&str) -> Option<String>);

impl Env<'_> {
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    pub(crate) fn required(&self, name: &'static str, expected: &str) -> Result<String, SettingsError> {
        self.text(name).ok_or_else(|| wrong(name, format!("is missing: {expected}")))
    }

    pub(crate) fn optional<T: FromStr<Err: Display>>(
        &self,
        name: &'static str,
        expected: &str,
    ) -> Result<Option<T>, SettingsError> {
        let parse =
            |text: String| text.parse().map_err(|e: T::Err| wrong(name, format!("{expected}, not {text:?}: {e}")));
        self.text(name).map(parse).transpose()
    }

    pub(crate) fn number<T: FromStr<Err: Display>>(
        &self,
        name: &'static str,
        expected: &str,
        default: T,
    ) -> Result<T, SettingsError> {
        Ok(self.optional(name, expected)?.unwrap_or(default))
    }

    pub(crate) fn positive(&self, name: &'static str, default: u16) -> Result<u16, SettingsError> {
        let value = self.number(name, "a number from 1 to 65535", default)?;
        if value == 0 { Err(wrong(name, "a number from 1 to 65535, not 0".to_owned())) } else { Ok(value) }
    }
}

#[cfg(test)]
mod tests;
