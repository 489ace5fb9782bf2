//! How many workers run follows from what waits in the hub.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{IngestPipeline, WindowQuery};
use drover_crds::resolved::WORKER_PORT;
use drover_e2e::cluster::is_ready;
use drover_e2e::pipeline::{FLOW, NAME, READY, SEEN, condition, manifest, messages};
use drover_e2e::publisher::Publisher;
use drover_e2e::query::{self, CLOSED, COUNTS, Published};
use drover_e2e::shell;
use drover_e2e::surroundings::variable;
use drover_e2e::trial::{Trial, lone_trial, trial};
use drover_e2e::until::{throughout, until};
use futures::StreamExt as _;
use kube::ResourceExt;
use kube::api::{WatchEvent, WatchParams};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

/// A load that does not change, for so long.
const STEADY: Duration = Duration::from_mins(1);

/// A cooldown of five seconds, the shortest that may be, and what else is given.
fn scaled(more: &Value) -> Value {
    let mut pipeline = manifest(NAME);
    let scaling = &mut pipeline["spec"]["scaling"];
    *scaling = json!({ "mode": "Auto", "cooldownSeconds": 5 });
    for (field, value) in more.as_object().into_iter().flatten() {
        scaling[field] = value.clone();
    }
    pipeline
}

async fn desired(t: &Trial) -> Result<(i32, String)> {
    let status = t.api::<IngestPipeline>().get(NAME).await?.status.unwrap_or_default();
    let scale = status.scale.context("no status.scale")?;
    Ok((scale.desired, scale.reason))
}

/// Waits until so many workers run, all of them ready.
async fn workers(t: &Trial, expected: Duration, wanted: usize) -> Result<()> {
    until(expected, async || {
        let pods = t.workers(NAME).await?;
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        ensure!((pods.len(), ready) == (wanted, wanted), "{ready} of {} pods are ready, not {wanted}", pods.len());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pipeline_starts_from_zero_with_the_first_message_and_goes_back_to_zero() -> Result<()> {
    trial("zero", async |t| {
        t.telemetry_as(&scaled(&json!({}))).await?;
        workers(t, READY, 0).await?;
        t.publish(0..1).await?;
        t.rows(FLOW, 0..1).await?;
        workers(t, SEEN, 0).await?;
        t.publish(1..200).await?;
        t.rows(FLOW, 0..200).await?;
        workers(t, SEEN, 0).await?;
        t.no_dead_letters().await
    })
    .await
}

/// While the hub is stopped or suspended; it is back in any case.
async fn without_the_hub(stop: &str, start: &str, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    shell::service("rabbitmq", stop).await?;
    let outcome = test().await;
    shell::service("rabbitmq", start).await?;
    outcome
}

async fn scaled_for(t: &Trial, reason: &str) -> Result<()> {
    until(SEEN * 2, async || {
        let (_, told) = desired(t).await?;
        ensure!(told == reason, "the reason is {told}, not {reason}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_a_hub_what_runs_stays_and_where_nothing_runs_the_fallback_does() -> Result<()> {
    lone_trial("blind", async |t| {
        t.telemetry_as(&scaled(&json!({ "minReplicas": 2 }))).await?;
        workers(t, READY, 2).await?;
        // A hub that is stopped refuses, one that is suspended says nothing.
        for (stop, start) in [("suspend", "resume"), ("stop", "start")] {
            without_the_hub(stop, start, async || {
                scaled_for(t, "HubUnreadable").await?;
                t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "scaling": { "minReplicas": 0 } } })).await?;
                t.stands(NAME, SEEN * 2, "HubReady", "False", None).await?;
                throughout(Duration::from_secs(6), async || {
                    ensure!(t.workers(NAME).await?.len() == 2, "workers were removed");
                    Ok(())
                })
                .await
            })
            .await?;
            t.stands(NAME, SEEN * 2, "HubReady", "True", None).await?;
            t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "scaling": { "minReplicas": 2 } } })).await?;
            workers(t, SEEN, 2).await?;
        }
        t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "scaling": { "minReplicas": 0 } } })).await?;
        workers(t, SEEN * 2, 0).await?;
        without_the_hub("stop", "start", async || {
            scaled_for(t, "Fallback").await?;
            until(SEEN, async || {
                ensure!(t.workers(NAME).await?.len() == 1, "the fallback does not run");
                Ok(())
            })
            .await
        })
        .await?;
        // No more than the fallback on the way back to nothing.
        until(SEEN * 3, async || {
            let pods = t.workers(NAME).await?.len();
            ensure!(pods == 0, "{pods} workers run");
            Ok(())
        })
        .await?;
        t.publish(0..50).await?;
        t.rows(READY, 0..50).await?;
        t.no_dead_letters().await
    })
    .await
}

