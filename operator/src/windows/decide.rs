//! From what was seen of a query to what is to be done. Pure: no client, no clock, nothing random.

use std::time::Duration;

use drover_crds::{api::ScalingMode, resolved_query::Query};
use k8s_openapi::{
    api::apps::v1::Deployment,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource as _;

use super::{
    render::{Revision, Subject},
    report::{self, Rollout},
    snapshot::{Snapshot, state_of},
};
use crate::{
    drift::{self, Repair},
    hosts,
    pipeline::{
        effects,
        plan::{Doomed, Notice, Object, Plan},
        pods,
        report::{is_ready, must_write, notices},
        size,
        snapshot::{Owned, Secrets},
    },
    problem::External,
};

/// When all is well: drift of the hub, which nothing tells of, is put right within it.
const STEADY: Duration = Duration::from_secs(15);
/// While something outside the cluster is awaited, which nothing tells of.
const WAITING: Duration = Duration::from_secs(3);

/// Decides.
pub(super) fn decide(seen: &Snapshot) -> Plan {
    if hosts::is_refused(&seen.admitted) {
        let mut plan = Plan { writes: size::stopped(&seen.owned), ..Plan::default() };
        effects::tell_writes(&mut plan, |_, _| None);
        return finish(seen, &Rollout::unknown(seen), plan);
    }
    let (Ok(query), Some(secrets)) = (&seen.admitted, &seen.secrets) else {
        // Refused as it is written, or a secret is missing: what runs goes on as it is.
        return finish(seen, &Rollout::unknown(seen), Plan::default());
    };
    let subject = subject(seen, query, secrets);
    let need = size::replicas(&query.scaling, query.suspend, seen.scale.map(|d| d.desired), &seen.owned);
    let wanted = subject.revision(need);
    let rollout = rollout(seen, need, &wanted);
    let mut plan = Plan::default();
    if may_run(seen, &wanted) {
        plan.writes = repairs(seen, &subject, &wanted);
    }
    plan.writes.extend(others(seen, &wanted, need));
    effects::tell_writes(&mut plan, |object, repair| written(seen, &wanted, object, repair));
    plan.deletes = obsolete(seen, &rollout, &wanted);
    effects::tell_deletes(&mut plan, removed);
    finish(seen, &rollout, plan)
}

fn subject<'a>(seen: &'a Snapshot, query: &'a Query, secrets: &'a Secrets) -> Subject<'a> {
    let object = &seen.object;
    Subject {
        name: seen.name(),
        namespace: object.metadata.namespace.as_deref().unwrap_or_default(),
        owner: object
            .controller_owner_ref(&())
            .unwrap_or_else(|| OwnerReference { name: seen.name().to_owned(), ..OwnerReference::default() }),
        query,
        secrets,
        install: &seen.install,
    }
}

/// A revision is made only where hub and store are seen to be ready for it and its version of the state has its rows, which begin where
/// the version before it has come to. One that is there is kept, unless its version has nothing left to do.
fn may_run(seen: &Snapshot, wanted: &Revision) -> bool {
    let exists = deployment(&seen.owned, &wanted.deployment.metadata).is_some();
    match &seen.store {
        External::Fine(facts) => report::lives(facts, &wanted.state, &wanted.state) && (exists || seen.hub.is_fine()),
        External::Problem(_) | External::Unseen => exists,
    }
}

