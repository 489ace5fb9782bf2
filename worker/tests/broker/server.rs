//! A server in the test's own process, as a handler or a sink: it answers what the test says and remembers what it was sent.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode},
    response::{IntoResponse, Response},
    serve::Listener,
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// A request, and when it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What a request is answered: its number, from 0, and what it was.
type Answer = dyn Fn(u64, &Seen) -> Response + Send + Sync;

struct Inner {
    answer: Box<Answer>,
    /// What an answer takes.
    takes: Duration,
    count: AtomicU64,
    seen: Mutex<Vec<Seen>>,
}

/// The server; it ends with the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(u64, &Seen) -> Response + Send + Sync + 'static) -> Self {
        Self::slow(Duration::ZERO, answer).await
    }

    /// The same, where each answer takes a while.
    pub(crate) async fn slow(takes: Duration, answer: impl Fn(u64, &Seen) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::on(listener, address, takes, answer)
    }

    /// The same, with TLS.
    pub(crate) async fn with_tls(
        config: ServerConfig,
        answer: impl Fn(u64, &Seen) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::on(Tls { listener, acceptor: Arc::new(config).into() }, address, Duration::ZERO, answer)
    }

    fn on<L>(
        listener: L,
        address: SocketAddr,
        takes: Duration,
        answer: impl Fn(u64, &Seen) -> Response + Send + Sync + 'static,
    ) -> Self
    where
        L: Listener,
        L::Addr: std::fmt::Debug,
    {
        let inner =
            Arc::new(Inner { answer: Box::new(answer), takes, count: AtomicU64::new(0), seen: Mutex::new(Vec::new()) });
        let router = Router::new().fallback(take).with_state(Arc::clone(&inner));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, inner, task }
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }

    /// What it was posted.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap().clone()
    }
}

/// Speaks TLS with whoever comes.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.listener.accept().await.unwrap();
            // Who does not trust the server ends the handshake.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test measures time")]
async fn take(State(inner): State<Arc<Inner>>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    if method != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let seen = Seen { at: Instant::now(), headers, body: body.to_vec() };
    let answer = (inner.answer)(inner.count.fetch_add(1, Relaxed), &seen);
    inner.seen.lock().unwrap().push(seen);
    if !inner.takes.is_zero() {
        tokio::time::sleep(inner.takes).await;
    }
    answer
}

/// Only a status.
pub(crate) fn status(status: u16) -> Response {
    StatusCode::from_u16(status).unwrap().into_response()
}

/// 200 with a JSON body.
pub(crate) fn json(body: impl Into<String>) -> Response {
    ([("content-type", "application/json")], body.into()).into_response()
}

/// The number of a message `{"n":…}`.
pub(crate) fn number(seen: &Seen) -> u64 {
    serde_json::from_slice::<serde_json::Value>(&seen.body).unwrap()["n"].as_u64().unwrap()
}
