//! From what was seen to what is to be done. Pure: no client, no clock, nothing random.

use std::time::Duration;

use drover_crds::{api::ScalingMode, resolved::Pipeline};
use k8s_openapi::{
    api::apps::v1::Deployment,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource as _;

use super::{
    plan::{Doomed, Notice, Object, Plan},
    pods,
    render::{Revision, Subject},
    report::{self, Rollout},
    size,
    snapshot::{Owned, Secrets, Snapshot},
    suspects,
};
use crate::{
    drift::{self, Repair},
    hosts, names, redrive,
};

/// When all is well: drift of the hub, which nothing tells of, is put right within it.
const STEADY: Duration = Duration::from_secs(15);
/// While something outside the cluster is awaited, which nothing tells of.
const WAITING: Duration = Duration::from_secs(3);

/// Decides.
pub(super) fn decide(seen: &Snapshot) -> Plan {
    if hosts::is_refused(&seen.admitted) {
        let writes = size::stopped(&seen.owned);
        return finish(seen, &Rollout::unknown(seen), Plan { writes, ..Plan::default() });
    }
    let (Ok(pipeline), Some(secrets)) = (&seen.admitted, &seen.secrets) else {
        // Refused as it is written, or a secret is missing: what runs goes on as it is.
        return finish(seen, &Rollout::unknown(seen), Plan::default());
    };
    let subject = subject(seen, pipeline, secrets);
    let need = size::replicas(&pipeline.scaling, pipeline.suspend, seen.scale.map(|d| d.desired), &seen.owned);
    let wanted = subject.revision(need);
    let rollout = Rollout::of(seen, need, &wanted);
    let mut plan = Plan::default();
    if may_run(seen, pipeline, &wanted) {
        plan.writes = repairs(seen, &subject, &wanted);
        if rollout.active.as_deref() == Some(&*wanted.name) {
            plan.writes.extend(for_suspects(seen, &subject, &wanted));
        }
    }
    plan.writes.extend(older(seen, &rollout, &wanted, need));
    plan.costs = plan.writes.iter().filter_map(|(object, _)| shrinks(seen, object)).flatten().collect();
    plan.events = plan.writes.iter().filter_map(|(object, repair)| repaired(seen, &wanted, object, *repair)).collect();
    plan.deletes = obsolete(&seen.owned, &rollout);
    plan.deletes.extend(pods::backed_off(&seen.owned.pods).into_iter().map(Doomed::Pod));
    plan.events.extend(plan.deletes.iter().filter_map(removed));
    finish(seen, &rollout, plan)
}

/// The revision that still takes messages has as many pods as the one that is to follow it.
fn older(seen: &Snapshot, rollout: &Rollout, wanted: &Revision, need: i32) -> Option<(Object, Repair)> {
    let active = rollout.active.as_deref().filter(|active| *active != wanted.name)?;
    let name = names::of_revision(seen.name(), active);
    let live = seen.owned.deployments.iter().find(|d| d.metadata.name.as_deref() == Some(&name))?;
    let resize = live.metadata.deletion_timestamp.is_none() && size::asked(live) != need;
    resize.then(|| (Object::Deployment(Box::new(size::resized(live, need))), Repair::Apply))
}

/// Costs of the pods of a Deployment that is to have fewer; where none is left there is nothing to choose.
fn shrinks(seen: &Snapshot, object: &Object) -> Option<Vec<(String, String)>> {
    let Object::Deployment(wanted) = object else { return None };
    let live = deployment(&seen.owned, &wanted.metadata)?;
    let fewer = (1..size::asked(live)).contains(&replicas(wanted));
    let revision = wanted.metadata.labels.as_ref()?.get(names::REVISION)?;
    fewer.then(|| size::costs(seen, revision))
}

fn subject<'a>(seen: &'a Snapshot, pipeline: &'a Pipeline, secrets: &'a Secrets) -> Subject<'a> {
    let object = &seen.object;
    Subject {
        name: seen.name(),
        namespace: object.metadata.namespace.as_deref().unwrap_or_default(),
        owner: object
            .controller_owner_ref(&())
            .unwrap_or_else(|| OwnerReference { name: seen.name().to_owned(), ..OwnerReference::default() }),
        pipeline,
        secrets,
        install: &seen.install,
    }
}

