//! A message that kills its handler costs one message, in a pod as the kubelet runs it.

use anyhow::{Result, ensure};
use drover_e2e::pipeline::{NAME, condition, manifest, message};
use drover_e2e::surroundings::variable;
use drover_e2e::trial::{Trial, trial};
use drover_e2e::until::until;
use serde_json::{Value, json};
use std::time::Duration;

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
