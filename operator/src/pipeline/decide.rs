//! From what was seen to what is to be done. Pure: no client, no clock, nothing random.

use std::time::Duration;

use drover_crds::{
    api::{RolloutPhase, RolloutStatus, ScalingMode},
    resolved::Pipeline,
};
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::ConfigMap},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Resource as _, ResourceExt as _};

use super::{
    cutover, effects, network,
    plan::{Doomed, Mark, Notice, Object, Plan},
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
    rollout::{self, Command, Facts, Mirror, Sizes},
};

/// When all is well: drift of the hub, which nothing tells of, is put right within it.
const STEADY: Duration = Duration::from_secs(15);
/// While something outside the cluster is awaited, which nothing tells of.
const WAITING: Duration = Duration::from_secs(3);

/// While a revision is judged by what its workers do, which nothing tells of.
const JUDGING: Duration = Duration::from_secs(2);

/// Decides.
pub(super) fn decide(seen: &Snapshot) -> Plan {
    if hosts::is_refused(&seen.admitted) {
        let mut plan = Plan { writes: size::stopped(&seen.owned), ..Plan::default() };
        effects::tell_writes(&mut plan, |_, _| None);
        return finish(seen, &Rollout::unknown(seen), plan);
    }
    let (Ok(pipeline), Some(secrets)) = (&seen.admitted, &seen.secrets) else {
        // Refused as it is written, or a secret is missing: what runs goes on as it is.
        return finish(seen, &Rollout::unknown(seen), Plan::default());
    };
    let subject = subject(seen, pipeline, secrets);
    let need = size::replicas(&pipeline.scaling, pipeline.suspend, seen.scale.map(|d| d.desired), &seen.owned);
    let before = cutover::state(seen);
    let rendered = subject.revision();
    let facts = Facts {
        active_lost: before.active.as_deref().is_some_and(|active| is_lost(seen, &subject, active)),
        ..cutover::facts(seen, pipeline, &before, &rendered, need)
    };
    let state = rollout::next(&before, &facts);
    let sizes = cutover::sizes_of(seen, pipeline, &state, need);
    let wanted = wanted(rendered, &state, sizes);
    let rollout = Rollout::of(seen, &state, sizes);
    let mut plan = Plan { status_first: moved(&before, &state), ..Plan::default() };
    let started = rollout::has_started(&state, &wanted.name);
    if started || state.active.is_some() {
        plan.writes = shared(seen, &subject, &wanted);
    }
    if started {
        plan.writes.extend(repairs(seen, &subject, &wanted, &state, sizes));
    }
    if let Some(active) = active(seen, &state, &wanted) {
        plan.writes.extend(for_suspects(seen, &subject, active));
    }
    plan.writes.extend(older(seen, &subject, &state, &wanted, sizes.active));
    plan.marks = plan.writes.iter().filter_map(|(object, _)| shrinks(seen, object)).flatten().collect();
    plan.marks.extend(pods::last_exits(&seen.owned.pods));
    effects::tell_writes(&mut plan, |object, repair| repaired(seen, object, repair));
    plan.events.extend(facts.requests.iter().map(|(command, id)| answered(*command, id, &state)));
    plan.deletes = obsolete(seen, &rollout);
    plan.deletes.extend(pods::backed_off(&seen.owned.pods).into_iter().map(Doomed::Pod));
    effects::tell_deletes(&mut plan, removed);
    plan.answers = facts.requests.iter().map(|(_, id)| id.clone()).collect();
    let answers = rollout::remember(&seen.old_status().handled_requests, &plan.answers, &cutover::asked(seen));
    finish(seen, &Rollout { answers: Some(answers), ..rollout }, plan)
}

/// The revision that the spec asks for, with as many pods as its side is to have, and the priority of that side.
fn wanted(rendered: Revision, state: &RolloutStatus, sizes: Sizes) -> Revision {
    if state.active.as_ref() == Some(&rendered.name) {
        return rendered.sized(sizes.active, state.priority);
    }
    let priority = state.priority.saturating_add(i32::from(state.active.is_some()));
    rendered.sized(sizes.new.unwrap_or(0), priority)
}

