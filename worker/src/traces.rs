//! Spans for a collector of OpenTelemetry, by OTLP over HTTP. Nothing waits for it: spans queue in memory, and what the collector does
//! not take in time is dropped and counted.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    body::Bytes,
    http::{Request, Response},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry::{Context, KeyValue, trace::TracerProvider};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor},
};
use prometheus_client::metrics::counter::Counter;
use prost::Message as _;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    settings::{self, Identity},
    tls::{self, Material, TlsError},
};

/// Spans that wait for the collector at most: about 2 MiB.
const QUEUE: usize = 2048;
/// Spans of one request.
const BATCH: usize = 512;
/// How long a span waits for company.
const LINGER: Duration = Duration::from_secs(1);
/// Time for one request, and for trying it again.
const PATIENCE: Duration = Duration::from_secs(10);
/// More of them than there is time for.
const RETRIES: usize = 100;
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(2);
/// Time for TCP and TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// The name of a worker that nobody named.
const SERVICE: &str = "drover-worker";

/// Traces cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TracesError {
    /// The authorities are wrong.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The variables of OpenTelemetry that the exporter reads are wrong.
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
}

/// What became of spans.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts {
    pub(crate) exported: Counter,
    /// The collector refused them, or was not there.
    pub(crate) failed: Counter,
    /// There was no room for them.
    pub(crate) dropped: Counter,
}

/// Makes spans, and sends them.
#[derive(Debug)]
pub(crate) struct Traces {
    pub(crate) tracer: SdkTracer,
    ending: CancellationToken,
    exporting: Mutex<Option<JoinHandle<()>>>,
}

impl Traces {
    /// To be called within a runtime.
    pub(crate) fn new(settings: &settings::Traces, identity: &Identity, counts: Counts) -> Result<Self, TracesError> {
        let trouble = Arc::new(Trouble::default());
        let mut exporter = exporter(settings, Arc::clone(&trouble))?;
        let resource = resource(identity);
        exporter.set_resource(&resource);
        let (sender, receiver) = channel(QUEUE);
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.ratio))))
            .with_span_processor(Queue { sender, dropped: counts.dropped.clone() })
            .build();
        let ending = CancellationToken::new();
        let exporter = Exporter { otlp: exporter, trouble, counts };
        let task = exporter.run(receiver, ending.clone());
        Ok(Self { tracer: provider.tracer(SERVICE), ending, exporting: Mutex::new(Some(tokio::spawn(task))) })
    }

    /// Sends what is left.
    pub(crate) async fn close(&self) {
        self.ending.cancel();
        let exporting = self.exporting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(exporting) = exporting {
            // A panic there has cost spans and nothing else.
            let _ = exporting.await;
        }
    }
}

/// Who the worker is: the pipeline is the service, its pods the instances.
fn resource(identity: &Identity) -> Resource {
    let Identity { namespace, name, revision, pod } = identity;
    let name = if name.is_empty() { SERVICE } else { name };
    let attributes = [
        ("service.name", name),
        ("service.namespace", namespace),
        ("service.version", revision),
        ("service.instance.id", pod),
        ("k8s.namespace.name", namespace),
        ("k8s.pod.name", pod),
    ];
    let known = attributes.into_iter().filter(|(_, value)| !value.is_empty());
    Resource::builder().with_attributes(known.map(|(key, value)| KeyValue::new(key, value.to_owned()))).build()
}

fn exporter(settings: &settings::Traces, trouble: Arc<Trouble>) -> Result<SpanExporter, TracesError> {
    let tls = tls::client_config(&Material { ca: settings.ca.clone(), ..Material::default() })?;
    let client =
        Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(tls::connector(tls, CONNECT_TIMEOUT));
    Ok(SpanExporter::builder()
        .with_http()
        .with_http_client(Collector { client, trouble })
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", settings.endpoint.trim_end_matches('/')))
        .with_timeout(PATIENCE)
        .with_retry_policy(
            RetryPolicy::recommended()
                .with_max_retries(RETRIES)
                .with_initial_delay(FIRST_RETRY)
                .with_max_delay(LAST_RETRY),
        )
        .build()?)
}

/// What the exporter itself does not tell.
#[derive(Debug, Default)]
struct Trouble {
    /// What came of the last request.
    last: Mutex<String>,
    /// Spans that the collector did not take of a request that it took.
    rejected: AtomicU64,
}

impl Trouble {
    fn last(&self) -> MutexGuard<'_, String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The collector, over HTTP.
#[derive(Debug)]
struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    trouble: Arc<Trouble>,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let response = self.client.request(request.map(Full::new)).await.map_err(|error| {
            let error = anyhow::Error::new(error);
            *self.trouble.last() = format!("{error:#}");
            error
        })?;
        let (head, body) = response.into_parts();
        *self.trouble.last() = format!("HTTP {}", head.status);
        let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
        let answer = ExportTraceServiceResponse::decode(&*body).ok().filter(|_| head.status.is_success());
        if let Some(part) = answer.and_then(|answer| answer.partial_success) {
            self.trouble.rejected.store(u64::try_from(part.rejected_spans).unwrap_or(0), Relaxed);
            *self.trouble.last() = part.error_message;
        }
        Ok(Response::from_parts(head, body))
    }
}

/// Takes spans that ended, as long as there is room.
#[derive(Debug)]
struct Queue {
    sender: Sender<SpanData>,
    dropped: Counter,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.sender.try_send(span).is_err() {
            self.dropped.inc();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Sends batch after batch.
struct Exporter {
    otlp: SpanExporter,
    trouble: Arc<Trouble>,
    counts: Counts,
}

impl Exporter {
    /// Until it is asked to end and nothing is left.
    async fn run(self, mut queue: Receiver<SpanData>, ending: CancellationToken) {
        let (mut batch, mut failing) = (Vec::with_capacity(BATCH), false);
        while fill(&mut batch, &mut queue, &ending).await {
            let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            let sent = timeout(PATIENCE, self.otlp.export(std::mem::take(&mut batch))).await;
            let taken = matches!(sent, Ok(Ok(())));
            let rejected = self.trouble.rejected.swap(0, Relaxed).min(spans);
            let failed = if taken { rejected } else { spans };
            self.counts.exported.inc_by(spans - failed);
            self.counts.failed.inc_by(failed);
            let well = failed == 0;
            // Once for each outage.
            if !well && !failing {
                tracing::warn!("spans cannot be sent to the collector: {}", self.trouble.last());
            } else if well && failing {
                tracing::info!("spans are sent to the collector again");
            }
            failing = !well;
        }
    }
}

/// Spans for one request: those that end within a moment of the first. False where no more will come.
async fn fill(batch: &mut Vec<SpanData>, queue: &mut Receiver<SpanData>, ending: &CancellationToken) -> bool {
    let mut until: Option<Instant> = None;
    while batch.len() < BATCH {
        let room = BATCH - batch.len();
        let lingered = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = ending.cancelled(), if !queue.is_closed() => queue.close(),
            received = queue.recv_many(batch, room) => {
                if received == 0 {
                    break;
                }
                until = until.or_else(|| Some(Instant::now() + LINGER));
            }
            () = lingered => break,
        }
    }
    !batch.is_empty()
}
