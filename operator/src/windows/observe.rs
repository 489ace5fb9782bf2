//! Reads everything that a decision about a query is made from. Client required; it decides nothing.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use drover_crds::{
    api::{SecretRef, WindowQuery},
    query::{Plan, StepKind, TICKS_PER_SECOND, Window},
    resolved_query::Query,
};
use drover_worker::{
    store::StoreAddress,
    stream::{schema::State, status::QueryStatus},
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{
    admit, outside,
    render::state,
    report,
    scale::Decision,
    snapshot::{Snapshot, state_of},
    wake::Streams as Listened,
    watch::Subject,
};
use crate::{
    audit::Cause,
    claims::{self, Claim},
    context::{Caches, Context, now},
    hosts,
    hub::{Hub, Streams},
    metrics::ObjectLabels,
    minted::{self, Role},
    names,
    pipeline::{
        observe::{HubFound, ManagementFound, fingerprint, hub_and_management, of, refused, users, with_users},
        revision::digest,
        size,
        snapshot::{Install, Owned, Secrets},
    },
    problem::{External, Problem},
};

/// Digits of the secrets' digest: enough to tell a rotation, too few to guess a password by.
const DIGEST: usize = 8;

/// Looks at a query, at what it owns, at its hub and store, and at its workers.
pub(super) async fn observe(ctx: &Context, caches: &Caches, object: Arc<WindowQuery>) -> Snapshot {
    let mut seen = cluster(ctx, caches, object);
    seen.workers = workers(ctx, &seen.owned.pods).await;
    if let Some(hub) = outside(ctx, &mut seen, now().1).await {
        seen.scale = watched(ctx, caches, &seen, &hub);
    }
    seen.made = ctx.journal.take(&seen.object.uid().unwrap_or_default());
    seen
}

/// Looks at a query and at what it owns, in the caches: at nothing that has to be asked.
pub(super) fn cluster(ctx: &Context, caches: &Caches, object: Arc<WindowQuery>) -> Snapshot {
    let (time, instant) = now();
    let uid = object.uid().unwrap_or_default();
    Snapshot {
        now: time,
        status_age: ctx.written.age(&uid, instant),
        admitted: admit::resolve(&object),
        owned: owned(caches, &object),
        object,
        secrets: None,
        hub: External::Unseen,
        store: External::Unseen,
        made: Vec::new(),
        workers: Vec::new(),
        scale: ctx.windows.watches.decision(&uid),
        install: Install::of(&ctx.config),
    }
}

fn owned(caches: &Caches, object: &WindowQuery) -> Owned {
    Owned {
        deployments: of(&caches.deployments, object),
        config_maps: of(&caches.config_maps, object),
        service_account: of(&caches.service_accounts, object).pop(),
        network_policy: of(&caches.network_policies, object).pop(),
        disruption_budget: of(&caches.disruption_budgets, object).pop(),
        pods: caches.pods.state_filter(|p| {
            p.namespace() == object.namespace() && p.labels().get(names::QUERY) == object.metadata.name.as_ref()
        }),
        ..Owned::default()
    }
}

/// Store and hub, where the spec is sound and nobody else has claimed the streams; the hub, to listen to.
async fn outside(ctx: &Context, seen: &mut Snapshot, instant: Instant) -> Option<Arc<Hub>> {
    let Ok(query) = seen.admitted.clone() else { return None };
    let namespace = seen.object.namespace().unwrap_or_default();
    let (hub, management) = hub(ctx, &namespace, &query, instant).await;
    let store = store(ctx, &namespace, &query, instant).await;
    let of_management = || management.as_ref().and_then(hosts::refusal);
    if let Some(problem) = hosts::refusal(&hub).or_else(of_management).or_else(|| hosts::refusal(&store)) {
        // Nothing is connected to, nor listened to any more.
        ctx.windows.forget(&seen.object.uid().unwrap_or_default());
        ctx.metrics.scale.unknown(&ObjectLabels::of(&*seen.object));
        seen.admitted = Err(problem);
        return None;
    }
    let ((hub, hub_digest), (store, store_digest)) = match (hub, store) {
        (Ok(hub), Ok(store)) => (hub, store),
        (hub, store) => {
            seen.hub = hub.map_or_else(External::Problem, |_| External::Unseen);
            seen.store = store.map_or_else(External::Problem, |_| External::Unseen);
            return None;
        }
    };
    let own = Claim::of_query(&seen.object, &query);
    if let Err(problem) = claims::check(ctx, seen.object.uid().as_deref(), &own, &hub, instant).await {
        seen.admitted = Err(problem);
        return None;
    }
    let users = match (&management, query.rotate_days) {
        (Some(management), Some(days)) => {
            let roles = minted::of_query(&query, &minted::exchanges(&seen.owned));
            let labels = names::query_labels(seen.name());
            let order = minted::order(&*seen.object, &seen.owned, labels, roles, days);
            Some(users(ctx, &*seen.object, &order, &hub, management, instant).await)
        }
        _ => None,
    };
    let own = users.as_ref().map(|users| users.keys.get(&Role::Query));
    if own.is_none_or(|own| own.is_some()) {
        let print = own.flatten().map_or("", |key| &key.print);
        seen.secrets = Some(Secrets {
            digest: digest(format!("{hub_digest}{store_digest}{print}").as_bytes(), DIGEST),
            minted: users.clone(),
            hub_port: hub.identity().map_or(5672, |i| i.port),
            sink_port: Some(store.identity().port),
        });
    }
    let shared = ctx.hubs.at(&hub, instant);
    let task = task(ctx, seen, &query, Arc::clone(&shared), store);
    let found = ctx.windows.outsides.ensure(&seen.object.uid().unwrap_or_default(), task).await;
    forget(ctx, &namespace, &query.hub, &found.hub);
    forget(ctx, &namespace, &query.store, &found.store);
    seen.store = found.store;
    match found.hub {
        // What the spec asks for cannot be: that is told where the spec is judged.
        External::Problem(problem) if problem.reason == "NeedsManagementApi" => seen.admitted = Err(problem),
        hub => seen.hub = with_users(hub, users),
    }
    Some(shared)
}

/// What was refused may have been put right in the secret.
fn forget<T>(ctx: &Context, namespace: &str, secret: &SecretRef, found: &External<T>) {
    if let External::Problem(problem) = found
        && refused(&problem.reason)
    {
        ctx.secrets.forget(namespace, &secret.name);
    }
}

async fn hub(ctx: &Context, namespace: &str, query: &Query, instant: Instant) -> (HubFound, ManagementFound) {
    let data = ctx.secrets.get(&ctx.client, namespace, &query.hub.name, instant).await;
    let (hub, management) = match data {
        Ok(data) => hub_and_management(&ctx.config.allowed_hosts, &query.hub, &data, query.rotate_days.is_some()),
        Err(problem) => (Err(problem), None),
    };
    if hub.is_err() || management.as_ref().is_some_and(Result::is_err) {
        ctx.secrets.forget(namespace, &query.hub.name);
    }
    (hub, management)
}

async fn store(
    ctx: &Context,
    namespace: &str,
    query: &Query,
    instant: Instant,
) -> Result<(StoreAddress, String), Problem> {
    let (address, digest) = database(ctx, namespace, &query.store, instant).await?;
    for table in query.tables().filter(|t| t.secret_ref != query.store) {
        let (sink, _) = database(ctx, namespace, &table.secret_ref, instant).await?;
        admit::together(&address.identity(), &table.table, &sink.identity())?;
    }
    Ok((address, digest))
}

async fn database(
    ctx: &Context,
    namespace: &str,
    secret: &SecretRef,
    instant: Instant,
) -> Result<(StoreAddress, String), Problem> {
    let read = async {
        let data = ctx.secrets.get(&ctx.client, namespace, &secret.name, instant).await?;
        Ok((ctx.config.allowed_hosts.store(secret, &data)?, fingerprint(secret, &data)))
    };
    read.await.inspect_err(|_| ctx.secrets.forget(namespace, &secret.name))
}

fn task(ctx: &Context, seen: &Snapshot, query: &Query, hub: Arc<Hub>, store: StoreAddress) -> outside::Task {
    let versions = seen.owned.deployments.iter().filter_map(|d| state_of(&d.metadata));
    let versions = versions.chain(seen.owned.pods.iter().filter_map(|p| state_of(&p.metadata)));
    outside::Task {
        hub,
        streams: Streams::of(query, &seen.old_status().bindings),
        store,
        schema: query.schema.clone(),
        cluster: ctx.config.cluster_id.clone().filter(|id| !id.is_empty()),
        query: name_in_store(&seen.object),
        state: state(query),
        plan: query.plan.clone(),
        holds_a_window: holds_a_window(seen, query),
        inhabited: versions.map(str::to_owned).collect::<BTreeSet<_>>(),
        promoted: seen.promotion().filter(|_| seen.promoted()).map(|p| p.id),
        cause: Cause::of(&*seen.object, "the object needs it and it was missing").noted(&ctx.journal),
    }
}

/// The query's name in the tables of state, as its workers have it.
pub(super) fn name_in_store(object: &WindowQuery) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// True if the streams hold a whole window: their retention is longer than two of them, or the version that is asked for has read
/// them for so long. A limit of bytes that is reached sooner than a window's length cannot be seen from here.
fn holds_a_window(seen: &Snapshot, query: &Query) -> bool {
    let seconds = extent(&query.plan).div_euclid(TICKS_PER_SECOND).saturating_add(1);
    let wanted = state(query);
    let own = seen.owned.deployments.iter().filter(|d| state_of(&d.metadata) == Some(&*wanted));
    let since = own.filter_map(|d| d.metadata.creation_timestamp.as_ref()).map(|t| t.0.as_second()).min();
    i64::from(query.max_age_seconds) >= seconds.saturating_mul(2)
        || since.is_some_and(|since| seen.now.as_second() - since >= seconds)
}

/// The longest time over which an event counts, in ticks: windows over windows one after the other.
fn extent(plan: &Plan) -> i64 {
    let windows = plan.steps.iter().map(|step| match &step.kind {
        StepKind::Project(_) => 0,
        StepKind::Group(group) => group.windows.iter().map(|w| length(&w.window)).max().unwrap_or(0),
    });
    windows.fold(0, i64::saturating_add)
}

fn length(window: &Window) -> i64 {
    match window {
        Window::Hopping { size, .. } | Window::Sliding { size } => *size,
        Window::Session { max, .. } => max.saturating_mul(2),
        Window::Snapshot => 0,
    }
}

/// What the pods that run say of themselves.
async fn workers(ctx: &Context, pods: &[Arc<Pod>]) -> Vec<(String, Option<QueryStatus>)> {
    let reachable = pods.iter().filter_map(|p| {
        let status = p.status.as_ref()?;
        let runs = status.phase.as_deref() == Some("Running") && p.metadata.deletion_timestamp.is_none();
        Some((p.name_any(), status.pod_ip.clone().filter(|_| runs)?))
    });
    ctx.workers.ask(reachable.collect()).await
}

/// Has the query looked at from now on; gives what was decided last.
fn watched(ctx: &Context, caches: &Caches, seen: &Snapshot, hub: &Arc<Hub>) -> Option<Decision> {
    let query = seen.admitted.as_ref().ok()?;
    let facts = match &seen.store {
        External::Fine(facts) => Some(facts),
        _ => None,
    };
    let state = state(query);
    let subject = Subject {
        labels: ObjectLabels::of(&*seen.object),
        policy: size::policy(&query.scaling),
        replicas: u32::try_from(size::running(&seen.owned)).unwrap_or(0),
        pods: caches.pods.clone(),
        streams: facts.filter(|_| seen.hub.is_fine()).map(|f| listened(query, f, &state, hub)),
        open: facts.is_some_and(|f| f.open),
        handing_over: facts.is_some_and(|f| report::hands_over(f, &state).is_some()),
        state,
    };
    ctx.windows.watches.watch(&seen.object.uid().unwrap_or_default(), subject)
}

fn listened(query: &Query, facts: &State, state: &str, hub: &Arc<Hub>) -> Listened {
    let own = facts.partitions.iter().filter(|p| p.revision == state);
    let next = own.filter_map(|p| Some((query.stream_of(u16::try_from(p.part).ok()?), p.next_offset)));
    Listened { hub: Arc::clone(hub), exchange: query.exchange(), next: next.collect() }
}
