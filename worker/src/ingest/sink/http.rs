//! A sink that is a server: results are posted as CloudEvents, one after another.

use std::{borrow::Cow, sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderValue, header},
};
use drover_crds::{api::HttpSink, resolved::HTTP_TIMEOUT_SECONDS};
use opentelemetry_sdk::trace::Span;

use super::{
    super::{
        clock,
        envelope::Sender,
        event::Event,
        prepare::Item,
        reject::Rejection,
        spans::{self, Onward, Telling},
        web::{Meaning, Reply, Server},
    },
    Attempt, End, Failure, SinkError,
};
use crate::{
    settings::{self, Settings},
    tls,
};

/// An attempt ends after so long, done or not: those that were taken can then be acknowledged.
const BUDGET: Duration = Duration::from_secs(5);

/// The server.
pub(super) fn server(sink: &HttpSink, settings: &Settings) -> Result<Server, SinkError> {
    let settings::Server { token, tls } = &settings.server;
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(SinkError::Token)?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    let tls = tls::client_config(tls).map_err(SinkError::Tls)?;
    let timeout = Duration::from_secs(sink.timeout_seconds.unwrap_or(HTTP_TIMEOUT_SECONDS).into());
    let uri = sink.url.parse().map_err(SinkError::Url)?;
    Ok(Server::new(uri, headers, tls, timeout, settings.concurrency.into()))
}

/// A slot's way to the server.
#[derive(Debug)]
pub(crate) struct Writer {
    server: Arc<Server>,
    sender: Arc<Sender>,
}

impl Writer {
    pub(super) fn new(server: &Arc<Server>, sender: &Arc<Sender>) -> Self {
        Self { server: Arc::clone(server), sender: Arc::clone(sender) }
    }

    /// Time that an attempt may take at most.
    pub(super) fn patience(&self) -> Duration {
        BUDGET + self.server.timeout() * 2
    }

    pub(super) async fn probe(&mut self) -> Result<(), Failure> {
        match self.server.look(self.server.timeout()).await {
            Reply::Answered(_) | Reply::Broken(_) => Ok(()),
            Reply::Unreachable(error) => Err(unreachable(&error)),
            Reply::Silent(time) => Err(unreachable(&format!("no answer within {} s", time.as_secs()))),
        }
    }

    pub(super) async fn attempt(&mut self, items: &[&Item<'_>], telling: Telling<'_>) -> Attempt {
        let (mut attempt, until) = (Attempt::default(), clock::now() + BUDGET);
        for (n, item) in items.iter().enumerate() {
            let mut span = telling.begin(item.message);
            let end = self.post(item, span.as_mut()).await;
            if let (Some(span), Some(reason)) = (&mut span, reason(&end)) {
                spans::failed(span, reason);
            }
            match end {
                Ok(end) => attempt.ends.push((item.message, end)),
                Err(failure) => {
                    attempt.failure = Some(failure);
                    break;
                }
            }
            if clock::now() >= until {
                attempt.unfinished = n + 1 < items.len();
                break;
            }
        }
        attempt
    }

    async fn post(&self, item: &Item<'_>, mut span: Option<&mut Span>) -> Result<End, Failure> {
        for (row, (text, _)) in item.rows.iter().enumerate() {
            let id = item.row_id(row).unwrap_or_else(|| Cow::Owned(self.fresh_id(item, row)));
            let trace = Onward::of(span.as_deref(), item.delivery);
            let event = Event { sender: &self.sender, delivery: item.delivery, id: &id, preview: false, trace };
            let headers = event.headers("application/json");
            let reply = self.server.post(&headers, Bytes::copy_from_slice(text.as_bytes())).await;
            if let (Some(span), Reply::Answered(answer)) = (&mut span, &reply) {
                spans::answered(span, answer.status);
            }
            if let Some(end) = end(reply)? {
                return Ok(end);
            }
        }
        Ok(End::Written)
    }

    /// Of a message that has no id, and may be an event once more.
    fn fresh_id(&self, item: &Item<'_>, row: usize) -> String {
        format!("{}-{}-{row}", self.sender.process, item.delivery.delivery_tag)
    }
}

fn unreachable(error: &str) -> Failure {
    Failure::Hold { reason: "Unreachable".to_owned(), message: format!("sink.http cannot be reached: {error}") }
}

/// Why it was not taken.
fn reason(end: &Result<End, Failure>) -> Option<&str> {
    match end {
        Ok(End::Refused { why, .. } | End::Later { why, .. } | End::Rejected(why)) => Some(why.reason),
        Ok(End::Written | End::Repeated) => None,
        Err(failure) => Some(failure.reason()),
    }
}

/// How a message ended that was not taken.
fn end(reply: Reply) -> Result<Option<End>, Failure> {
    let later = |why: Rejection, likeness: &str, at_least| End::Later { why, likeness: likeness.to_owned(), at_least };
    Ok(Some(match reply {
        Reply::Unreachable(error) => return Err(unreachable(&error)),
        Reply::Broken(error) => later(Rejection::sink("SinkBroke", error), "http broken", 0),
        Reply::Silent(time) => {
            let error = format!("the server did not answer within {} s", time.as_secs());
            later(Rejection::sink("SinkTimeout", error), "http silent", 0)
        }
        Reply::Answered(answer) => {
            let likeness = format!("http {}", answer.status);
            match answer.meaning() {
                Meaning::Taken => return Ok(None),
                Meaning::Refused => End::Refused { why: Rejection::sink("RefusedBySink", answer.quote()), likeness },
                Meaning::Later => later(Rejection::sink("SinkFailed", answer.quote()), &likeness, answer.retry_after),
            }
        }
    }))
}