/// What pods refer to comes before what makes pods.
fn repairs(seen: &Snapshot, subject: &Subject<'_>, wanted: &Revision) -> Vec<(Object, Repair)> {
    let owned = &seen.owned;
    let mut writes = Vec::new();
    let mut check = |object: Object, repair: Option<Repair>| writes.extend(repair.map(|r| (object, r)));
    let account = subject.service_account();
    let repair = drift::repair(&account, owned.service_account.as_deref(), |o| &o.metadata);
    check(Object::ServiceAccount(account), repair);
    let policy = subject.network_policy();
    let repair = drift::repair(&policy, owned.network_policy.as_deref(), |o| &o.metadata);
    check(Object::NetworkPolicy(policy), repair);
    let budget = subject.disruption_budget();
    let repair = drift::repair(&budget, owned.disruption_budget.as_deref(), |o| &o.metadata);
    check(Object::DisruptionBudget(budget), repair);
    let name = &wanted.config_map.metadata.name;
    let live = owned.config_maps.iter().find(|o| &o.metadata.name == name);
    let repair = drift::repair(&wanted.config_map, live.map(|o| &**o), |o| &o.metadata);
    check(Object::ConfigMap(wanted.config_map.clone()), repair);
    let live = deployment(owned, &wanted.deployment.metadata);
    let repair = drift::repair(&wanted.deployment, live, |o| &o.metadata);
    check(Object::Deployment(Box::new(wanted.deployment.clone())), repair);
    writes
}

fn deployment<'a>(owned: &'a Owned, meta: &ObjectMeta) -> Option<&'a Deployment> {
    owned.deployments.iter().map(|d| &**d).find(|d| d.metadata.name == meta.name)
}

/// Revisions beside the wanted one have as many pods: theirs is the same work, or that of the version before.
fn others(seen: &Snapshot, wanted: &Revision, need: i32) -> Vec<(Object, Repair)> {
    let live = seen
        .owned
        .deployments
        .iter()
        .filter(|d| d.metadata.name != wanted.deployment.metadata.name && d.metadata.deletion_timestamp.is_none());
    live.filter(|d| size::asked(d) != need)
        .map(|d| (Object::Deployment(Box::new(size::resized(d, need))), Repair::Apply))
        .collect()
}

/// Where the revisions are.
fn rollout(seen: &Snapshot, need: i32, wanted: &Revision) -> Rollout {
    let old = seen.old_status().active_revision;
    let live = deployment(&seen.owned, &wanted.deployment.metadata).filter(|d| d.metadata.deletion_timestamp.is_none());
    let counts = live.map(pods::counts);
    let works = live.is_some_and(|d| pods::consume(d, &seen.owned.pods, &wanted.name, need));
    let was_active = old.as_deref() == Some(&*wanted.name);
    let active = if was_active || (live.is_some() && works) { Some(wanted.name.clone()) } else { old };
    let others = seen.owned.deployments.iter().any(|d| d.metadata.name != wanted.deployment.metadata.name);
    let facts = match &seen.store {
        External::Fine(facts) => Some(facts),
        _ => None,
    };
    Rollout {
        starting: (active.as_deref() != Some(&wanted.name)).then(|| wanted.name.clone()),
        draining: others,
        handover: facts.and_then(|f| report::hands_over(f, &wanted.state)),
        awaits: facts.is_some_and(|f| !f.revisions.is_empty() && !report::lives(f, &wanted.state, &wanted.state)),
        active,
        available: counts.map(|c| c.available),
        works,
        hindrance: live.filter(|_| !works).and_then(|d| pods::hindrance(d, &seen.owned.pods, &wanted.name)),
        need: Some(need),
    }
}

/// Revisions that have nothing left to do: of versions that are past their boundary, and of the wanted version once the wanted revision
/// works. While the store is not seen, nothing goes.
fn obsolete(seen: &Snapshot, rollout: &Rollout, wanted: &Revision) -> Vec<Doomed> {
    let External::Fine(facts) = &seen.store else { return Vec::new() };
    let spent = |d: &Deployment| match state_of(&d.metadata) {
        Some(state) if state == wanted.state && report::lives(facts, state, &wanted.state) => {
            rollout.works && d.metadata.name != wanted.deployment.metadata.name
        }
        Some(state) => !report::lives(facts, state, &wanted.state),
        None => true,
    };
    let live = seen.owned.deployments.iter().filter(|d| d.metadata.deletion_timestamp.is_none());
    let doomed = live.filter(|d| spent(d)).filter_map(|d| d.metadata.name.clone()).map(Doomed::Deployment);
    // The environment stays until its pods are gone: one that restarts while it ends still needs it.
    let needed = |c: &ObjectMeta| {
        c.name == wanted.config_map.metadata.name || seen.owned.deployments.iter().any(|d| d.metadata.name == c.name)
    };
    let maps = seen.owned.config_maps.iter().map(|c| &c.metadata);
    let maps = maps.filter(|c| !needed(c) && c.deletion_timestamp.is_none());
    doomed.chain(maps.filter_map(|c| c.name.clone()).map(Doomed::ConfigMap)).collect()
}

