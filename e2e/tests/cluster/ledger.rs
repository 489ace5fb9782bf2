//! Nothing is lost and nothing is written twice, whatever ends at whatever time: workers, operator, hub, store.
//!
//! Each fault strikes while messages are unacknowledged, and must leave a trace; one that leaves none has proved nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::IngestPipeline;
use drover_crds::resolved::WORKER_PORT;
use drover_e2e::pipeline::{NAME, READY, SEEN, manifest};
use drover_e2e::publisher::Publisher;
use drover_e2e::sigkill::sigkill;
use drover_e2e::store::Each;
use drover_e2e::trial::{Trial, lone_trial};
use drover_e2e::until::until;
use drover_e2e::{operator, shell};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

/// A worker is killed so often.
const KILL_EVERY: Duration = Duration::from_secs(2);

/// Workers that run.
const WORKERS: u32 = 2;

/// How much, and how hard.
struct Plan {
    messages: u32,
    over: Duration,
    /// Unacknowledged messages at which a fault may strike.
    unacknowledged: u64,
}

/// What ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Worker,
    Operator,
    Hub,
    Store,
}

/// Each must strike; the hub early, to meet the publisher too. Then workers die until all is published.
const FAULTS: [Fault; 6] = [Fault::Worker, Fault::Hub, Fault::Operator, Fault::Store, Fault::Worker, Fault::Operator];

/// Messages that each worker holds or writes, of those that answer.
type Held = BTreeMap<String, u64>;

/// The worker pods, and what they hold.
async fn held(t: &Trial) -> Result<(Vec<Pod>, Held)> {
    let pods = t.workers(NAME).await?;
    let mut held = Held::new();
    for name in pods.iter().map(Pod::name_any) {
        // One that starts or ends does not answer.
        let Ok(status) = t.ask(&name, WORKER_PORT, "status").await else { continue };
        let status: Value = serde_json::from_str(&status).context("/status is not JSON")?;
        let number = |field: &str| status[field].as_u64().with_context(|| format!("/status has no {field}: {status}"));
        held.insert(name, number("inFlight")? + number("held")?);
    }
    Ok((pods, held))
}

/// Waits until enough is unacknowledged.
async fn loaded(t: &Trial, plan: &Plan) -> Result<(Vec<Pod>, Held)> {
    until(READY, async || {
        let (pods, held) = held(t).await?;
        let now: u64 = held.values().sum();
        ensure!(
            now >= plan.unacknowledged,
            "only {now} messages are unacknowledged: the fault would meet nobody at work"
        );
        Ok((pods, held))
    })
    .await
}

/// Strikes, and waits for the trace that it must leave.
async fn strike(t: &Trial, fault: Fault, plan: &Plan) -> Result<()> {
    let (pods, held) = loaded(t, plan).await?;
    match fault {
        Fault::Worker => {
            let victim = pods.iter().max_by_key(|pod| held.get(&pod.name_any())).context("no worker")?;
            let before = t.hub.redelivered(NAME).await?;
            sigkill(&t.cluster, victim).await?;
            until(READY, async || {
                let now = t.hub.redelivered(NAME).await?;
                ensure!(now > before, "{} was killed, and nothing was redelivered", victim.name_any());
                Ok(())
            })
            .await?;
        }
        Fault::Operator => {
            let before = operator::pod(&t.client).await?;
            sigkill(&operator::namespace(&t.client), &before).await?;
            until(READY, async || {
                let now = operator::pod(&t.client).await?;
                ensure!(now.uid() != before.uid(), "the operator was not ended");
                Ok(())
            })
            .await?;
        }
        Fault::Hub => {
            shell::service("rabbitmq", "restart").await?;
            // Every connection of before has ended with the server.
            until(SEEN, async || {
                let depth = t.hub.depth(NAME).await?.context("the queue did not survive")?;
                ensure!(depth.consumers > 0, "no worker has come back to the hub");
                Ok(())
            })
            .await?;
        }
        Fault::Store => {
            ensure!(t.store.worker_connections().await? > 0, "no worker is connected to the store");
            shell::service("postgres", "restart").await?;
            until(SEEN, async || {
                ensure!(t.store.worker_connections().await? > 0, "no worker has come back to the store");
                Ok(())
            })
            .await?;
        }
    }
    eprintln!("ledger: {fault:?} ended while {held:?} were unacknowledged");
    Ok(())
}

/// Each of the faults once, and workers again and again until all is published.
async fn strike_all(t: &Trial, publisher: &Publisher, plan: &Plan) -> Result<()> {
    let mut faults = FAULTS.into_iter();
    let mut next = Instant::now() + KILL_EVERY;
    loop {
        let fault = match faults.next() {
            Some(fault) => fault,
            None if publisher.is_done() => return Ok(()),
            None => Fault::Worker,
        };
        sleep_until(next).await;
        strike(t, fault, plan).await.with_context(|| format!("{fault:?}"))?;
        next = (next + KILL_EVERY).max(Instant::now());
    }
}

async fn balances(t: &Trial, plan: &Plan) -> Result<()> {
    let mut manifest = manifest(NAME);
    manifest["spec"]["scaling"]["replicas"] = WORKERS.into();
    manifest["spec"]["source"]["prefetch"] = 2_000.into();
    t.telemetry_as(&manifest).await?;
    // So that messages are on their way when a fault strikes.
    t.store.slow(NAME, Each::Statement, 0.5).await?;
    let publisher = Publisher::new(plan.messages, plan.over);
    let faults = async {
        let struck = strike_all(t, &publisher, plan).await;
        t.store.slow(NAME, Each::Statement, 0.0).await?;
        struck
    };
    let (flow, struck) = tokio::join!(publisher.run(&t.hub), faults);
    struck?;
    flow?;
    ensure!(publisher.connections() > 1, "the publisher did not notice that the hub was gone");
    t.rows(READY, 0..plan.messages).await?;
    t.no_dead_letters().await?;
    until(READY, async || {
        ensure!(t.hub.ready(NAME).await? == 0, "messages are left in the queue");
        Ok(())
    })
    .await?;
    t.stands(NAME, SEEN, "Ready", "True", None).await.map(drop::<IngestPipeline>)
}

#[tokio::test]
async fn rows_are_the_messages_each_once_whatever_ends() -> Result<()> {
    let plan = Plan { messages: 10_000, over: Duration::from_secs(20), unacknowledged: 100 };
    lone_trial("ledger", async |t| balances(t, &plan).await).await
}

#[tokio::test]
#[ignore = "takes three minutes"]
async fn rows_are_the_messages_each_once_whatever_ends_with_a_hundred_thousand() -> Result<()> {
    let plan = Plan { messages: 100_000, over: Duration::from_mins(1), unacknowledged: 1_000 };
    lone_trial("ledger-long", async |t| balances(t, &plan).await).await
}