/// A revision starts only when hub and store are seen to be ready for it; the active one is kept in any case.
fn may_run(seen: &Snapshot, pipeline: &Pipeline, wanted: &Revision) -> bool {
    let active = seen.old_status().active_revision.as_deref() == Some(&wanted.name);
    let exists = deployment(&seen.owned, &wanted.deployment.metadata).is_some();
    active || exists || (seen.hub.is_fine() && (seen.store.is_fine() || pipeline.sink.postgres.is_none()))
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

/// By the active revision only: one on its way may be what kills.
fn for_suspects(seen: &Snapshot, subject: &Subject<'_>, active: &Revision) -> Vec<(Object, Repair)> {
    let wanted = suspects::deployments(seen, subject, subject.pipeline, active);
    let repaired = wanted.into_iter().filter_map(|deployment| {
        let live = seen.owned.suspects.iter().map(|d| &**d).find(|d| d.metadata.name == deployment.metadata.name);
        let repair = drift::repair(&deployment, live, |o| &o.metadata)?;
        Some((Object::Deployment(Box::new(deployment)), repair))
    });
    repaired.collect()
}

fn deployment<'a>(owned: &'a Owned, meta: &ObjectMeta) -> Option<&'a Deployment> {
    owned.deployments.iter().map(|d| &**d).find(|d| d.metadata.name == meta.name)
}

/// Revisions that are neither active nor on their way, and environments without pods.
fn obsolete(owned: &Owned, rollout: &Rollout) -> Vec<Doomed> {
    let kept = |meta: &ObjectMeta| {
        let revision = meta.labels.as_ref().and_then(|l| l.get(names::REVISION));
        revision.is_some_and(|r| rollout.keeps(r))
    };
    if rollout.need.is_none() {
        return Vec::new();
    }
    let consumes = |d: &Deployment| pods::counts(d).available > 0;
    // While none that stays consumes, one that goes may be the only one that does.
    let served = rollout.need == Some(0) || owned.deployments.iter().any(|d| kept(&d.metadata) && consumes(d));
    let mut doomed = Vec::new();
    for d in owned.deployments.iter().filter(|d| !kept(&d.metadata) && (served || !consumes(d))) {
        if d.metadata.deletion_timestamp.is_none() {
            doomed.extend(d.metadata.name.clone().map(Doomed::Deployment));
        }
    }
    // The environment stays until its pods are gone: one that restarts while it drains still needs it.
    let has_pods = |name: &Option<String>| owned.deployments.iter().any(|d| &d.metadata.name == name);
    for c in owned.config_maps.iter().filter(|c| !kept(&c.metadata) && !has_pods(&c.metadata.name)) {
        if c.metadata.deletion_timestamp.is_none() {
            doomed.extend(c.metadata.name.clone().map(Doomed::ConfigMap));
        }
    }
    doomed
}

fn repaired(seen: &Snapshot, wanted: &Revision, object: &Object, repair: Repair) -> Option<Notice> {
    let (kind, name) = object.describe();
    if let Object::Deployment(d) = object
        && let Some(step) = suspects::step(d.metadata.labels.as_ref())
    {
        let note = format!("{} workers for suspects of step {step}", replicas(d));
        return Some(Notice { warning: false, reason: "SuspectsHandled".to_owned(), action: "Apply", note });
    }
    let old = seen.old_status().active_revision;
    let (reason, note) = match (object, repair) {
        (Object::Deployment(_), Repair::Create) if old.as_deref() != Some(&*wanted.name) => {
            ("RevisionStarted", format!("revision {} starts", wanted.name))
        }
        (_, Repair::Create) if old.is_some() && old.as_deref() == Some(&*wanted.name) => {
            ("Repaired", format!("{kind} {name} was missing and is made again"))
        }
        (Object::Deployment(d), Repair::Apply) if replicas_only(seen, d) => ("Scaled", scaled(seen, d)),
        (_, Repair::Replace) => ("Repaired", format!("{kind} {name} was edited by hand and is put back")),
        _ => return None,
    };
    Some(Notice { warning: reason == "Repaired", reason: reason.to_owned(), action: "Apply", note })
}

