//! Where results go: one attempt at a time, with what came of it. What to do about a failure is the slot's to decide.

mod http;
mod hub;
mod postgres;
pub(crate) mod refusal;

use std::{sync::Arc, time::Duration};

use axum::http::{header::InvalidHeaderValue, uri::InvalidUri};
use drover_crds::{api::Sink, resolved::RoutingKey};

use super::{
    clock, envelope::Sender, outage::Likeness, prepare::Item, publisher::Link, reject::Rejection, spans::Telling,
    web::Server,
};
use crate::{settings::Settings, tls::TlsError};
pub(crate) use postgres::Table;

/// Time for an attempt where the sink says nothing else.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// What became of a message at the sink.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is written.
    Written,
    /// It was there already.
    Repeated,
    /// It can never be written.
    Rejected(Rejection),
    /// The sink refuses it for what it is, unless it refuses everybody alike.
    Refused { why: Rejection, likeness: Likeness },
    /// It failed in passing, and is to be tried again after so many seconds at least.
    Later { why: Rejection, likeness: Likeness, at_least: u32 },
}

/// What came of an attempt.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    /// Messages that came to an end, by their place in the batch.
    pub(crate) ends: Vec<(usize, End)>,
    /// Fields that no column takes, in the messages that came to an end.
    pub(crate) unknown_fields: u64,
    /// Why the others did not.
    pub(crate) failure: Option<Failure>,
    /// There was no time for the rest.
    pub(crate) unfinished: bool,
    /// It took too long, so fewer are tried next.
    pub(crate) late: bool,
}

impl Attempt {
    fn failed(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }
}

/// Why messages did not come to an end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// One of them is refused for what it is.
    Content { rejection: Rejection, likeness: Likeness },
    /// Concurrent work was in the way.
    Retry { message: String },
    /// The sink takes nothing now.
    Hold { reason: String, message: String },
}

impl Failure {
    /// The reason in `CamelCase`.
    fn reason(&self) -> &str {
        match self {
            Self::Content { rejection, .. } => rejection.reason,
            Self::Retry { .. } => "Conflict",
            Self::Hold { reason, .. } => reason,
        }
    }
}

/// What all slots share of a sink.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Postgres(Arc<Table>),
    Hub { exchange: String, key: Option<RoutingKey>, link: Arc<Link>, preview: bool },
    Http { server: Arc<Server>, sender: Arc<Sender> },
    Discard,
}

/// A sink cannot be spoken to at all.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The certificates are wrong.
    #[error("the certificates for the sink cannot be used")]
    Tls(#[source] TlsError),
    /// The token has characters that no header takes.
    #[error("the sink's token is no header's value")]
    Token(#[source] InvalidHeaderValue),
    /// The URL has a part that is none.
    #[error("the sink's URL cannot be used")]
    Url(#[source] InvalidUri),
}

impl Target {
    /// The sink of the settings; for a preview one in which nothing stays. `link` is for a sink of the hub.
    pub(crate) fn new(
        settings: &Settings,
        sender: &Arc<Sender>,
        link: &Arc<Link>,
        name: &str,
    ) -> Result<Self, SinkError> {
        let Sink { postgres, hub, http, discard: _ } = settings.sink.clone();
        let preview = settings.preview.is_some();
        if let (Some(sink), Some(address)) = (postgres, settings.store.clone()) {
            return Ok(Self::Postgres(Arc::new(Table::new(sink, address, name.to_owned(), preview))));
        }
        if let Some(sink) = http {
            let server = Arc::new(http::server(&sink, settings)?);
            let sender = Arc::clone(sender);
            return Ok(if preview { Self::Discard } else { Self::Http { server, sender } });
        }
        Ok(match hub {
            Some(hub) => Self::Hub {
                exchange: hub.exchange,
                key: hub.routing_key.as_deref().and_then(|key| RoutingKey::parse(key).ok()),
                link: Arc::clone(link),
                preview,
            },
            None => Self::Discard,
        })
    }

    /// A slot's own way to the sink.
    pub(crate) fn writer(&self) -> Writer {
        match self {
            Self::Postgres(table) => Writer::Postgres(postgres::Writer::new(Arc::clone(table))),
            Self::Hub { exchange, key, link, preview } => {
                Writer::Hub(hub::Writer::new(exchange.clone(), key.clone(), link, *preview))
            }
            Self::Http { server, sender } => Writer::Http(http::Writer::new(server, sender)),
            Self::Discard => Writer::Discard,
        }
    }
}

/// A slot's own way to the sink.
#[derive(Debug)]
pub(crate) enum Writer {
    Postgres(postgres::Writer),
    Hub(hub::Writer),
    Http(http::Writer),
    Discard,
}

impl Writer {
    /// Tries to write.
    pub(crate) async fn attempt(&mut self, items: &[&Item<'_>], telling: Telling<'_>) -> Attempt {
        match self {
            Self::Postgres(writer) => {
                let since = clock::today();
                let attempt = writer.attempt(items).await;
                let written = attempt.ends.iter().filter(|(_, end)| matches!(end, End::Written | End::Repeated));
                written.for_each(|(message, _)| telling.wrote(*message, since));
                attempt
            }
            Self::Hub(writer) => writer.attempt(items, telling).await,
            Self::Http(writer) => writer.attempt(items, telling).await,
            Self::Discard => {
                Attempt { ends: items.iter().map(|item| (item.message, End::Written)).collect(), ..Attempt::default() }
            }
        }
    }

    /// Whether the sink would take something now, as far as that can be told without writing.
    pub(crate) async fn probe(&mut self) -> Result<(), Failure> {
        match self {
            Self::Postgres(writer) => writer.probe().await,
            Self::Hub(writer) => writer.probe().await,
            Self::Http(writer) => writer.probe().await,
            Self::Discard => Ok(()),
        }
    }

    /// Whether what was tried last may be written although no answer said so.
    pub(crate) fn in_doubt(&self) -> bool {
        match self {
            Self::Postgres(writer) => writer.in_doubt(),
            Self::Hub(_) | Self::Http(_) | Self::Discard => false,
        }
    }

    /// An attempt took too long: whatever it waits for is given up.
    pub(crate) fn abandon(&mut self) {
        match self {
            Self::Postgres(writer) => writer.abandon(),
            Self::Hub(writer) => writer.abandon(),
            Self::Http(_) | Self::Discard => {}
        }
    }

    /// Time for an attempt; after it the connection is given up.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            Self::Http(writer) => writer.patience(),
            Self::Postgres(_) | Self::Hub(_) | Self::Discard => ATTEMPT_TIMEOUT,
        }
    }
}