/// True if what is to be done now is something else than before: it is written down first.
fn moved(before: &RolloutStatus, after: &RolloutStatus) -> bool {
    let what = |s: &RolloutStatus| RolloutStatus {
        since: String::new(),
        reason: String::new(),
        message: String::new(),
        evidence: None,
        ..s.clone()
    };
    what(before) != what(after)
}

fn answered(command: Command, id: &str, state: &RolloutStatus) -> Notice {
    let name = command.annotation().rsplit('/').next().unwrap_or_default();
    Notice {
        warning: false,
        reason: "RequestAnswered".to_owned(),
        action: "Answer",
        note: format!("{name} {id}: {:?}, {}", state.phase, state.message),
    }
}

/// The revision that takes messages, or stands by, while the spec asks for another. One that somebody has deleted is made again.
fn older(
    seen: &Snapshot,
    subject: &Subject<'_>,
    state: &RolloutStatus,
    wanted: &Revision,
    need: i32,
) -> Option<(Object, Repair)> {
    let active = state.active.as_deref().filter(|active| *active != wanted.name)?;
    let Some(live) = cutover::deployment(seen, active) else {
        let restored = restored(seen, subject, active)?.sized(need, state.priority);
        return Some((Object::Deployment(Box::new(restored.deployment)), Repair::Create));
    };
    let resize = live.metadata.deletion_timestamp.is_none() && size::asked(live) != need;
    resize.then(|| (Object::Deployment(Box::new(size::resized(live, need))), Repair::Apply))
}

/// A revision as what is left of it tells.
fn restored(seen: &Snapshot, subject: &Subject<'_>, revision: &str) -> Option<Revision> {
    let name = names::of_revision(seen.name(), revision);
    let kept = seen.owned.config_maps.iter().find(|c| c.metadata.name.as_deref() == Some(&name))?;
    subject.restored(revision, kept)
}

/// True if nothing of a revision runs, and nothing is left that it could be made from.
fn is_lost(seen: &Snapshot, subject: &Subject<'_>, revision: &str) -> bool {
    cutover::deployment(seen, revision).is_none()
        && !pods::any_of(&seen.owned.pods, revision)
        && restored(seen, subject, revision).is_none()
}

