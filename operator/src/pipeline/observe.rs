//! Reads everything that a decision is made from. Client required; it decides nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use drover_crds::{
    api::{IngestPipeline, RolloutPhase, SecretRef},
    resolved::{Pipeline, SUSPECT_STEPS, suspects_queue, web_port},
};
use drover_worker::{hub::HubAddress, status::WorkerStatus, store::StoreAddress};
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt as _};
use kube_runtime::reflector::{self, Store};

use super::{
    admit, cutover,
    revision::digest,
    size,
    snapshot::{HubFacts, Install, Owned, Secrets, Snapshot, Worker},
    suspects,
};
use crate::{
    audit::Cause,
    claims::{self, Claim},
    context::{Caches, Context, now},
    hosts::{self, AllowedHosts},
    hub::{Hub, Topology},
    metrics::ObjectLabels,
    minted::{self, Found, ManagementAddress, Order, Role},
    names,
    problem::{External, Problem},
    rollout::{self, Mirror},
    scales::Subject,
    scaling::Decision,
    secrets::{Data, without_user},
    store::Trust,
    workers::reachable,
};

/// Digits of the secrets' digest: enough to tell a rotation, too few to guess a password by.
const DIGEST: usize = 8;
/// A hub that does not answer within this is asked again at the next look.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a pipeline's secrets lead to.
struct Addresses {
    hub: HubFound,
    management: ManagementFound,
    store: Option<Result<(StoreAddress, String), Problem>>,
}

impl Addresses {
    /// That a host is named which may not be.
    fn not_allowed(&self, ctx: &Context, pipeline: &Pipeline) -> Option<Problem> {
        let server =
            pipeline.sink.http.as_ref().map(|http| ctx.config.allowed_hosts.server("sink.http.url", &http.url));
        let of_store = || self.store.as_ref().and_then(hosts::refusal);
        let of_management = || self.management.as_ref().and_then(hosts::refusal);
        hosts::refusal(&self.hub).or_else(of_management).or_else(of_store).or_else(|| server.and_then(Result::err))
    }
}

/// Looks at a pipeline, at what it owns, at its hub and store, and at its workers.
pub(super) async fn observe(ctx: &Context, caches: &Caches, object: Arc<IngestPipeline>) -> Snapshot {
    let mut seen = cluster(ctx, caches, object);
    seen.workers = workers(ctx, &seen.owned.pods).await;
    let hub = outside(ctx, &mut seen, now().1).await;
    if let Some(hub) = &hub {
        seen.scale = sampled(ctx, caches, &seen, hub);
        seen.mirror = mirror(ctx, &seen, hub).await;
    }
    let at = ctx.scales.seconds(now().1);
    let uid = seen.object.uid().unwrap_or_default();
    seen.made = ctx.journal.take(&uid);
    seen.evidence = ctx.ledgers.take(&uid, &cutover::state(&seen), &cutover::knowledge(&seen, at));
    seen.pace = ctx.ledgers.pace(&uid);
    seen
}

/// Has the queue sampled from now on; gives what was decided last.
fn sampled(ctx: &Context, caches: &Caches, seen: &Snapshot, hub: &Arc<Hub>) -> Option<Decision> {
    let pipeline = seen.admitted.as_ref().ok()?;
    let subject = Subject {
        labels: ObjectLabels::of(&*seen.object),
        queue: pipeline.queue.clone(),
        policy: size::policy(&pipeline.scaling),
        replicas: u32::try_from(size::running(&seen.owned)).unwrap_or(0),
        revision: cutover::carrier(&cutover::state(seen)).unwrap_or_default(),
        pods: caches.pods.clone(),
    };
    ctx.scales.watch(&seen.object.uid().unwrap_or_default(), subject, hub)
}

