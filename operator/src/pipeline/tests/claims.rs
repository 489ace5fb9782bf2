//! What is promised of decisions, one claim a test.

use drover_crds::api::{Evidence, Phase};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use serde_json::json;

use super::model::{World, holding, spec};
use crate::{
    condition::find,
    minted::Found,
    names,
    pipeline::{
        observe::{hub_and_management, with_users},
        plan::{Doomed, Mark},
    },
    problem::{External, Problem},
};

pub(super) fn reason(world: &World, type_: &str) -> String {
    find(&world.status().conditions, type_).map(|c| format!("{} {}", c.status, c.reason)).unwrap_or_default()
}

pub(super) fn running() -> World {
    let mut world = World::new(spec());
    world.converge();
    world
}

#[test]
fn a_sound_pipeline_gets_one_worker_and_is_ready_once_it_consumes() {
    let mut world = World::new(spec());
    world.step();
    assert_eq!(world.deployments().len(), 1);
    assert_eq!(world.replicas(&world.deployments()[0]), 1);
    world.step();
    assert_eq!(reason(&world, "Ready"), "False Starting");
    world.settle();
    world.step();
    assert_eq!((reason(&world, "Ready").as_str(), world.status().phase), ("True Ready", Some(Phase::Running)));
    assert_eq!(
        world.status().active_revision.map(|r| names::of_revision("p", &r)),
        Some(world.deployments()[0].clone())
    );
}

#[test]
fn nothing_starts_before_hub_and_store_are_seen_to_be_ready() {
    let mut world = World::new(spec());
    world.hub_fails();
    world.step();
    assert!(world.deployments().is_empty());
    assert_eq!(
        (reason(&world, "HubReady").as_str(), world.status().phase),
        ("False Unreachable", Some(Phase::Waiting))
    );
    world.hub = World::new(spec()).hub;
    world.store = External::Problem(Problem::new("TableNotFound", "make it"));
    world.step();
    assert!(world.deployments().is_empty());
    assert_eq!(reason(&world, "Ready"), "False TableNotFound");
    assert_eq!(world.status().message.as_deref(), Some("make it"));
}

#[test]
fn while_the_hub_cannot_be_read_workers_stay_and_are_repaired() {
    let mut world = running();
    world.hub_fails();
    let plan = world.step();
    assert!(plan.writes.is_empty() && plan.deletes.is_empty());
    world.owned.deployments.clear();
    world.step();
    assert_eq!(world.deployments().len(), 1, "the active revision is made again");
}

#[test]
fn a_new_revision_waits_while_the_hub_cannot_be_read_and_the_old_one_goes_on() {
    let mut world = running();
    let old = world.deployments();
    world.hub_fails();
    world.edit(|s| s.source.prefetch = Some(7));
    world.step();
    assert_eq!(world.deployments(), old);
    assert_eq!(reason(&world, "Progressing"), "True RevisionWaiting");
}

#[test]
fn the_old_revision_is_removed_only_when_the_new_one_consumes() {
    let mut world = running();
    let old = world.deployments()[0].clone();
    world.edit(|s| s.source.prefetch = Some(7));
    world.step();
    let new = world.deployments().into_iter().find(|d| *d != old).unwrap();
    for _ in 0..3 {
        assert!(world.step().deletes.is_empty(), "the new one does not consume yet");
    }
    world.available(&new, 1);
    world.step();
    assert_eq!(world.status().active_revision.map(|r| names::of_revision("p", &r)), Some(new.clone()));
    world.settle();
    world.step();
    assert_eq!(world.deployments(), [new]);
    assert_eq!(world.owned.config_maps.len(), 1);
}

#[test]
fn changing_the_spec_back_returns_to_the_revision_that_runs() {
    let mut world = running();
    let old = world.deployments();
    world.edit(|s| s.source.prefetch = Some(7));
    world.step();
    world.edit(|s| s.source.prefetch = None);
    world.converge();
    assert_eq!(world.deployments(), old);
    assert_eq!(reason(&world, "Ready"), "True Ready");
}

