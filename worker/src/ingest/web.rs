//! Posts to a server over HTTP, and what its answers mean: the same rules for a handler and for a sink. Decides nothing.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Bytes,
    http::{HeaderMap, Method, Request, Uri, header},
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use jiff::Timestamp;
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::tls;

/// Time for TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections are closed sooner than servers close them, most of which do after 5 s and more: a request on a connection that
/// is being closed looks like a death.
const IDLE: Duration = Duration::from_secs(2);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
/// Most bytes of an answer that are quoted.
const MAX_QUOTE: usize = 1024;

/// A server, and a pool of connections to it.
#[derive(Debug)]
pub(crate) struct Server {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    timeout: Duration,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Reply {
    Answered(Answer),
    /// There is no connection, so nothing was sent.
    Unreachable(String),
    /// The connection ended before the answer.
    Broken(String),
    /// No answer in time.
    Silent(Duration),
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Seconds that the server asks to wait.
    pub(crate) retry_after: u32,
    /// It says that its body is JSON.
    pub(crate) json: bool,
    /// None where it is too large.
    pub(crate) body: Option<Bytes>,
}

/// What a status means for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// It is taken.
    Taken,
    /// It is refused for what it is.
    Refused,
    /// It may be taken later.
    Later,
}

impl Answer {
    pub(crate) fn meaning(&self) -> Meaning {
        match self.status {
            200..=299 => Meaning::Taken,
            408 | 429 => Meaning::Later,
            400..=499 => Meaning::Refused,
            _ => Meaning::Later,
        }
    }

    /// For a person.
    pub(crate) fn quote(&self) -> String {
        let text = String::from_utf8_lossy(self.body.as_deref().unwrap_or_default());
        let text = text.trim();
        let colon = if text.is_empty() { "" } else { ": " };
        format!("HTTP {}{colon}{}", self.status, &text[..text.floor_char_boundary(MAX_QUOTE)])
    }
}

impl Server {
    /// `idle` connections are kept at most.
    pub(crate) fn new(uri: Uri, headers: HeaderMap, config: Arc<ClientConfig>, timeout: Duration, idle: usize) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(idle)
            .build(tls::connector(config, CONNECT_TIMEOUT));
        Self { client, uri, headers, timeout }
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) async fn post(&self, headers: &HeaderMap, body: Bytes) -> Reply {
        let mut request = self.request(Method::POST, body);
        request.headers_mut().extend(headers.clone());
        timeout(self.timeout, self.send(request)).await.unwrap_or(Reply::Silent(self.timeout))
    }

    /// A request that asks for nothing: whether anybody answers.
    pub(crate) async fn look(&self, patience: Duration) -> Reply {
        let request = self.request(Method::OPTIONS, Bytes::new());
        timeout(patience, self.send(request)).await.unwrap_or(Reply::Silent(patience))
    }

    fn request(&self, method: Method, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        (*request.method_mut(), *request.uri_mut()) = (method, self.uri.clone());
        *request.headers_mut() = self.headers.clone();
        request
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Reply::Unreachable(chain(&error)),
            Err(error) => return Reply::Broken(chain(&error)),
        };
        let (head, body) = response.into_parts();
        let answer = Answer {
            status: head.status.as_u16(),
            retry_after: retry_after(&head.headers, super::clock::today()),
            json: is_json(&head.headers),
            body: None,
        };
        match Limited::new(body, MAX_ANSWER).collect().await {
            Ok(body) => Reply::Answered(Answer { body: Some(body.to_bytes()), ..answer }),
            Err(error) if error.is::<LengthLimitError>() => Reply::Answered(answer),
            Err(error) => Reply::Broken(error.to_string()),
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.ends_with("+json")
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> u32 {
    let Some(text) = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()) else { return 0 };
    if let Ok(seconds) = text.trim().parse() {
        return seconds;
    }
    let until = jiff::fmt::rfc2822::parse(text).map(|date| date.timestamp().as_second() - now.as_second());
    until.map_or(0, |seconds| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn a_status_has_one_meaning() {
        let meaning = |status| Answer { status, ..Answer::default() }.meaning();
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(meaning(status), Meaning::Taken, "{status}");
        }
        for status in [400, 401, 404, 409, 410, 413, 415, 422, 499] {
            assert_eq!(meaning(status), Meaning::Refused, "{status}");
        }
        for status in [302, 408, 429, 500, 501, 502, 503, 504, 599] {
            assert_eq!(meaning(status), Meaning::Later, "{status}");
        }
    }

    #[test]
    fn a_wait_is_asked_for_in_seconds_or_until_a_date() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let wait = |value| retry_after(&headers(header::RETRY_AFTER, value), now);
        assert_eq!(
            [wait("7"), wait("Fri, 02 Jan 2026 03:05:05 GMT"), wait("Fri, 02 Jan 2026 03:00:00 GMT")],
            [7, 60, 0]
        );
        assert_eq!([wait("soon"), wait("-1"), retry_after(&HeaderMap::new(), now)], [0, 0, 0]);
    }

    #[test]
    fn json_is_what_says_so() {
        for (kind, json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/plain", false),
        ] {
            assert_eq!(is_json(&headers(header::CONTENT_TYPE, kind)), json, "{kind}");
        }
    }

    #[test]
    fn a_long_answer_is_quoted_in_part() {
        let body = Some(Bytes::from("é".repeat(4000)));
        let quote = Answer { status: 422, body, ..Answer::default() }.quote();
        assert!(quote.starts_with("HTTP 422: é") && quote.len() < 1100);
    }
}