/// Makes the mirror that the status names, or removes one that is not needed any more.
async fn mirror(ctx: &Context, seen: &Snapshot, hub: &Hub) -> Mirror {
    let state = cutover::state(seen);
    let (Some(name), Ok(pipeline)) = (&state.mirror, &seen.admitted) else { return Mirror::Unknown };
    let cause = Cause::of(&*seen.object, "a revision is tried on copies").noted(&ctx.journal);
    if state.phase == RolloutPhase::Previewing {
        let made = tokio::time::timeout(PATIENCE, hub.mirror(name, &pipeline.bindings, &cause)).await;
        return match made {
            Ok(Ok(())) => Mirror::Declared,
            Ok(Err(problem)) if passes(&problem.reason) => Mirror::Unknown,
            Ok(Err(problem)) => Mirror::Refused(problem),
            Err(_) => Mirror::Unknown,
        };
    }
    let cause = cause.because("no revision is tried on copies any more");
    match tokio::time::timeout(PATIENCE, hub.remove_mirror(name, &pipeline.bindings, &cause)).await {
        Ok(Ok(())) => Mirror::Gone,
        _ => Mirror::Unknown,
    }
}

/// What another look may not find again.
fn passes(reason: &str) -> bool {
    !["PermissionMissing", "HubRefuses", "QueueArgumentsDiffer", "ExchangeMissing"].contains(&reason)
}

/// Looks at a pipeline and at what it owns, in the caches: at nothing that has to be asked.
pub(super) fn cluster(ctx: &Context, caches: &Caches, object: Arc<IngestPipeline>) -> Snapshot {
    let (time, instant) = now();
    let owned = owned(caches, &object);
    let uid = object.uid().unwrap_or_default();
    let rollout = object.status.as_ref().and_then(|s| s.rollout.clone()).unwrap_or_default();
    let turn = ctx.turns.ask(&uid, &rollout, under_way(ctx));
    Snapshot {
        now: time,
        status_age: ctx.written.age(&uid, instant),
        admitted: admit::resolve(&object),
        object,
        secrets: None,
        hub: External::Unseen,
        store: External::Unseen,
        owned,
        made: Vec::new(),
        suspects: None,
        workers: Vec::new(),
        scale: ctx.scales.decision(&uid),
        mirror: Mirror::default(),
        evidence: None,
        pace: None,
        turn,
        redrive: ctx.redrives.progress(&uid),
        install: Install::of(&ctx.config),
    }
}