#[test]
fn a_change_midway_drops_the_revision_in_between() {
    let mut world = running();
    let old = world.deployments()[0].clone();
    world.edit(|s| s.source.prefetch = Some(7));
    world.step();
    let between = world.deployments().into_iter().find(|d| *d != old).unwrap();
    world.edit(|s| s.source.prefetch = Some(8));
    let plan = world.step();
    assert_eq!(plan.deletes.len(), 1, "{:?}", plan.deletes);
    world.owned.deployments.retain(|d| d.metadata.deletion_timestamp.is_none());
    assert!(!world.deployments().contains(&between) && world.deployments().contains(&old));
}

#[test]
fn a_revision_that_is_told_to_end_is_not_taken_for_one_that_consumes() {
    let mut world = running();
    let old = world.deployments()[0].clone();
    world.edit(|s| s.source.prefetch = Some(7));
    world.step();
    let between = world.deployments().into_iter().find(|d| *d != old).unwrap();
    world.available(&between, 1);
    world.edit(|s| s.source.prefetch = Some(8));
    world.step();
    world.edit(|s| s.source.prefetch = Some(7));
    world.step();
    assert_eq!(world.status().active_revision.map(|r| names::of_revision("p", &r)), Some(old.clone()));
    world.converge();
    assert_eq!(world.deployments(), [between]);
}

#[test]
fn a_revision_that_cannot_start_is_told_and_the_old_one_goes_on() {
    let mut world = running();
    let old = world.deployments();
    world.edit(|s| s.worker = serde_json::from_value(json!({"podTemplate": {"labels": {"a": "b"}}})).unwrap());
    world.step();
    let new = world.deployments().into_iter().find(|d| !old.contains(d)).unwrap();
    world.pod_waits(&new, "ImagePullBackOff", "Back-off pulling image: ErrImagePull: not found");
    world.step();
    assert_eq!(reason(&world, "WorkersReady"), "False ImagePullFailed");
    let told = world.status().message.unwrap();
    assert!(
        told.contains("registry.example/x:1") && told.contains("not found") && !told.contains("Back-off"),
        "{told}"
    );
    assert!(world.deployments().contains(&old[0]));
}

#[test]
fn scaling_makes_no_revision_and_a_persons_spec_is_not_written() {
    let mut world = running();
    let before = world.deployments();
    world.edit(|s| s.scaling.get_or_insert_default().replicas = Some(5));
    world.step();
    assert_eq!(world.deployments(), before);
    assert_eq!(world.replicas(&before[0]), 5);
    assert_eq!(reason(&world, "WorkersReady"), "True Running", "four more start, one goes on");
}

#[test]
fn suspend_takes_the_workers_to_zero_and_stays_ready() {
    let mut world = running();
    world.edit(|s| s.suspend = Some(true));
    world.converge();
    assert_eq!(world.replicas(&world.deployments()[0]), 0);
    assert_eq!(
        (world.status().phase, reason(&world, "WorkersReady").as_str()),
        (Some(Phase::Suspended), "True Suspended")
    );
}

#[test]
fn suspended_is_said_only_once_the_last_worker_has_ended() {
    let mut world = running();
    world.edit(|s| s.suspend = Some(true));
    world.step();
    world.settle();
    world.pod_waits(&world.deployments()[0].clone(), "Ending", "");
    world.step();
    assert_eq!(reason(&world, "WorkersReady"), "False Stopping");
    world.owned.pods.clear();
    world.step();
    assert_eq!(
        (world.status().phase, reason(&world, "WorkersReady").as_str()),
        (Some(Phase::Suspended), "True Suspended")
    );
}

#[test]
fn a_spec_that_is_refused_touches_nothing_that_runs() {
    let mut world = running();
    let before = world.deployments();
    world.edit(|s| s.transform = serde_json::from_value(json!({"query": "SELECT a FROM"})).unwrap());
    let plan = world.step();
    assert!(plan.writes.is_empty() && plan.deletes.is_empty());
    assert_eq!(world.deployments(), before);
    assert_eq!(reason(&world, "Stalled"), "True InvalidQuery");
    assert!(world.status().message.unwrap().starts_with("transform.query: "));
}

#[test]
fn a_missing_secret_touches_nothing_that_runs() {
    let mut world = running();
    world.secrets = None;
    world.hub = External::Problem(Problem::new("SecretNotFound", "make it"));
    world.store = External::Unseen;
    let plan = world.step();
    assert!(plan.writes.is_empty() && plan.deletes.is_empty());
    assert_eq!(reason(&world, "Ready"), "False SecretNotFound");
}

