//! The running operator: caches, controllers, probes.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Context as _;
use drover_crds::api::{IngestPipeline, WindowQuery};
use futures::{StreamExt as _, future::join_all};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    client::{Body, ClientBuilder},
};
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
use tower::filter::FilterLayer;

use crate::{
    config::Config,
    context::{Caches, Context, Guarded, GuardedQuery},
    drift,
    gone::{EVERY, Gone},
    http::{self, Health},
    hub::Hubs,
    lease::{Fence, Lease},
    metrics::Metrics,
    minted::Minted,
    names,
    reconcile::{error_policy, reconcile},
    scales::Scales,
    windows::Windows,
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
        let cluster = kube::Config::infer().await.context("no cluster: neither a service account nor a kubeconfig")?;
        run(config, cluster, listener, terminated()).await
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

/// Runs until `shutdown`: serves the probes, and works, where there are several replicas while it holds the lease.
///
/// # Errors
/// If the probes can no longer be served.
pub async fn run(
    config: Config,
    cluster: kube::Config,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let metrics = Metrics::default();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), worker_image = config.worker_image, "the operator starts");
    let health = Health { waiting: Arc::new(AtomicUsize::new(config.scopes().len())), standby: Arc::default() };
    let server = axum::serve(listener, http::router(health.clone(), metrics.clone())).with_graceful_shutdown({
        let stop = stop.clone();
        async move { stop.cancelled().await }
    });
    let stopper = async {
        tokio::select! { () = shutdown => {}, () = stop.cancelled() => {} }
        tracing::info!("the operator stops");
        stop.cancel();
    };
    let work = async {
        let done = if config.leader_election {
            lead(config, cluster, stop.clone(), health, metrics).await
        } else {
            alone(config, cluster, stop.clone(), health, metrics).await
        };
        // Without work there is nothing to serve the probes for.
        stop.cancel();
        done
    };
    let (outcome, work, ()) = futures::join!(server.into_future(), work, stopper);
    work.and(outcome.context("the probes could not be served"))
}

async fn alone(
    config: Config,
    cluster: kube::Config,
    stop: CancellationToken,
    health: Health,
    metrics: Metrics,
) -> anyhow::Result<()> {
    let client = Client::try_from(cluster).context("no client of the cluster")?;
    work(config, client, Fence::default(), stop, health, metrics).await;
    Ok(())
}

/// Works while this replica holds the lease, and lets another have it when it ends.
async fn lead(
    config: Config,
    cluster: kube::Config,
    stop: CancellationToken,
    health: Health,
    metrics: Metrics,
) -> anyhow::Result<()> {
    let (Some(pod), Some(namespace)) = (&config.pod_name, &config.pod_namespace) else {
        anyhow::bail!("leader election needs the pod's name and namespace");
    };
    let own = Client::try_from(cluster.clone()).context("no client of the cluster")?;
    let lease = Lease::new(own, namespace, &config.lease, pod);
    tracing::info!(lease = config.lease, "this replica stands by");
    let mut held = tokio::select! {
        held = lease.acquire(|| health.standby.store(true, Ordering::Release)) => held,
        () = stop.cancelled() => return Ok(()),
    };
    tracing::info!(lease = config.lease, "this replica leads");
    health.standby.store(false, Ordering::Release);
    let client = fenced(cluster, lease.fence())?;
    tokio::select! {
        () = work(config.clone(), client, lease.fence(), stop, health, metrics) => {}
        () = held.keep() => {
            tracing::error!(lease = config.lease, "the lease is lost: this process ends, so that it writes nothing more");
            // At once, whatever is under way.
            std::process::exit(1);
        }
    }
    held.release().await;
    Ok(())
}