/// Hub and store, where the spec is sound and nobody else has claimed the queues; the hub, to sample the queue of.
async fn outside(ctx: &Context, seen: &mut Snapshot, instant: Instant) -> Option<Arc<Hub>> {
    let Ok(pipeline) = seen.admitted.clone() else { return None };
    let namespace = seen.object.namespace().unwrap_or_default();
    let found = addresses(ctx, &namespace, &pipeline, instant).await;
    if let Some(problem) = found.not_allowed(ctx, &pipeline) {
        // Nothing is connected to, nor sampled any more.
        ctx.scales.forget(&seen.object.uid().unwrap_or_default());
        ctx.metrics.scale.unknown(&ObjectLabels::of(&*seen.object));
        seen.admitted = Err(problem);
        return None;
    }
    let hub = match &found.hub {
        Ok(hub) => hub,
        Err(problem) => {
            seen.hub = External::Problem(problem.clone());
            if let Some(Err(problem)) = found.store {
                seen.store = External::Problem(problem);
            }
            return None;
        }
    };
    if let Err(problem) = claims(ctx, &seen.object, &pipeline, &hub.0, instant).await {
        seen.admitted = Err(problem);
        return None;
    }
    let users = users_of(ctx, seen, &pipeline, (&hub.0, found.management.as_ref()), instant).await;
    let store = match found.store.transpose() {
        Ok(store) => store,
        Err(problem) => {
            seen.store = External::Problem(problem);
            None
        }
    };
    let server = match server(ctx, &namespace, &pipeline, instant).await {
        Ok(server) => server,
        Err(problem) => {
            seen.store = External::Problem(problem);
            String::new()
        }
    };
    let known = users.as_ref().is_none_or(|users| users.keys.contains_key(&Role::Worker));
    if matches!(seen.store, External::Unseen) && known {
        let print = users.as_ref().and_then(|users| users.keys.get(&Role::Worker)).map_or("", |key| &key.print);
        let table = store.as_ref().map_or("", |s| &s.1);
        let web = pipeline.sink.http.as_ref().and_then(|http| web_port(&http.url));
        seen.secrets = Some(Secrets {
            digest: digest(format!("{}{table}{server}{print}", hub.1).as_bytes(), DIGEST),
            minted: users.clone(),
            hub_port: hub.0.identity().map_or(5672, |i| i.port),
            sink_port: store.as_ref().map(|s| s.0.identity().port).or(web),
        });
    }
    let topology = Topology::of(&pipeline).instead_of(&pipeline, &seen.old_status().bindings);
    let owner = seen.object.uid().unwrap_or_default();
    // Replicas that are to be changed wait for nothing that was looked at a moment ago.
    let pressing = ctx.scales.is_pressing(&owner);
    let shared = ctx.hubs.at(&hub.0, instant);
    let cause = Cause::of(&*seen.object, "the object needs it and it was missing").noted(&ctx.journal);
    let queues = async {
        let found = ctx.topologies.ensure(&cause, &shared, &topology, pressing).await;
        if found.as_ref().is_err_and(|p| refused(&p.reason)) {
            ctx.secrets.forget(&namespace, &pipeline.hub.name);
        }
        External::from(found.map(|dead| HubFacts { dead: dead.count, oldest: dead.oldest }))
    };
    let table = async {
        let (Some((address, digest)), Some(sink)) = (&store, &pipeline.sink.postgres) else { return None };
        let doubt = seen.workers.iter().any(|w| w.status.as_ref().is_some_and(|s| s.holding.is_some()));
        let trust = match (doubt, pressing) {
            (_, true) => Trust::Pressing,
            (true, false) => Trust::Doubt,
            (false, false) => Trust::Usual,
        };
        let found = ctx.stores.check(&owner, digest, address, sink, trust).await;
        if found.as_ref().is_err_and(|p| refused(&p.reason)) {
            ctx.secrets.forget(&namespace, &sink.secret_ref.name);
        }
        Some(External::from(found))
    };
    let suspects = async {
        if !suspects::are_possible(&pipeline, seen) {
            return None;
        }
        let names: Vec<String> = (1..=SUSPECT_STEPS).map(|step| suspects_queue(&pipeline.queue, step)).collect();
        shared.waiting(&names).await.ok()
    };
    let (queues, table, suspects) = futures::join!(queues, table, suspects);
    seen.suspects = suspects;
    match queues {
        // What the spec asks for cannot be: that is told where the spec is judged.
        External::Problem(problem) if problem.reason == "NeedsManagementApi" => seen.admitted = Err(problem),
        queues => seen.hub = with_users(queues, users),
    }
    if let Some(table) = table {
        seen.store = table;
    }
    Some(shared)
}

/// Makes sure of the users of a pipeline, where they are made.
async fn users_of(
    ctx: &Context,
    seen: &Snapshot,
    pipeline: &Pipeline,
    (hub, management): (&HubAddress, Option<&Result<ManagementAddress, Problem>>),
    instant: Instant,
) -> Option<Found> {
    let (management, days) = (management?, pipeline.rotate_days?);
    let roles = minted::of_pipeline(pipeline, &minted::exchanges(&seen.owned));
    let order = minted::order(&*seen.object, &seen.owned, names::labels(seen.name()), roles, days);
    Some(users(ctx, &*seen.object, &order, hub, management, instant).await)
}