/// From how many to how many, and why.
fn scaled(seen: &Snapshot, wanted: &Deployment) -> String {
    let before = deployment(&seen.owned, &wanted.metadata).map_or(0, size::asked);
    let why = match (&seen.admitted, &seen.scale) {
        (Ok(pipeline), _) if pipeline.suspend => "suspend is true".to_owned(),
        (Ok(pipeline), Some(decision)) if pipeline.scaling.mode == ScalingMode::Auto => report::why(decision),
        (Ok(pipeline), None) if pipeline.scaling.mode == ScalingMode::Auto => "within the bounds".to_owned(),
        _ => "as scaling.replicas says".to_owned(),
    };
    format!("replicas {before} → {}: {why}", replicas(wanted))
}

fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0)
}

fn replicas_only(seen: &Snapshot, wanted: &Deployment) -> bool {
    deployment(&seen.owned, &wanted.metadata).is_some_and(|live| replicas(live) != replicas(wanted))
}

fn removed(doomed: &Doomed) -> Option<Notice> {
    match doomed {
        Doomed::Deployment(name) => Some(Notice {
            warning: false,
            reason: "RevisionRemoved".to_owned(),
            action: "Delete",
            note: format!("Deployment {name} is told to drain and end"),
        }),
        Doomed::ConfigMap(_) => None,
        Doomed::Pod(name) => Some(Notice {
            warning: false,
            reason: "PodReplaced".to_owned(),
            action: "Delete",
            note: format!("pod {name} died of messages and would wait to start again: another takes its place"),
        }),
    }
}

fn finish(seen: &Snapshot, rollout: &Rollout, mut plan: Plan) -> Plan {
    let mut status = report::status(seen, rollout);
    let old = seen.old_status();
    let redriven = redrive::decide(&redrive::Seen::of(seen));
    plan.redrive = redriven.start.and_then(|start| Some(start.order(seen.admitted.as_ref().ok()?)));
    if let (Some(_), Some(ended)) = (&redriven.notice, &redriven.status) {
        redrive::answer(&mut status.handled_requests, &ended.id);
    }
    plan.events.extend(redriven.notice);
    status.redrive = redriven.status;
    let mode = seen.admitted.as_ref().map_or(ScalingMode::Off, |p| p.scaling.mode);
    plan.events.extend(report::notices(&old, &status, mode));
    let calm = report::is_ready(&status)
        && rollout.settled()
        && !suspects::are_handled(seen)
        && status.redrive.as_ref().is_none_or(|r| r.finished_at.is_some());
    plan.status = report::must_write(&old, &status, seen.status_age).then_some(status);
    plan.requeue = if calm { STEADY } else { WAITING };
    plan
}

impl Rollout {
    /// Which revision is active, and which is on its way.
    fn of(seen: &Snapshot, need: i32, wanted: &Revision) -> Self {
        let old = seen.old_status().active_revision;
        // One that is told to end is of no use any more, though it still consumes: it is made anew when it has gone.
        let live =
            deployment(&seen.owned, &wanted.deployment.metadata).filter(|d| d.metadata.deletion_timestamp.is_none());
        let counts = live.map(pods::counts);
        let consumes = counts.is_some_and(|c| c.current && c.available >= need && c.replicas >= need)
            // At zero, only once the last of them has finished what it held.
            && (need > 0 || !pods::any_of(&seen.owned.pods, &wanted.name));
        let was_active = old.as_deref() == Some(&*wanted.name);
        let active = if was_active || (live.is_some() && consumes) { Some(wanted.name.clone()) } else { old };
        let hindrance = live.filter(|_| !consumes).and_then(|d| pods::hindrance(d, &seen.owned.pods, &wanted.name));
        let others =
            seen.owned.deployments.iter().filter(|d| d.metadata.name != wanted.deployment.metadata.name).count();
        Self {
            starting: (active.as_deref() != Some(&wanted.name)).then(|| wanted.name.clone()),
            draining: others > 0,
            active,
            available: counts.map(|c| c.available),
            consumes,
            hindrance,
            need: Some(need),
        }
    }

    /// What is left to say when the spec or the secrets cannot be read: everything stays.
    fn unknown(seen: &Snapshot) -> Self {
        Self {
            active: seen.old_status().active_revision,
            starting: None,
            draining: false,
            available: None,
            consumes: false,
            hindrance: None,
            need: None,
        }
    }
}