#[test]
fn a_rotated_secret_is_a_new_revision() {
    let mut world = running();
    world.secrets.as_mut().unwrap().digest = "e".to_owned();
    world.step();
    assert_eq!(world.deployments().len(), 2);
}

#[test]
fn workers_that_hold_are_a_condition() {
    let mut world = running();
    world.workers = vec![holding("53100")];
    world.step();
    assert_eq!(
        (reason(&world, "StoreReady").as_str(), world.status().phase),
        ("False SinkRefuses", Some(Phase::Holding))
    );
    world.workers.clear();
    world.step();
    assert_eq!(reason(&world, "Ready"), "True Ready");
}

#[test]
fn what_was_edited_or_deleted_by_hand_is_put_back() {
    let mut world = running();
    world.owned.config_maps.clear();
    world.owned.network_policy = None;
    let deployment = std::sync::Arc::make_mut(&mut world.owned.deployments[0]);
    deployment.spec.as_mut().unwrap().replicas = Some(9);
    let plan = world.step();
    assert_eq!(plan.writes.len(), 3, "{:?}", plan.writes);
    assert!(plan.events.iter().any(|e| e.reason == "Repaired" && e.note.contains("ConfigMap")));
    assert!(world.step().writes.is_empty());
}

#[test]
fn a_day_before_retention_ends_a_dead_letter_a_person_is_told_once_and_the_source_goes_on() {
    let mut world = running();
    let old = |world: &mut World, hours: i64| {
        let oldest = Some(world.clock - k8s_openapi::jiff::SignedDuration::from_hours(hours));
        world.hub = External::Fine(super::super::snapshot::HubFacts { dead: 3, oldest });
        let plan = world.step();
        plan.events.iter().filter(|e| e.warning && e.reason == "RetentionEnds").count()
    };
    assert_eq!(old(&mut world, 13 * 24 - 1), 0);
    assert_eq!(old(&mut world, 13 * 24 + 1), 1);
    assert_eq!(reason(&world, "DeadLetterSafe"), "True RetentionEnds");
    assert_ne!(world.status().phase, Some(Phase::Holding));
    assert_eq!(old(&mut world, 13 * 24 + 2), 0);
    assert_eq!(old(&mut world, 1), 0);
    assert_eq!(reason(&world, "DeadLetterSafe"), "True Safe");
}

#[test]
fn numbers_alone_are_written_at_most_every_15_seconds_and_for_a_tenth() {
    let mut world = running();
    let dead = |world: &mut World, dead, seconds| {
        world.hub = External::Fine(super::super::snapshot::HubFacts { dead, oldest: None });
        world.status_age = Some(std::time::Duration::from_secs(seconds));
        world.plan().status.is_some()
    };
    assert!(!dead(&mut world, 1, 14));
    assert!(dead(&mut world, 1, 15));
    dead(&mut world, 100, 15);
    world.step();
    assert!(!dead(&mut world, 109, 60));
    assert!(dead(&mut world, 110, 60));
}

fn with_handler() -> World {
    let mut spec = spec();
    spec["transform"] = json!({"handler": {"image": "registry.example/clean:1"}});
    spec["scaling"] = json!({"replicas": 3});
    World::new(spec)
}

/// Workers for suspects of each step.
fn for_suspects(world: &World) -> Vec<(String, i32)> {
    let replicas = |d: &Deployment| d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    let mut all: Vec<_> =
        world.owned.suspects.iter().map(|d| (d.metadata.name.clone().unwrap(), replicas(d))).collect();
    all.sort();
    all
}

#[test]
fn suspects_get_workers_of_their_own_from_zero_and_back() {
    let mut world = with_handler();
    world.suspects = Some(vec![0, 0]);
    world.converge();
    assert_eq!(for_suspects(&world), []);
    let told = |name: &str, replicas| (format!("p-suspects-{name}"), replicas);
    for (waiting, wanted) in [(vec![14, 0], vec![told("1", 1)]), (vec![3200, 5], vec![told("1", 16), told("2", 1)])] {
        world.suspects = Some(waiting);
        world.converge();
        assert_eq!(for_suspects(&world), wanted);
    }
    world.suspects = None;
    world.converge();
    assert_eq!(for_suspects(&world), [told("1", 16), told("2", 1)], "nobody knows, so all stays");
    world.suspects = Some(vec![0, 0]);
    let mut worker = holding("Unreachable");
    worker.status.as_mut().unwrap().role = "suspects-2".to_owned();
    world.workers = vec![worker];
    world.converge();
    assert_eq!(for_suspects(&world), [told("1", 0), told("2", 1)], "the last of them holds one");
    world.workers.clear();
    world.converge();
    assert_eq!(for_suspects(&world), [told("1", 0), told("2", 0)]);
}