/// Makes sure of the users of an object.
pub(crate) async fn users<K: Resource<DynamicType = ()>>(
    ctx: &Context,
    object: &K,
    order: &Order,
    hub: &HubAddress,
    management: &Result<ManagementAddress, Problem>,
    instant: Instant,
) -> Found {
    let cause = Cause::of(object, "hub.credentials: Minted").noted(&ctx.journal);
    let look = minted::Look { client: &ctx.client, metrics: &ctx.metrics, order, hub, cause: &cause, now: now().0 };
    match management {
        Ok(address) => ctx.minted.ensure(&look, address, instant).await,
        Err(problem) => Found { problem: Some(problem.clone()), ..look.blind().await },
    }
}

/// A hub where users are missing, or are not known to be there, is not ready.
pub(crate) fn with_users<T>(hub: External<T>, users: Option<Found>) -> External<T> {
    match (hub, users.and_then(|users| users.problem)) {
        (External::Fine(_), Some(problem)) => External::Problem(problem),
        (hub, _) => hub,
    }
}

/// What a new secret may mend.
pub(crate) fn refused(reason: &str) -> bool {
    [
        "AccessRefused",
        "AuthenticationFailed",
        "VirtualHostRefused",
        "DatabaseNotFound",
        "HostNotFound",
        "Unreachable",
        "Timeout",
        "InvalidUri",
        "TlsRequired",
        "ManagementRefused",
        "ManagementUnreachable",
    ]
    .contains(&reason)
        || reason.starts_with("Certificate")
}

async fn addresses(ctx: &Context, namespace: &str, pipeline: &Pipeline, instant: Instant) -> Addresses {
    let read = async |secret: &SecretRef| ctx.secrets.get(&ctx.client, namespace, &secret.name, instant).await;
    let allowed = &ctx.config.allowed_hosts;
    // What is wrong in a secret is read again, not remembered.
    let wrong = |secret: &SecretRef| ctx.secrets.forget(namespace, &secret.name);
    let (hub, management) = match read(&pipeline.hub).await {
        Ok(data) => hub_and_management(allowed, &pipeline.hub, &data, pipeline.rotate_days.is_some()),
        Err(problem) => (Err(problem), None),
    };
    if hub.is_err() || management.as_ref().is_some_and(Result::is_err) {
        wrong(&pipeline.hub);
    }
    let store = match &pipeline.sink.postgres {
        None => None,
        Some(sink) => Some(match read(&sink.secret_ref).await {
            Ok(data) => allowed.store(&sink.secret_ref, &data).map(|a| (a, fingerprint(&sink.secret_ref, &data))),
            Err(problem) => Err(problem),
        }),
    };
    if let (Some(Err(_)), Some(sink)) = (&store, &pipeline.sink.postgres) {
        wrong(&sink.secret_ref);
    }
    Addresses { hub, management, store }
}

/// A hub with what changes when workers read something else of its secret.
pub(crate) type HubFound = Result<(HubAddress, String), Problem>;

/// Where users are made, if they are.
pub(crate) type ManagementFound = Option<Result<ManagementAddress, Problem>>;

/// What a hub's secret leads to.
pub(crate) fn hub_and_management(
    allowed: &AllowedHosts,
    secret: &SecretRef,
    data: &Data,
    minted: bool,
) -> (HubFound, ManagementFound) {
    let hub = match allowed.hub(secret, data) {
        Ok(hub) => hub,
        Err(problem) => return (Err(problem), None),
    };
    if !minted {
        return (Ok((hub, fingerprint(secret, data))), None);
    }
    let management = allowed.management(secret, data, &hub);
    (Ok((hub, fingerprint(secret, &without_user(secret, data)))), Some(management))
}

/// What changes with the secret of a sink that is a server; nothing where it has none.
async fn server(ctx: &Context, namespace: &str, pipeline: &Pipeline, instant: Instant) -> Result<String, Problem> {
    let Some(secret) = pipeline.sink.http.as_ref().and_then(|http| http.secret_ref.as_ref()) else {
        return Ok(String::new());
    };
    let data = ctx.secrets.get(&ctx.client, namespace, &secret.name, instant).await?;
    Ok(fingerprint(secret, &data))
}