fn written(seen: &Snapshot, wanted: &Revision, object: &Object, repair: Repair) -> Option<Notice> {
    let (kind, name) = object.describe();
    let old = seen.old_status().active_revision;
    let (reason, note) = match (object, repair) {
        (Object::Deployment(_), Repair::Create) if old.as_deref() != Some(&*wanted.name) => {
            ("RevisionStarted", format!("revision {} starts", wanted.name))
        }
        (_, Repair::Create) if old.as_deref() == Some(&*wanted.name) => {
            ("Repaired", format!("{kind} {name} was missing and is made again"))
        }
        (Object::Deployment(d), Repair::Apply) => ("Scaled", scaled(seen, d)?),
        (_, Repair::Replace) => ("Repaired", format!("{kind} {name} was edited by hand and is put back")),
        _ => return None,
    };
    Some(Notice { warning: reason == "Repaired", reason: reason.to_owned(), action: "Apply", note })
}

/// From how many to how many, and why; `None` where the number is the same.
fn scaled(seen: &Snapshot, wanted: &Deployment) -> Option<String> {
    let before = size::asked(deployment(&seen.owned, &wanted.metadata)?);
    let after = size::asked(wanted);
    let why = match (&seen.admitted, &seen.scale) {
        (Ok(query), _) if query.suspend => "suspend is true".to_owned(),
        (Ok(query), Some(decision)) if query.scaling.mode == ScalingMode::Auto => report::why(decision),
        (Ok(query), None) if query.scaling.mode == ScalingMode::Auto => "within the bounds".to_owned(),
        _ => "as scaling.replicas says".to_owned(),
    };
    (before != after).then(|| format!("replicas {before} → {after}: {why}"))
}

fn removed(doomed: &Doomed) -> Option<Notice> {
    match doomed {
        Doomed::Deployment(name) => Some(Notice {
            warning: false,
            reason: "RevisionRemoved".to_owned(),
            action: "Delete",
            note: format!("Deployment {name} is told to end: nothing is left for it to do"),
        }),
        Doomed::ConfigMap(_) | Doomed::PodNow(_) | Doomed::Pod(_) => None,
    }
}

fn finish(seen: &Snapshot, rollout: &Rollout, mut plan: Plan) -> Plan {
    let status = report::status(seen, rollout);
    let old = seen.old_status();
    let mode = seen.admitted.as_ref().map_or(ScalingMode::Off, |q| q.scaling.mode);
    plan.events.extend(notices(&old, &status, mode));
    plan.events.extend(report::losses(seen, &old, &status));
    plan.answers = status.handled_requests.iter().filter(|id| !old.handled_requests.contains(id)).cloned().collect();
    effects::tell_hub(&mut plan, &seen.made);
    let calm = rollout.is_given_up() || (is_ready(&status) && rollout.settled());
    plan.status = must_write(&old, &status, seen.status_age).then_some(status);
    plan.requeue = if calm { STEADY } else { WAITING };
    plan
}

impl Rollout {
    /// What is left to say when the spec or the secrets cannot be read: everything stays.
    fn unknown(seen: &Snapshot) -> Self {
        Self { active: seen.old_status().active_revision, ..Self::default() }
    }
}