/// A client that writes only while the lease is held, whatever holds up the task that ends the process.
fn fenced(cluster: kube::Config, fence: Fence) -> anyhow::Result<Client> {
    let check = move |request: axum::http::Request<Body>| {
        let reads = request.method() == axum::http::Method::GET;
        if reads || fence.is_open() { Ok(request) } else { Err(tower::BoxError::from("the lease is not held")) }
    };
    let builder = ClientBuilder::try_from(cluster).context("no client of the cluster")?;
    Ok(builder.with_layer(&FilterLayer::new(check)).build())
}

/// Reconciles until it is told to stop.
async fn work(config: Config, client: Client, fence: Fence, stop: CancellationToken, health: Health, metrics: Metrics) {
    metrics.leader.set(1);
    let scopes: Vec<Scope> = config.scopes().into_iter().map(Scope::new).collect();
    let context = context(config, client, fence, &metrics, &scopes);
    let sweeping = async {
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            Gone::forget(&context);
        }
    };
    let scopes = join_all(scopes.into_iter().map(|s| s.run(context.clone(), stop.clone(), health.clone())));
    futures::join!(scopes, sweeping);
    context.redrives.end();
}

/// What all reconciles share, of so many scopes.
fn context(config: Config, client: Client, fence: Fence, metrics: &Metrics, scopes: &[Scope]) -> Context {
    let reporter = Reporter { controller: "drover.dev/operator".to_owned(), instance: config.pod_name.clone() };
    let workers = crate::workers::Workers::default();
    Context {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        metrics: metrics.clone(),
        journal: Arc::default(),
        hubs: Arc::new(Hubs::new(fence.clone())),
        ledgers: Arc::default(),
        turns: Arc::new(crate::rollout::Turns::new(config.max_rollouts)),
        minted: Arc::new(Minted::new(fence)),
        stores: Arc::default(),
        secrets: Arc::default(),
        topologies: Arc::default(),
        redrives: Arc::default(),
        scales: Arc::new(Scales::new(workers.clone(), metrics.clone())),
        windows: Arc::new(Windows::new(workers.clone(), metrics.clone())),
        workers,
        written: Arc::default(),
        gone: Arc::default(),
        pipelines: scopes.iter().map(|s| s.pipelines.0.clone()).collect(),
        queries: scopes.iter().map(|s| s.queries.0.clone()).collect(),
        config,
    }
}

type Trigger<K> = futures::stream::BoxStream<'static, Result<K, watcher::Error>>;

/// One set of watches: of all namespaces, or of one.
struct Scope {
    namespace: Option<String>,
    pipelines: (Store<Guarded>, reflector::store::Writer<Guarded>),
    queries: (Store<GuardedQuery>, reflector::store::Writer<GuardedQuery>),
}

impl Scope {
    fn new(namespace: Option<String>) -> Self {
        Self { namespace, pipelines: reflector::store(), queries: reflector::store() }
    }

    async fn run(self, context: Context, stop: CancellationToken, health: Health) {
        let client = context.client.clone();
        let namespace = self.namespace.as_deref();
        let (of_pipelines, of_queries) =
            (Watched::new(&client, namespace, names::PIPELINE), Watched::new(&client, namespace, names::QUERY));
        let caches = [of_pipelines.caches.clone(), of_queries.caches.clone()];
        let full = [of_pipelines.full.clone(), of_queries.full.clone()];
        let filling = async {
            futures::join!(caches[0].fill(), caches[1].fill());
            for full in full {
                full.send_replace(true);
            }
            health.waiting.fetch_sub(1, Ordering::AcqRel);
        };
        let pods = |pod: Pod| labelled(&pod, names::PIPELINE);
        let (caches_of_pipelines, pipelines) =
            of_pipelines.control(controller(&client, namespace, self.pipelines), pods);
        let pipelines = pipelines
            .reconcile_on(context.scales.changes())
            .graceful_shutdown_on(stop.clone().cancelled_owned())
            .run(
                reconcile::<IngestPipeline>,
                error_policy::<IngestPipeline>,
                Arc::new((context.clone(), caches_of_pipelines)),
            )
            .for_each(|_| std::future::ready(()));
        let pods = |pod: Pod| labelled(&pod, names::QUERY);
        let (caches_of_queries, queries) = of_queries.control(controller(&client, namespace, self.queries), pods);
        let queries = queries
            .reconcile_on(context.windows.watches.changes())
            .graceful_shutdown_on(stop.clone().cancelled_owned())
            .run(reconcile::<WindowQuery>, error_policy::<WindowQuery>, Arc::new((context, caches_of_queries)))
            .for_each(|_| std::future::ready(()));
        futures::join!(pipelines, queries, filling);
    }
}

