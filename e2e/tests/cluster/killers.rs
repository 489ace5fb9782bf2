//! A message that kills its handler costs one message, in a pod as the kubelet runs it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use drover_e2e::pipeline::{NAME, condition, manifest, message};
use drover_e2e::publisher::Publisher;
use drover_e2e::surroundings::variable;
use drover_e2e::trial::{Trial, trial};
use drover_e2e::until::until;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// All kinds, and of each the word in a message.
const KINDS: [&str; 5] = ["abort", "memory", "exit", "stack", "loop"];
/// The killer is found, and all others are through.
const DONE: Duration = Duration::from_mins(1);
const MESSAGES: u32 = 200;
const KILLER: u32 = 77;

fn handled(prefetch: u16) -> Result<Value> {
    let mut pipeline = manifest(NAME);
    pipeline["spec"]["transform"] = json!({ "handler": {
        "image": variable("DROVER_TEST_HANDLER_IMAGE")?,
        "timeoutSeconds": 2,
        "resources": { "limits": { "memory": "96Mi" } },
    } });
    pipeline["spec"]["source"]["prefetch"] = prefetch.into();
    pipeline["spec"]["retry"] = json!({ "attempts": 2 });
    Ok(pipeline)
}

fn killer(number: u32, kind: &str) -> Result<Vec<u8>> {
    let mut body: Value = serde_json::from_slice(&message(number))?;
    body["kill"] = kind.into();
    Ok(body.to_string().into_bytes())
}

async fn count(t: &Trial) -> Result<i64> {
    t.store.admin.number(&format!("select count(*) from {NAME}")).await
}

async fn one_killer(kind: &str, prefetch: u16) -> Result<()> {
    trial(&format!("killer-{kind}"), async |t| {
        t.telemetry_as(&handled(prefetch)?).await?;
        let mut bodies = drover_e2e::pipeline::messages(0..MESSAGES);
        bodies[usize::try_from(KILLER)?] = killer(KILLER, kind)?;
        t.hub.publish("amq.topic", "devices.1", &bodies).await?;
        until(DONE, async || {
            let (rows, dead) = (count(t).await?, t.dead_letters().await?.len());
            ensure!((rows, dead) == (i64::from(MESSAGES) - 1, 1), "{rows} rows and {dead} dead letters");
            Ok(())
        })
        .await?;
        let dead = t.dead_letters().await?;
        let told = dead[0].headline();
        ensure!(told.contains("KilledWorker"), "{told}");
        let ended = if kind == "memory" { "handler: OOMKilled" } else { "" };
        ensure!(told.contains(ended), "{told}");
        let rows =
            t.store.admin.number(&format!("select count(*) from {NAME} where message_id = 'm-{KILLER:06}'")).await?;
        ensure!(rows == 0, "the killer is a row");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_message_that_aborts_its_handler_is_the_only_dead_letter() -> Result<()> {
    one_killer("abort", 50).await
}

#[tokio::test]
async fn a_message_that_takes_all_memory_is_the_only_dead_letter() -> Result<()> {
    one_killer("memory", 200).await
}

#[tokio::test]
#[ignore = "slow: every kind with a small and a large prefetch"]
async fn a_killer_of_any_kind_is_the_only_dead_letter() -> Result<()> {
    for kind in KINDS {
        for prefetch in [50, 200] {
            one_killer(kind, prefetch).await?;
        }
    }
    Ok(())
}

/// Pods of the pipeline that the kubelet lets wait before it starts a container again.
async fn in_back_off(t: &Trial) -> Result<BTreeSet<String>> {
    let pods = t.list::<Pod>(&format!("drover.dev/pipeline={NAME}")).await?;
    let waits = |pod: &&Pod| {
        let statuses = pod.status.as_ref().map(|s| (&s.container_statuses, &s.init_container_statuses));
        let all = statuses.into_iter().flat_map(|(main, init)| main.iter().flatten().chain(init.iter().flatten()));
        let mut reasons = all.filter_map(|c| c.state.as_ref()?.waiting.as_ref()?.reason.as_deref());
        pod.metadata.deletion_timestamp.is_none() && reasons.any(|reason| reason == "CrashLoopBackOff")
    };
    Ok(pods.iter().filter(waits).map(ResourceExt::name_any).collect())
}

#[tokio::test]
async fn ten_killers_a_minute_cost_themselves_and_the_others_go_on() -> Result<()> {
    const OTHERS: u32 = 6_000;
    const KILLERS: u32 = 10;
    trial("killers", async |t| {
        let mut manifest = handled(50)?;
        manifest["spec"]["scaling"]["replicas"] = 3.into();
        t.telemetry_as(&manifest).await?;
        let publisher = Publisher::new(OTHERS, Duration::from_mins(1));
        let killers = async {
            for number in 0..KILLERS {
                tokio::time::sleep(Duration::from_secs(5)).await;
                t.hub.publish("amq.topic", "devices.1", &[killer(900_000 + number, "exit")?]).await?;
            }
            anyhow::Ok(())
        };
        let waits = async {
            let mut since: BTreeMap<String, Instant> = BTreeMap::new();
            let mut longest = Duration::ZERO;
            loop {
                let now = in_back_off(t).await?;
                since.retain(|pod, _| now.contains(pod));
                for pod in now {
                    longest = longest.max(since.entry(pod).or_insert_with(Instant::now).elapsed());
                }
                ensure!(longest < Duration::from_secs(10), "a pod is left to the kubelet's back-off: {since:?}");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        let load = async { tokio::try_join!(publisher.run(&t.hub), killers) };
        tokio::select! {
            ended = load => { ended?; }
            ended = waits => { let (): () = ended?; }
        }
        let done = count(t).await?;
        eprintln!("killers: {done} of {OTHERS} are rows when the last is published");
        ensure!(done >= i64::from(OTHERS) * 9 / 10, "{done} of {OTHERS} are rows when the last is published");
        t.rows(DONE, 0..OTHERS).await?;
        until(DONE, async || {
            let dead = t.dead_letters().await?;
            ensure!(dead.len() == KILLERS as usize, "{} dead letters", dead.len());
            ensure!(dead.iter().all(|letter| letter.headline().contains("KilledWorker")), "{dead:?}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_dependency_that_is_down_for_longer_than_all_tries_costs_no_message() -> Result<()> {
    trial("busy", async |t| {
        t.telemetry_as(&handled(50)?).await?;
        let busy: Result<Vec<_>> = (0..50).map(|n| killer(n, "busy")).collect();
        t.hub.publish("amq.topic", "devices.1", &busy?).await?;
        t.awaits(NAME, DONE, |pipeline: &drover_crds::api::IngestPipeline| {
            let workers = condition(pipeline, "WorkersReady").map(|c| (c.status.clone(), c.reason.clone()));
            ensure!(workers == Some(("False".to_owned(), "HandlerFails".to_owned())), "{workers:?}");
            Ok(())
        })
        .await?;
        t.no_dead_letters().await
    })
    .await
}