#[test]
fn suspects_are_left_to_the_revision_that_works() {
    let mut world = with_handler();
    world.suspects = Some(vec![1, 0]);
    world.step();
    assert_eq!(for_suspects(&world), [], "none is active yet");
    world.converge();
    assert_eq!(for_suspects(&world).len(), 1);
    let before = world.owned.suspects.clone();
    world.edit(|s| s.source.prefetch = Some(7));
    world.step();
    assert_eq!(world.owned.suspects, before, "the new one is on its way");
}

#[test]
fn suspects_are_worked_on_while_the_spec_asks_for_one_that_was_given_up() {
    let mut world = with_handler();
    world.suspects = Some(vec![1, 0]);
    world.converge();
    let pods = world.owned.suspects[0].spec.clone().unwrap().template;
    world.suspects = Some(vec![0, 0]);
    world.converge();
    world.edit(|s| s.worker.get_or_insert_default().image = Some("registry.example/mine:2".to_owned()));
    world.does = Evidence { waiting_seconds: 600.0, ..Evidence::default() };
    world.step();
    world.step();
    assert_eq!(reason(&world, "Ready"), "False RolloutAborted");
    world.suspects = Some(vec![300, 1]);
    world.converge();
    let told = |name: &str, replicas| (format!("p-suspects-{name}"), replicas);
    assert_eq!(for_suspects(&world), [told("1", 2), told("2", 1)]);
    assert_eq!(world.owned.suspects[0].spec.clone().unwrap().template, pods, "by the revision that works");
}

#[test]
fn workers_for_suspects_are_those_of_the_revision_and_read_another_queue() {
    let mut world = with_handler();
    world.suspects = Some(vec![1, 0]);
    world.converge();
    let found = world.owned.suspects[0].spec.clone().unwrap();
    let pod = found.template.spec.unwrap();
    let env = pod.containers[0].env.clone().unwrap();
    let value = |name: &str| env.iter().find(|e| e.name == name).and_then(|e| e.value.clone());
    assert_eq!(value("DROVER_ROLE").as_deref(), Some("suspects-1"));
    assert_eq!(value("DROVER_LAST_EXIT_FILE").as_deref(), Some("/run/drover/pod/last-exit"));
    assert_eq!(pod.containers[0].volume_mounts.as_ref().unwrap().last().unwrap().mount_path, "/run/drover/pod");
    assert_eq!(pod.init_containers.unwrap()[0].name, "handler");
    let labels = found.template.metadata.unwrap().labels.unwrap();
    assert!(!labels.contains_key(names::REVISION), "or the revision's Deployment would take them for its own");
    assert!(found.selector.match_labels.unwrap().iter().all(|(name, value)| labels.get(name) == Some(value)));
}

/// A pod of a pipeline whose handler is backed off after so many seconds of life.
fn backed_off(label: &str, seconds: i64) -> Pod {
    let time = |seconds: i64| format!("2026-01-01T00:00:{seconds:02}Z");
    serde_json::from_value(json!({
        "metadata": {"name": format!("pod-{label}-{seconds}"), "labels": {"drover.dev/pipeline": "p", label: "1"}},
        "status": {"initContainerStatuses": [{
            "name": "handler", "image": "i", "imageID": "", "ready": false, "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 139, "startedAt": time(0), "finishedAt": time(seconds)}},
        }]},
    }))
    .unwrap()
}

#[test]
fn a_pod_that_died_at_work_is_replaced_and_a_broken_one_is_not() {
    let mut world = with_handler();
    world.converge();
    for (label, seconds) in [("drover.dev/revision", 9), ("drover.dev/revision", 1), ("drover.dev/suspects", 1)] {
        world.owned.pods.push(backed_off(label, seconds).into());
    }
    let replaced =
        [Doomed::Pod("pod-drover.dev/revision-9".to_owned()), Doomed::Pod("pod-drover.dev/suspects-1".to_owned())];
    assert_eq!(world.plan().deletes, replaced);
}