/// Changes with what workers read of a secret.
pub(crate) fn fingerprint(secret: &SecretRef, data: &Data) -> String {
    const KEYS: [&str; 10] =
        ["uri", "ca.crt", "tls.crt", "tls.key", "host", "port", "username", "password", "database", "token"];
    let read: Vec<_> = KEYS.iter().map(|k| (k, data.get(secret.key(k)))).collect();
    digest(format!("{}{read:?}", secret.name).as_bytes(), 64)
}

/// Looks for another pipeline of the same hub with the same queue. Only those with a queue of the same name are looked at closely.
async fn claims(
    ctx: &Context,
    object: &IngestPipeline,
    pipeline: &Pipeline,
    hub: &HubAddress,
    instant: Instant,
) -> Result<(), Problem> {
    let own = Claim::of_pipeline(object, pipeline);
    claims::check(ctx, object.uid().as_deref(), &own, hub, instant).await
}

fn owned(caches: &Caches, object: &IngestPipeline) -> Owned {
    let all = of(&caches.deployments, object);
    let (previews, all): (Vec<_>, Vec<_>) = all.into_iter().partition(|d| d.labels().contains_key(names::PREVIEW));
    let (suspects, deployments) = all.into_iter().partition(|d| suspects::step(d.metadata.labels.as_ref()).is_some());
    Owned {
        deployments,
        previews,
        suspects,
        config_maps: of(&caches.config_maps, object),
        service_account: of(&caches.service_accounts, object).pop(),
        network_policy: of(&caches.network_policies, object).pop(),
        disruption_budget: of(&caches.disruption_budgets, object).pop(),
        pods: caches.pods.state_filter(|p| {
            p.namespace() == object.namespace() && p.labels().get(names::PIPELINE) == object.metadata.name.as_ref()
        }),
    }
}

/// Objects whose status tells that they are on their way to a revision that the operator itself causes.
fn under_way(ctx: &Context) -> impl Iterator<Item = String> {
    let all = ctx.pipelines.iter().flat_map(reflector::Store::state);
    all.filter_map(|guarded| {
        let object = guarded.0.as_ref().ok()?;
        let state = object.status.as_ref()?.rollout.as_ref()?;
        rollout::is_under_way(state).then(|| object.uid())?
    })
}

/// Objects of a kind that belong to a pipeline or query, oldest first.
pub(crate) fn of<K>(store: &Store<K>, object: &impl Resource) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    let uid = object.meta().uid.clone();
    let mut found = store.state_filter(|o| {
        let meta = Resource::meta(o);
        meta.namespace == object.meta().namespace
            && meta.owner_references.iter().flatten().any(|r| Some(&r.uid) == uid.as_ref())
    });
    found.sort_by_key(|o| {
        let meta = Resource::meta(&**o);
        (meta.creation_timestamp.as_ref().map(|t| t.0), meta.name.clone())
    });
    found
}

/// True if no worker holds a message: each says so, those that are about to end too. One that has never run holds none.
pub(super) async fn all_idle(ctx: &Context, pods: &[Arc<Pod>]) -> bool {
    let phase = |p: &Pod| p.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
    let alive = pods.iter().filter(|p| !matches!(phase(p).as_str(), "Pending" | "Succeeded" | "Failed"));
    let asked: Option<Vec<_>> = alive.map(|p| Some((p.name_any(), p.status.as_ref()?.pod_ip.clone()?))).collect();
    let Some(asked) = asked else { return false };
    let answers = ctx.workers.ask::<WorkerStatus>(asked).await;
    answers.iter().all(|(_, status)| status.as_ref().is_some_and(|s| s.in_flight == 0 && s.held == 0))
}

/// What the pods that run say of themselves.
async fn workers(ctx: &Context, pods: &[Arc<Pod>]) -> Vec<Worker> {
    let answers = ctx.workers.ask(pods.iter().filter_map(|pod| reachable(pod)).collect()).await;
    answers.into_iter().map(|(pod, status)| Worker { pod, status }).collect()
}
