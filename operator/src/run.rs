//! The running operator: caches, controllers, probes.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Context as _;
use drover_crds::api::WindowQuery;
use futures::{StreamExt as _, future::join_all};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod};
use kube::{Api, Client, Resource, ResourceExt as _, core::DeserializeGuard};
use kube_runtime::{
    Controller, WatchStreamExt as _,
    controller::Config as ControllerConfig,
    events::{Recorder, Reporter},
    reflector::{self, Lookup, ObjectRef, Store},
    watcher,
};
use serde::de::DeserializeOwned;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    context::{Caches, Context, Guarded},
    drift,
    http::{self, Health},
    metrics::Metrics,
    names, pipeline,
    scales::Scales,
    window_query,
};

/// Objects reconciled at the same time: most of a reconcile is waiting for others.
const CONCURRENCY: u16 = 64;

/// Runs the operator until it is told to stop.
///
/// # Errors
/// If the API server or the address to listen on cannot be had.
pub fn main(config: Config) -> anyhow::Result<()> {
    log(&config);
    // Fails only if one is installed already, which is then the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener =
            TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
        let client = Client::try_default().await.context("no cluster: neither a service account nor a kubeconfig")?;
        run(config, client, listener, terminated()).await
    })
}

fn log(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,lapin=error"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if config.log_format == "json" {
        builder.json().init();
    } else {
        builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init();
    }
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut term) => {
            tokio::select! { _ = term.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

/// Runs until `shutdown`.
///
/// # Errors
/// If the probes can no longer be served.
pub async fn run(
    config: Config,
    client: Client,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let metrics = Metrics::default();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), worker_image = config.worker_image, "the operator starts");
    let health = Health { waiting: Arc::new(AtomicUsize::new(config.scopes().len())) };
    let reporter = Reporter { controller: "drover.dev/operator".to_owned(), instance: config.pod_name.clone() };
    let scopes: Vec<Scope> = config.scopes().into_iter().map(Scope::new).collect();
    let workers = crate::workers::Workers::default();
    let context = Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        metrics: metrics.clone(),
        hubs: Arc::default(),
        stores: Arc::default(),
        secrets: Arc::default(),
        topologies: Arc::default(),
        scales: Arc::new(Scales::new(workers.clone(), metrics.clone())),
        workers,
        written: Arc::default(),
        pipelines: scopes.iter().map(|s| s.pipelines.0.clone()).collect(),
        config,
    };
    let controllers = join_all(scopes.into_iter().map(|s| s.run(context.clone(), stop.clone(), health.clone())));
    let server = axum::serve(listener, http::router(health, metrics)).with_graceful_shutdown({
        let stop = stop.clone();
        async move { stop.cancelled().await }
    });
    let stopper = async {
        shutdown.await;
        tracing::info!("the operator stops");
        stop.cancel();
    };
    let (outcome, _, ()) = futures::join!(server.into_future(), controllers, stopper);
    outcome.context("the probes could not be served")
}

type Trigger<K> = futures::stream::BoxStream<'static, Result<K, watcher::Error>>;

/// One set of watches: of all namespaces, or of one.
struct Scope {
    namespace: Option<String>,
    pipelines: (Store<Guarded>, reflector::store::Writer<Guarded>),
}

impl Scope {
    fn new(namespace: Option<String>) -> Self {
        Self { namespace, pipelines: reflector::store() }
    }

    async fn run(self, context: Context, stop: CancellationToken, health: Health) {
        let client = context.client.clone();
        let owned = watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY, names::MANAGER));
        let namespace = self.namespace.as_deref();
        let (deployments, of_deployments) = watched(&client, namespace, &owned);
        let (config_maps, of_config_maps) = watched(&client, namespace, &owned);
        let (service_accounts, of_service_accounts) = watched(&client, namespace, &owned);
        let (network_policies, of_network_policies) = watched(&client, namespace, &owned);
        let (disruption_budgets, of_disruption_budgets) = watched(&client, namespace, &owned);
        let (pods, of_pods) = watched::<Pod>(&client, namespace, &owned);
        let (full, filled) = watch::channel(false);
        let caches =
            Caches { deployments, config_maps, service_accounts, network_policies, disruption_budgets, pods, filled };
        let (reader, writer) = self.pipelines;
        let pipelines: Api<Guarded> = api(&client, namespace);
        let main = watcher(pipelines, watcher::Config::default())
            .default_backoff()
            .modify(|pipeline| pipeline.managed_fields_mut().clear())
            .reflect(writer)
            .applied_objects();
        let filling = caches.clone();
        let filling = async {
            filling.fill().await;
            let _ = full.send(true);
            health.waiting.fetch_sub(1, Ordering::AcqRel);
        };
        let controller = Controller::for_stream(main, reader)
            .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
            .owns_stream(of_deployments)
            .owns_stream(of_config_maps)
            .owns_stream(of_service_accounts)
            .owns_stream(of_network_policies)
            .owns_stream(of_disruption_budgets)
            .reconcile_on(context.scales.changes())
            .watches_stream(of_pods, |pod| pipeline_of(&pod))
            .graceful_shutdown_on(stop.clone().cancelled_owned())
            .run(pipeline::reconcile, pipeline::error_policy, Arc::new((context.clone(), caches)))
            .for_each(|_| std::future::ready(()));
        let queries: Api<DeserializeGuard<WindowQuery>> = api(&client, namespace);
        let queries = Controller::new(queries, watcher::Config::default())
            .with_config(ControllerConfig::default().concurrency(CONCURRENCY))
            .graceful_shutdown_on(stop.clone().cancelled_owned())
            .run(window_query::reconcile, window_query::error_policy, Arc::new(context))
            .for_each(|_| std::future::ready(()));
        futures::join!(controller, queries, filling);
    }
}

/// Pods belong to a ReplicaSet; whose they are in the end, their label tells.
fn pipeline_of(pod: &Pod) -> Option<ObjectRef<Guarded>> {
    let meta = &pod.metadata;
    let name = meta.labels.as_ref()?.get(names::PIPELINE)?;
    Some(ObjectRef::new(name).within(meta.namespace.as_deref()?))
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    namespace.map_or_else(|| Api::all(client.clone()), |n| Api::namespaced(client.clone(), n))
}

/// A cache of what the operator has made, and the stream that fills it.
fn watched<K>(client: &Client, namespace: Option<&str>, config: &watcher::Config) -> (Store<K>, Trigger<K>)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Lookup<DynamicType = ()>,
    K: Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (reader, writer) = reflector::store();
    let stream = watcher(api::<K>(client, namespace), config.clone())
        .default_backoff()
        .modify(|object| object.managed_fields_mut().retain(drift::is_foreign))
        .reflect(writer)
        .touched_objects();
    (reader, stream.boxed())
}