#[tokio::test]
async fn a_query_at_zero_without_a_hub_has_its_fallback_and_wakes_when_the_hub_is_back() -> Result<()> {
    lone_trial("blind-query", async |t| {
        let mut query = query::manifest(COUNTS);
        query["spec"]["scaling"] = json!({ "mode": "Auto", "cooldownSeconds": 5 });
        t.query(&query).await?;
        t.query_has_workers(SEEN * 2, 0).await?;
        without_the_hub("stop", "start", async || {
            until(SEEN * 2, async || {
                let status = t.api::<WindowQuery>().get(COUNTS).await?.status.unwrap_or_default();
                let reason = status.scale.context("no status.scale")?.reason;
                let pods = t.query_workers().await?.len();
                ensure!((&*reason, pods) == ("Fallback", 1), "{pods} workers because of {reason}");
                Ok(())
            })
            .await
        })
        .await?;
        t.query_has_workers(SEEN * 3, 0).await?;
        let mut published = Published::default();
        t.publish_event(0, &mut published).await?;
        t.has_windows(CLOSED * 2, &published).await
    })
    .await
}

/// Suspends the process that leads a queue, or lets it go on.
async fn leader(t: &Trial, what: &str) -> Result<()> {
    let expression = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{}\">>, queue, <<\"{NAME}\">>)), {{Name, _}} = amqqueue:get_pid(Q), \
         sys:{what}(whereis(Name)).",
        t.hub.name
    );
    shell::run(&variable("DROVER_TEST_CTL")?, &["test", "rabbitmq", "eval", &expression]).await.map(drop)
}

#[tokio::test]
async fn a_queue_whose_leader_stands_still_costs_no_worker() -> Result<()> {
    trial("leader", async |t| {
        t.telemetry_as(&scaled(&json!({ "minReplicas": 2 }))).await?;
        workers(t, READY, 2).await?;
        leader(t, "suspend").await?;
        let held = async {
            t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "scaling": { "minReplicas": 0 } } })).await?;
            scaled_for(t, "HubUnreadable").await?;
            // The cooldown and more.
            throughout(Duration::from_secs(8), async || {
                ensure!(t.workers(NAME).await?.len() == 2, "workers were removed");
                Ok(())
            })
            .await
        };
        let held = held.await;
        leader(t, "resume").await?;
        held?;
        workers(t, SEEN * 2, 0).await?;
        t.publish(0..50).await?;
        t.rows(READY, 0..50).await?;
        t.no_dead_letters().await
    })
    .await
}

#[tokio::test]
async fn recommend_reports_and_changes_nothing() -> Result<()> {
    trial("recommend", async |t| {
        t.telemetry_as(&scaled(&json!({ "mode": "Recommend", "replicas": 2 }))).await?;
        workers(t, READY, 2).await?;
        until(SEEN, async || {
            let (desired, reason) = desired(t).await?;
            ensure!((desired, reason.as_str()) == (0, "Idle"), "{desired} {reason}");
            Ok(())
        })
        .await?;
        workers(t, READY, 2).await
    })
    .await
}

/// The workers that hold a message.
async fn busy(t: &Trial) -> Result<BTreeSet<String>> {
    let mut busy = BTreeSet::new();
    for pod in t.workers(NAME).await? {
        let status: Value = serde_json::from_str(&t.ask(&pod.name_any(), WORKER_PORT, "status").await?)?;
        if status["inFlight"].as_u64().context("no inFlight")? > 0 {
            busy.insert(pod.name_any());
        }
    }
    Ok(busy)
}