/// Costs of the pods of a Deployment that is to have fewer; where none is left there is nothing to choose.
fn shrinks(seen: &Snapshot, object: &Object) -> Option<Vec<Mark>> {
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

/// What belongs to all revisions. It comes before what makes pods.
fn shared(seen: &Snapshot, subject: &Subject<'_>, wanted: &Revision) -> Vec<(Object, Repair)> {
    let owned = &seen.owned;
    let mut writes = Vec::new();
    let mut check = |object: Object, repair: Option<Repair>| writes.extend(repair.map(|r| (object, r)));
    let account = subject.service_account();
    let repair = drift::repair(&account, owned.service_account.as_deref(), |o| &o.metadata);
    check(Object::ServiceAccount(account), repair);
    let mut policy = subject.network_policy();
    let alone = owned.deployments.iter().all(|d| d.metadata.name == wanted.deployment.metadata.name);
    if let Some(live) = owned.network_policy.as_deref().filter(|_| !alone) {
        network::keep(&mut policy, live);
    }
    let repair = drift::repair(&policy, owned.network_policy.as_deref(), |o| &o.metadata);
    check(Object::NetworkPolicy(policy), repair);
    let budget = subject.disruption_budget();
    let repair = drift::repair(&budget, owned.disruption_budget.as_deref(), |o| &o.metadata);
    check(Object::DisruptionBudget(budget), repair);
    writes
}

/// What the wanted revision consists of: what pods refer to comes before what makes pods.
fn repairs(
    seen: &Snapshot,
    subject: &Subject<'_>,
    wanted: &Revision,
    state: &RolloutStatus,
    sizes: Sizes,
) -> Vec<(Object, Repair)> {
    let owned = &seen.owned;
    let mut writes = Vec::new();
    let mut check = |object: Object, repair: Option<Repair>| writes.extend(repair.map(|r| (object, r)));
    let name = &wanted.config_map.metadata.name;
    let live = owned.config_maps.iter().find(|o| &o.metadata.name == name);
    let repair = drift::repair(&wanted.config_map, live.map(|o| &**o), |o| &o.metadata);
    check(Object::ConfigMap(wanted.config_map.clone()), repair);
    let live = deployment(owned, &wanted.deployment.metadata);
    // One that is told to end is made anew when it has gone.
    let ends = live.is_some_and(|d| d.metadata.deletion_timestamp.is_some());
    if (state.active.as_ref() == Some(&wanted.name) || sizes.new.is_some()) && !ends {
        let repair = drift::repair(&wanted.deployment, live, |o| &o.metadata);
        check(Object::Deployment(Box::new(wanted.deployment.clone())), repair);
    }
    if let Some(replicas) = sizes.preview.filter(|_| seen.mirror == Mirror::Declared || !owned.previews.is_empty()) {
        let preview = subject.preview(wanted, replicas, subject.pipeline.rollout.mirror_percent);
        let live = owned.previews.iter().map(|d| &**d).find(|d| d.metadata.name == preview.metadata.name);
        if live.is_none_or(|d| d.metadata.deletion_timestamp.is_none()) {
            let repair = drift::repair(&preview, live, |o| &o.metadata);
            check(Object::Deployment(Box::new(preview)), repair);
        }
    }
    writes
}

/// The active revision as it is rendered, or as it runs where the spec asks for another.
fn active<'a>(seen: &'a Snapshot, state: &RolloutStatus, wanted: &'a Revision) -> Option<&'a Deployment> {
    let name = state.active.as_deref()?;
    if name == wanted.name {
        return Some(&wanted.deployment);
    }
    cutover::deployment(seen, name).filter(|d| d.metadata.deletion_timestamp.is_none())
}

/// By the active revision only: one on its way may be what kills.
fn for_suspects(seen: &Snapshot, subject: &Subject<'_>, active: &Deployment) -> Vec<(Object, Repair)> {
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
fn obsolete(seen: &Snapshot, rollout: &Rollout) -> Vec<Doomed> {
    let owned = &seen.owned;
    let of = |meta: &ObjectMeta, label| meta.labels.as_ref().and_then(|l| l.get(label)).cloned();
    let kept = |meta: &ObjectMeta| of(meta, names::REVISION).is_some_and(|r| rollout.keeps(&r));
    if rollout.need.is_none() {
        return Vec::new();
    }
    let consumes = |d: &Deployment| pods::counts(d).available > 0;
    // While none that stays consumes, one that goes may be the only one that does.
    let served = rollout.need == Some(0) || owned.deployments.iter().any(|d| kept(&d.metadata) && consumes(d));
    let failed = |meta: &ObjectMeta| rollout.failed().is_some_and(|f| of(meta, names::REVISION).as_deref() == Some(f));
    let goes = |d: &Deployment| !kept(&d.metadata) && (served || !consumes(d) || failed(&d.metadata));
    let previews = owned.previews.iter().filter(|d| !rollout.previews(of(&d.metadata, names::PREVIEW).as_deref()));
    let mut doomed = Vec::new();
    for d in owned.deployments.iter().filter(|d| goes(d)).chain(previews) {
        if d.metadata.deletion_timestamp.is_none() {
            doomed.extend(d.metadata.name.clone().map(Doomed::Deployment));
        }
    }
    // What it holds is with the others as soon as its connections are gone.
    let pods = owned.pods.iter().filter(|p| failed(&p.metadata));
    doomed.extend(pods.filter_map(|p| p.metadata.name.clone()).map(Doomed::PodNow));
    // The environment stays until its pods are gone: one that restarts while it drains still needs it.
    let in_use = |c: &ConfigMap| {
        let revision = of(&c.metadata, names::REVISION);
        rollout.previews(revision.as_deref())
            || owned.deployments.iter().any(|d| d.metadata.name == c.metadata.name)
            || owned.previews.iter().any(|d| of(&d.metadata, names::PREVIEW) == revision)
    };
    for c in owned.config_maps.iter().filter(|c| !kept(&c.metadata) && !in_use(c)) {
        if c.metadata.deletion_timestamp.is_none() {
            doomed.extend(c.metadata.name.clone().map(Doomed::ConfigMap));
        }
    }
    doomed
}

fn repaired(seen: &Snapshot, object: &Object, repair: Repair) -> Option<Notice> {
    let (kind, name) = object.describe();
    if let Object::Deployment(d) = object
        && let Some(step) = suspects::step(d.metadata.labels.as_ref())
    {
        let note = format!("{} workers for suspects of step {step}", replicas(d));
        return Some(Notice { warning: false, reason: "SuspectsHandled".to_owned(), action: "Apply", note });
    }
    let old = seen.old_status().active_revision;
    let revision = object.revision();
    let (reason, note) = match (object, repair) {
        (Object::Deployment(d), Repair::Create) if d.labels().contains_key(names::PREVIEW) => {
            ("PreviewStarted", format!("revision {} starts on copies of what arrives", revision.unwrap_or_default()))
        }
        (Object::Deployment(_), Repair::Create) if old.as_deref() != revision => {
            ("RevisionStarted", format!("revision {} starts", revision.unwrap_or_default()))
        }
        (_, Repair::Create) if old.is_some() && (revision.is_none() || old.as_deref() == revision) => {
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
        Doomed::ConfigMap(_) | Doomed::PodNow(_) => None,
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
    let redriven = redrive::decide(&redrive::Seen::of(seen, status.rollout.as_ref()));
    plan.redrive = redriven.start.and_then(|start| Some(start.order(seen.admitted.as_ref().ok()?)));
    let taken_up = redriven.status.as_ref().and_then(|redrive| redrive.of.as_ref());
    if let (Some(of), Some(rollout)) = (taken_up, &mut status.rollout) {
        rollout.redrives.retain(|due| due != of);
    }
    if let (Some(_), Some(ended), None) = (&redriven.notice, &redriven.status, taken_up) {
        status.handled_requests = redrive::answer(&status.handled_requests, &ended.id, &cutover::asked(seen));
    }
    plan.events.extend(redriven.notice);
    status.redrive = redriven.status;
    let mode = seen.admitted.as_ref().map_or(ScalingMode::Off, |p| p.scaling.mode);
    plan.events.extend(report::notices(&old, &status, mode));
    effects::tell_hub(&mut plan, &seen.made);
    let calm = (report::is_ready(&status) || rollout.is_aborted())
        && rollout.settled()
        && !rollout.moves()
        && !suspects::are_handled(seen)
        && status.rollout.as_ref().is_none_or(|r| r.redrives.is_empty())
        && status.redrive.as_ref().is_none_or(|r| r.finished_at.is_some());
    plan.status = report::must_write(&old, &status, seen.status_age).then_some(status);
    plan.requeue = match () {
        () if rollout.is_judged() => JUDGING,
        () if calm => STEADY,
        () => WAITING,
    };
    plan
}

impl Rollout {
    /// Which revision is active, and which is on its way.
    fn of(seen: &Snapshot, state: &RolloutStatus, sizes: Sizes) -> Self {
        let on_source = state.preview.clone().filter(|_| rollout::is_on_source(state));
        let pending = state.preview.clone().filter(|_| state.phase == RolloutPhase::Stable);
        // What is told of workers is told of those that are to take the messages.
        let told = on_source.clone().or(state.active.clone()).or_else(|| pending.clone());
        let need = if on_source.is_some() { sizes.new.unwrap_or(0) } else { sizes.active };
        let live = told.as_deref().and_then(|name| cutover::deployment(seen, name));
        let live = live.filter(|d| d.metadata.deletion_timestamp.is_none());
        let counts = live.map(pods::counts);
        let name = told.as_deref().unwrap_or_default();
        let consumes = live.is_some_and(|d| pods::consume(d, &seen.owned.pods, name, need));
        let hindrance = live.filter(|_| !consumes).and_then(|d| pods::hindrance(d, &seen.owned.pods, name));
        let stays = [state.active.as_deref(), on_source.as_deref()];
        let draining = seen.owned.deployments.iter().any(|d| {
            let revision = d.metadata.labels.as_ref().and_then(|l| l.get(names::REVISION)).map(String::as_str);
            !stays.contains(&revision)
        });
        Self {
            starting: on_source.or(pending),
            draining,
            active: state.active.clone(),
            available: counts.map(|c| c.available),
            consumes,
            hindrance,
            need: Some(need),
            state: Some(state.clone()),
            answers: None,
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
            state: None,
            answers: None,
        }
    }
}