#[test]
fn workers_for_suspects_are_told_how_a_container_ended_last() {
    let mut world = with_handler();
    world.suspects = Some(vec![1, 0]);
    world.converge();
    assert_eq!(world.plan().marks, [], "nothing has ended");
    for (label, seconds) in [("drover.dev/revision", 9), ("drover.dev/revision", 4), ("drover.dev/suspects", 1)] {
        world.owned.pods.push(backed_off(label, seconds).into());
    }
    let mark = |value: &str| Mark {
        pod: "pod-drover.dev/suspects-1".to_owned(),
        annotation: names::LAST_EXIT,
        value: value.to_owned(),
    };
    assert_eq!(world.plan().marks, [mark("2026-01-01T00:00:09Z handler: exit code 139, SIGSEGV")], "the newest, once");
    for (known, told) in [("2026-01-01T00:00:09Z handler: exit code 139, SIGSEGV", 0), ("2026-01-01T00:00:08Z", 1)] {
        let mut pod = backed_off("drover.dev/suspects", 1);
        pod.metadata.annotations = Some([(names::LAST_EXIT.to_owned(), known.to_owned())].into());
        *world.owned.pods.last_mut().unwrap() = pod.into();
        assert_eq!(world.plan().marks.len(), told, "{known}");
    }
    let mut killed = backed_off("drover.dev/revision", 10);
    let status = &mut killed.status.as_mut().unwrap().init_container_statuses.as_mut().unwrap()[0];
    let ended = status.last_state.as_mut().unwrap().terminated.as_mut().unwrap();
    (ended.exit_code, ended.reason) = (137, Some("OOMKilled".to_owned()));
    world.owned.pods.push(killed.into());
    assert_eq!(world.plan().marks, [mark("2026-01-01T00:00:10Z handler: OOMKilled (exit code 137, SIGKILL)")]);
}

#[test]
fn dead_letters_that_have_nowhere_to_go_are_told_apart_from_a_sink_that_is_down() {
    let mut world = running();
    assert_eq!(reason(&world, "DeadLetterSafe"), "True Safe");
    let at = |stage: &str, reason: &str| {
        let mut worker = holding(reason);
        worker.status.as_mut().unwrap().holding.as_mut().unwrap().stage = stage.to_owned();
        vec![worker]
    };
    for (stage, why, conditions) in [
        ("sink", "Unreachable", ["False SinkRefuses", "True Safe", "True Running"]),
        ("deadLetter", "DeadLetterRefused", ["True TableFits", "False DeadLetterRefused", "True Running"]),
        ("suspects", "Unreachable", ["True TableFits", "False Unreachable", "True Running"]),
        ("handler", "HandlerDied", ["True TableFits", "True Safe", "False HandlerFails"]),
    ] {
        world.workers = at(stage, why);
        world.step();
        assert_eq!(["StoreReady", "DeadLetterSafe", "WorkersReady"].map(|type_| reason(&world, type_)), conditions);
        assert!(reason(&world, "Ready").starts_with("False"), "{stage}");
    }
    world.workers.clear();
    world.hub = External::Fine(super::super::snapshot::HubFacts { dead: 1_000_000, oldest: None });
    world.step();
    assert_eq!(reason(&world, "DeadLetterSafe"), "False DeadLettersFull");
    assert_eq!(world.status().phase, Some(Phase::Holding));
}

#[test]
fn a_host_that_is_not_allowed_ends_every_worker_and_deletes_nothing() {
    let mut world = with_handler();
    world.suspects = Some(vec![1, 0]);
    world.converge();
    let old = world.deployments();
    world.refused = Some(Problem::new("HostNotAllowed", "evil"));
    let plan = world.step();
    assert!(plan.deletes.is_empty() && plan.redrive.is_none());
    assert_eq!((world.deployments(), world.asked()), (old, 0));
    assert!(world.owned.suspects.iter().all(|d| d.spec.as_ref().unwrap().replicas == Some(0)));
    assert_eq!(reason(&world, "Accepted"), "False HostNotAllowed");
    assert_eq!((reason(&world, "HubReady").as_str(), world.status().phase), ("True Connected", Some(Phase::Refused)));
    assert!(world.step().writes.is_empty(), "once");
    (world.refused, world.suspects) = (None, None);
    world.decided(1);
    world.converge();
    assert_eq!((world.asked(), reason(&world, "Ready").as_str()), (1, "True Ready"));
}