/// Messages of a minute each: three workers have one, seven have none.
#[tokio::test]
async fn busy_workers_survive_a_scale_down() -> Result<()> {
    trial("spared", async |t| {
        let mut pipeline = scaled(&json!({ "minReplicas": 10, "maxReplicas": 10 }));
        pipeline["spec"]["worker"] = json!({ "concurrency": 1 });
        pipeline["spec"]["source"]["prefetch"] = json!(1);
        let image = variable("DROVER_TEST_HANDLER_IMAGE")?;
        pipeline["spec"]["transform"] = json!({ "handler": { "image": image, "timeoutSeconds": 90 } });
        t.telemetry_as(&pipeline).await?;
        workers(t, READY * 2, 10).await?;
        let slow = |body: Vec<u8>| -> Result<Vec<u8>> {
            let mut body: Value = serde_json::from_slice(&body)?;
            body["seconds"] = 60.into();
            Ok(body.to_string().into_bytes())
        };
        let bodies = messages(0..3).into_iter().map(slow).collect::<Result<Vec<_>>>()?;
        t.hub.publish("amq.topic", "devices.1", &bodies).await?;
        let before = until(FLOW, async || {
            let busy = busy(t).await?;
            ensure!(busy.len() == 3, "{busy:?} are busy, not three");
            Ok(busy)
        })
        .await?;
        let scaling = json!({ "spec": { "scaling": { "minReplicas": 0 } } });
        t.merge::<IngestPipeline>(NAME, &scaling).await?;
        workers(t, SEEN, 3).await?;
        let left: BTreeSet<String> = t.workers(NAME).await?.iter().map(ResourceExt::name_any).collect();
        ensure!(left == before, "{before:?} were busy, {left:?} are left");
        t.rows(READY * 8, 0..3).await?;
        ensure!(t.hub.redelivered(NAME).await? == 0, "a message was taken from a worker");
        t.no_dead_letters().await
    })
    .await
}

#[tokio::test]
async fn the_sink_limit_says_nothing_where_there_is_none() -> Result<()> {
    trial("limit", async |t| {
        t.telemetry_as(&scaled(&json!({}))).await?;
        t.publish(0..20).await?;
        t.rows(FLOW, 0..20).await?;
        t.awaits(NAME, SEEN, |pipeline: &IngestPipeline| {
            let found = condition(pipeline, "SinkLimited").context("no condition")?;
            ensure!(found.status == "False", "{}", found.message);
            Ok(())
        })
        .await?;
        Ok(())
    })
    .await
}

/// What a status says besides numbers: whoever waits for it must learn of it at once.
fn decision(pipeline: &IngestPipeline) -> String {
    let status = pipeline.status.clone().unwrap_or_default();
    let conditions: Vec<_> = status.conditions.iter().map(|c| (&c.type_, &c.status, &c.reason)).collect();
    let scale = status.scale.as_ref().map(|s| (s.desired, &s.reason));
    format!("{:?} {:?} {scale:?} {conditions:?}", status.phase, status.active_revision)
}

#[tokio::test]
async fn under_a_steady_load_numbers_are_written_every_fifteen_seconds_at_most() -> Result<()> {
    trial("steady", async |t| {
        let pipeline = t.telemetry_as(&scaled(&json!({ "minReplicas": 1 }))).await?;
        let parameters = WatchParams::default().fields(&format!("metadata.name={NAME}"));
        let version = pipeline.resource_version().unwrap_or_default();
        let mut changes = pin!(t.api::<IngestPipeline>().watch(&parameters, &version).await?);
        let publisher = Publisher::new(12_000, STEADY);
        let watching = async {
            let (mut numbers, mut before, mut seen) = (Vec::new(), decision(&pipeline), pipeline.status.clone());
            let start = Instant::now();
            while let Ok(Some(change)) = timeout_at(start + STEADY, changes.next()).await {
                let WatchEvent::Modified(now) = change? else { continue };
                let (after, status) = (decision(&now), now.status.clone());
                if after == before && status != seen {
                    numbers.push(start.elapsed());
                }
                (before, seen) = (after, status);
            }
            Ok(numbers)
        };
        let (numbers, ()) = tokio::try_join!(watching, publisher.run(&t.hub))?;
        let most = usize::try_from(STEADY.as_secs() / 15 + 1)?;
        ensure!(
            numbers.len() <= most,
            "written {} times where nothing but numbers changed: {numbers:?}",
            numbers.len()
        );
        t.rows(FLOW, 0..12_000).await
    })
    .await
}
