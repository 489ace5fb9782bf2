//! Nothing is lost and nothing is written twice, whatever ends at whatever time: workers, operator, hub, store.
//!
//! Each fault strikes while messages are unacknowledged, and must leave a trace; one that leaves none has proved nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::IngestPipeline;
use drover_e2e::cluster::PORT;
use drover_e2e::pipeline::{NAME, READY, SEEN, manifest};
use drover_e2e::publisher::Publisher;
use drover_e2e::sigkill::sigkill;
use drover_e2e::surroundings::variable;
use drover_e2e::trial::{Trial, lone_trial};
use drover_e2e::until::until;
use drover_e2e::{metrics, operator, shell};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

/// A worker is killed so often.
const KILL_EVERY: Duration = Duration::from_secs(2);

/// Workers that run.
const WORKERS: u32 = 2;

/// Counted by a worker for each delivery that was delivered before.
const REDELIVERED: &str = "drover_worker_redelivered_total";

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

/// Workers die all the time; the others in between, so that each meets workers at work.
const FAULTS: [Fault; 10] = [
    Fault::Worker,
    Fault::Worker,
    Fault::Operator,
    Fault::Worker,
    Fault::Store,
    Fault::Worker,
    Fault::Hub,
    Fault::Worker,
    Fault::Operator,
    Fault::Worker,
];

/// What the workers tell, each pod's last word kept after its end.
#[derive(Debug, Default)]
struct Seen {
    /// Messages held or being written, of the pods that run.
    unacknowledged: BTreeMap<String, u64>,
    /// Deliveries that were not the first, of all pods ever seen.
    redelivered: BTreeMap<String, f64>,
}

impl Seen {
    async fn look(&mut self, t: &Trial) -> Result<Vec<Pod>> {
        let pods = t.workers(NAME).await?;
        self.unacknowledged.clear();
        for name in pods.iter().map(Pod::name_any) {
            // One that starts or ends does not answer.
            let (Ok(status), Ok(text)) = (t.ask(&name, PORT, "status").await, t.ask(&name, PORT, "metrics").await)
            else {
                continue;
            };
            let status: Value = serde_json::from_str(&status).context("/status is not JSON")?;
            let number =
                |field: &str| status[field].as_u64().with_context(|| format!("/status has no {field}: {status}"));
            self.unacknowledged.insert(name.clone(), number("inFlight")? + number("held")?);
            self.redelivered.insert(name, metrics::sum(&text, REDELIVERED).unwrap_or_default());
        }
        Ok(pods)
    }

    fn unacknowledged(&self) -> u64 {
        self.unacknowledged.values().sum()
    }

    fn redelivered(&self) -> f64 {
        self.redelivered.values().sum()
    }

    /// The pod that holds most.
    fn fullest<'a>(&self, pods: &'a [Pod]) -> Option<&'a Pod> {
        pods.iter().max_by_key(|pod| self.unacknowledged.get(&pod.name_any()).copied())
    }
}

/// The server takes this long for each statement, so that messages are on their way when a fault strikes.
async fn slow_down(t: &Trial, seconds: f64) -> Result<()> {
    t.store.owner.run(&format!("create or replace function slow() returns trigger language plpgsql as $$ begin perform pg_sleep({seconds}); return null; end $$")).await
}

/// Waits until enough is unacknowledged.
async fn loaded(t: &Trial, seen: &mut Seen, plan: &Plan) -> Result<Vec<Pod>> {
    until(READY, async || {
        let pods = seen.look(t).await?;
        let now = seen.unacknowledged();
        ensure!(
            now >= plan.unacknowledged,
            "only {now} messages are unacknowledged: the fault would meet nobody at work"
        );
        Ok(pods)
    })
    .await
}

/// Strikes, and waits for the trace that it must leave.
async fn strike(t: &Trial, seen: &mut Seen, fault: Fault, plan: &Plan) -> Result<()> {
    let pods = loaded(t, seen, plan).await?;
    let unacknowledged = seen.unacknowledged();
    match fault {
        Fault::Worker => {
            let victim = seen.fullest(&pods).context("no worker")?;
            let before = seen.redelivered();
            sigkill(&t.cluster, victim).await?;
            until(READY, async || {
                seen.look(t).await?;
                ensure!(seen.redelivered() > before, "{} was killed, and nothing was redelivered", victim.name_any());
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
            restart("rabbitmq").await?;
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
            restart("postgres").await?;
            until(SEEN, async || {
                ensure!(t.store.worker_connections().await? > 0, "no worker has come back to the store");
                Ok(())
            })
            .await?;
        }
    }
    eprintln!(
        "ledger: {fault:?} ended with {unacknowledged} unacknowledged, {} redelivered so far",
        seen.redelivered()
    );
    Ok(())
}

async fn restart(service: &str) -> Result<()> {
    shell::run(&variable("DROVER_TEST_CTL")?, &["test", service, "restart"]).await.map(drop)
}

/// Each of the faults once, and workers again and again until all is published.
async fn strike_all(t: &Trial, publisher: &Publisher, plan: &Plan) -> Result<()> {
    let mut seen = Seen::default();
    let mut faults = FAULTS.into_iter();
    let mut next = Instant::now() + KILL_EVERY;
    loop {
        let fault = match faults.next() {
            Some(fault) => fault,
            None if publisher.is_done() => return Ok(()),
            None => Fault::Worker,
        };
        sleep_until(next).await;
        strike(t, &mut seen, fault, plan).await.with_context(|| format!("{fault:?}"))?;
        next = (next + KILL_EVERY).max(Instant::now());
    }
}

async fn balances(t: &Trial, plan: &Plan) -> Result<()> {
    let mut manifest = manifest(NAME);
    manifest["spec"]["scaling"]["replicas"] = WORKERS.into();
    manifest["spec"]["source"]["prefetch"] = 2_000.into();
    t.telemetry_as(&manifest).await?;
    slow_down(t, 0.5).await?;
    t.store
        .owner
        .run(&format!("create trigger slow before insert on {NAME} for each statement execute function slow()"))
        .await?;
    let publisher = Publisher::new(plan.messages, plan.over);
    let faults = async {
        let struck = strike_all(t, &publisher, plan).await;
        slow_down(t, 0.0).await?;
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