#[test]
fn a_spec_that_is_refused_for_itself_leaves_workers_as_they_are() {
    let mut world = running();
    world.refused = Some(Problem::new("InvalidSpec", "wrong"));
    assert!(world.step().writes.is_empty());
    assert_eq!(world.asked(), 1);
}

#[test]
fn pods_that_a_quota_refuses_are_told_apart_from_others_that_are_not_created() {
    for (text, told) in [
        (
            "pods \"p-1\" is forbidden: exceeded quota: small, requested: pods=1, used: pods=0, limited: pods=0",
            "QuotaExceeded",
        ),
        ("pods \"p-1\" is forbidden: violates PodSecurity", "PodsRefused"),
    ] {
        let mut world = World::new(spec());
        world.step();
        let live = std::sync::Arc::make_mut(&mut world.owned.deployments[0]);
        let condition = json!({ "type": "ReplicaFailure", "status": "True", "message": text });
        live.status = serde_json::from_value(json!({ "conditions": [condition] })).unwrap();
        world.step();
        assert_eq!(reason(&world, "WorkersReady"), format!("False {told}"));
    }
}

#[test]
fn users_that_are_missing_keep_a_revision_from_starting_and_not_from_being_sized() {
    let problem = || Some(Problem::new("ManagementUnreachable", "it is not reached"));
    let found = |problem| Found { problem, ..Found::default() };
    let fine = || External::Fine(());
    assert!(with_users(fine(), None).is_fine() && with_users(fine(), Some(found(None))).is_fine());
    assert!(!with_users(fine(), Some(found(problem()))).is_fine());
    let before = Problem::new("AccessRefused", "no");
    let kept = with_users(External::<()>::Problem(before.clone()), Some(found(problem())));
    assert_eq!(kept, External::Problem(before), "the first cause is told");
    let mut world = running();
    world.hub = External::Problem(problem().unwrap());
    world.decided(3);
    world.step();
    assert_eq!(world.replicas(&world.deployments()[0]), 3);
    assert_eq!(reason(&world, "HubReady"), "False ManagementUnreachable");
}

#[test]
fn a_password_that_cannot_be_renewed_is_told_with_its_user() {
    let mut world = running();
    let held_up = vec!["drover.n.p.0.worker-a".to_owned()];
    world.secrets.as_mut().unwrap().minted = Some(Found { held_up, ..Found::default() });
    world.step();
    let told = find(&world.status().conditions, "HubReady").map(|c| c.message.clone()).unwrap();
    assert!(told.contains("drover.n.p.0.worker-a"), "{told}");
    assert_eq!(reason(&world, "HubReady"), "True UsersInUse");
    let unmade = vec![("p-hub-publisher".to_owned(), ["a".to_owned(), "b".to_owned()])];
    world.secrets.as_mut().unwrap().minted = Some(Found { unmade, ..Found::default() });
    world.step();
    let told = find(&world.status().conditions, "HubReady").map(|c| c.message.clone()).unwrap();
    assert!(told.contains("p-hub-publisher") && told.contains("as a or as b"), "{told}");
    assert_eq!(reason(&world, "HubReady"), "True UsersInUse");
}

#[test]
fn a_management_api_is_on_an_allowed_host_and_asked_for_only_where_users_are_made() {
    let secret = serde_json::from_value(json!({"name": "hub"})).unwrap();
    let data = |management: &str| {
        let keys = [("uri", "amqps://u:p@good.example/"), ("managementUri", management)];
        keys.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    };
    let allowed = "good.example".parse().unwrap();
    let found = |management, minted| hub_and_management(&allowed, &secret, &data(management), minted);
    let (hub, management) = found("https://good.example:15671", true);
    assert!(management.is_some_and(|m| m.is_ok()));
    let (_, refused) = found("https://evil.example:15671", true);
    let problem = refused.unwrap().unwrap_err();
    assert_eq!(problem.reason, "HostNotAllowed");
    assert!(problem.message.contains("key managementUri of secret hub"), "{}", problem.message);
    let (plain, none) = found("https://evil.example:15671", false);
    assert!(none.is_none());
    assert_ne!(hub.unwrap().1, plain.unwrap().1, "the given user's password is read by no worker");
}