/// A controller of one of our kinds, whose objects are kept in a store.
fn controller<K>(
    client: &Client,
    namespace: Option<&str>,
    (reader, writer): (Store<K>, reflector::store::Writer<K>),
) -> Controller<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Lookup<DynamicType = ()>,
    K: Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let stream = watcher(api::<K>(client, namespace), watcher::Config::default());
    let stream = stream.default_backoff().modify(|object| object.managed_fields_mut().clear()).reflect(writer);
    let stream = stream.applied_objects();
    Controller::for_stream(stream, reader).with_config(ControllerConfig::default().concurrency(CONCURRENCY))
}

/// What is watched of the objects that one kind of ours owns.
struct Watched {
    caches: Caches,
    full: watch::Sender<bool>,
    deployments: Trigger<Deployment>,
    config_maps: Trigger<ConfigMap>,
    service_accounts: Trigger<ServiceAccount>,
    network_policies: Trigger<NetworkPolicy>,
    disruption_budgets: Trigger<PodDisruptionBudget>,
    pods: Trigger<Pod>,
}

impl Watched {
    /// Of objects with a label.
    fn new(client: &Client, namespace: Option<&str>, label: &str) -> Self {
        let owned = watcher::Config::default().labels(&format!("{}={},{label}", names::MANAGED_BY, names::MANAGER));
        let (deployments, of_deployments) = watched(client, namespace, &owned);
        let (config_maps, of_config_maps) = watched(client, namespace, &owned);
        let (service_accounts, of_service_accounts) = watched(client, namespace, &owned);
        let (network_policies, of_network_policies) = watched(client, namespace, &owned);
        let (disruption_budgets, of_disruption_budgets) = watched(client, namespace, &owned);
        let (pods, of_pods) = watched(client, namespace, &owned);
        let (full, filled) = watch::channel(false);
        let caches =
            Caches { deployments, config_maps, service_accounts, network_policies, disruption_budgets, pods, filled };
        Self {
            caches,
            full,
            deployments: of_deployments,
            config_maps: of_config_maps,
            service_accounts: of_service_accounts,
            network_policies: of_network_policies,
            disruption_budgets: of_disruption_budgets,
            pods: of_pods,
        }
    }

    /// Has a controller hear of all of them; `whose` tells of a pod, which belongs to a `ReplicaSet`, whose it is in the end.
    fn control<K>(
        self,
        controller: Controller<K>,
        whose: impl Fn(Pod) -> Option<ObjectRef<K>> + Send + Sync + 'static,
    ) -> (Caches, Controller<K>)
    where
        K: Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + std::fmt::Debug,
        K: DeserializeOwned + Send + Sync + 'static,
    {
        let controller = controller
            .owns_stream(self.deployments)
            .owns_stream(self.config_maps)
            .owns_stream(self.service_accounts)
            .owns_stream(self.network_policies)
            .owns_stream(self.disruption_budgets)
            .watches_stream(self.pods, whose);
        (self.caches, controller)
    }
}

/// The object that a pod's label names.
fn labelled<K: Resource<DynamicType = ()> + Lookup<DynamicType = ()>>(pod: &Pod, label: &str) -> Option<ObjectRef<K>> {
    let meta = &pod.metadata;
    let name = meta.labels.as_ref()?.get(label)?;
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

#[cfg(test)]
mod rights;
