//! Ten faults, each with a reason of its own in the condition, and with advice in `kubectl drover why`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::IngestPipeline;
use drover_e2e::cluster::is_ready;
use drover_e2e::pipeline::{READY, SEEN, discarding, manifest, messages};
use drover_e2e::trial::{Trial, trial};
use drover_e2e::until::{throughout, until};
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::{Value, json};
use url::Url;

/// What goes wrong; the pipeline has its name.
struct Fault {
    name: &'static str,
    condition: &'static str,
    status: &'static str,
    reason: &'static str,
    /// A part of what is to be done about it.
    advice: &'static str,
}

const fn fault(name: &'static str, condition: &'static str, reason: &'static str, advice: &'static str) -> Fault {
    Fault { name, condition, status: "False", reason, advice }
}

const FAULTS: [Fault; 10] = [
    fault("wrong-password", "HubReady", "AccessRefused", "correct the secret"),
    fault("missing-table", "StoreReady", "TableNotFound", "make it, or grant usage"),
    fault("missing-exchange", "HubReady", "ExchangeMissing", "make it"),
    fault("poison-burst", "DeadLetterSafe", "TooManyDeadLetters", "mend the sender"),
    Fault { status: "True", ..fault("slow-sink", "SinkLimited", "MoreReplicasDoNotHelp", "look at the sink") },
    fault("unpullable-image", "WorkersReady", "ImagePullFailed", "check the name"),
    fault("hub-down", "HubReady", "Unreachable", "start the hub"),
    fault("full-dead-letters", "DeadLetterSafe", "DeadLettersFull", "redrive or purge"),
    fault("exhausted-quota", "WorkersReady", "QuotaExceeded", "raise it, or ask for less"),
    fault("bad-query", "Accepted", "InvalidQuery", "line, column"),
];

/// More unfit messages than a worker lets go in a minute, where there are usually none.
const BURST: usize = 200;
/// Most dead letters of the pipeline whose queue is full of them.
const FEW: usize = 3;
/// More than the slow sink takes in the time of the test.
const BACKLOG: u32 = 6_000;
/// So long workers are at full load before it is judged what they do: eight seconds, and a sample before and after.
const MEASURED: Duration = Duration::from_secs(15);

/// Makes a secret with the hub's address, changed.
async fn hub_secret(t: &Trial, name: &str, change: impl FnOnce(&mut Url)) -> Result<()> {
    let mut uri = t.hub.uri.clone();
    change(&mut uri);
    t.secret(name, uri.as_str()).await
}

async fn apply(t: &Trial, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
    let mut pipeline = discarding(name);
    change(&mut pipeline["spec"]);
    t.apply::<IngestPipeline>(&pipeline).await?;
    Ok(())
}

/// A pipeline with a table, which runs.
async fn running(t: &Trial, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
    let table = name.replace('-', "_");
    t.table(&table).await?;
    let mut pipeline = manifest(name);
    pipeline["spec"]["sink"]["postgres"]["table"] = table.into();
    change(&mut pipeline["spec"]);
    t.apply::<IngestPipeline>(&pipeline).await?;
    t.ready(name).await.map(drop)
}

/// To one pipeline's queue alone.
async fn publish<B: AsRef<[u8]>>(t: &Trial, name: &str, bodies: &[B]) -> Result<()> {
    t.hub.publish("", name, bodies).await
}

/// Rows are written one after the other, whoever writes them.
async fn slow(t: &Trial, name: &str) -> Result<()> {
    running(t, name, |spec| {
        spec["source"]["prefetch"] = 10.into();
        spec["scaling"] = json!({ "mode": "Auto", "minReplicas": 1, "maxReplicas": 1, "cooldownSeconds": 5 });
    })
    .await?;
    let one_by_one = "create function one_by_one() returns trigger language plpgsql as \
                      $$ begin perform pg_advisory_xact_lock(1); perform pg_sleep(0.05); return new; end $$; \
                      create trigger one_by_one before insert on slow_sink for each row execute function one_by_one()";
    t.store.owner.run(one_by_one).await?;
    publish(t, name, &messages(0..BACKLOG)).await?;
    for replicas in [1, 2, 4] {
        let bounds = json!({ "spec": { "scaling": { "minReplicas": replicas, "maxReplicas": replicas } } });
        t.merge::<IngestPipeline>(name, &bounds).await?;
        let all_run = async || {
            let ready = t.workers(name).await?.iter().filter(|pod| is_ready(pod)).count();
            ensure!(ready == replicas, "{ready} of {replicas} workers are ready");
            Ok(())
        };
        until(READY * 2, all_run).await?;
        throughout(MEASURED, all_run).await?;
    }
    Ok(())
}

/// Makes the pipeline and the fault.
async fn strike(t: &Trial, name: &str) -> Result<()> {
    match name {
        "wrong-password" => {
            hub_secret(t, name, |uri| {
                let _ = uri.set_password(Some("wrong"));
            })
            .await?;
            apply(t, name, |spec| spec["hub"]["secretRef"]["name"] = name.into()).await
        }
        // Nothing listens there, as at a hub that is down; the one of all tests stays up.
        "hub-down" => {
            hub_secret(t, name, |uri| {
                let _ = uri.set_port(Some(1));
            })
            .await?;
            apply(t, name, |spec| spec["hub"]["secretRef"]["name"] = name.into()).await
        }
        "missing-table" => {
            let mut pipeline = manifest(name);
            pipeline["spec"]["sink"]["postgres"]["table"] = "missing_table".into();
            t.apply::<IngestPipeline>(&pipeline).await?;
            Ok(())
        }
        "missing-exchange" => {
            let bindings = json!([{ "exchange": "elsewhere", "routingKey": "#" }]);
            apply(t, name, |spec| spec["source"]["bindings"] = bindings).await
        }
        "unpullable-image" => apply(t, name, |spec| spec["worker"] = json!({ "image": "localhost/none:1" })).await,
        "bad-query" => apply(t, name, |spec| spec["transform"] = json!({ "query": "SELECT FROM" })).await,
        "poison-burst" => {
            running(t, name, |_| {}).await?;
            publish(t, name, &[b"not JSON"; BURST]).await
        }
        "full-dead-letters" => {
            running(t, name, |spec| spec["deadLetter"] = json!({ "maxMessages": FEW })).await?;
            publish(t, name, &[b"not JSON"; FEW]).await
        }
        "slow-sink" => slow(t, name).await,
        "exhausted-quota" => {
            let quota = json!({ "metadata": { "name": "none" }, "spec": { "hard": { "pods": "0" } } });
            t.apply::<ResourceQuota>(&quota).await?;
            apply(t, name, |_| {}).await
        }
        other => anyhow::bail!("nobody knows how to make {other}"),
    }
}

/// The reason is in the condition, and the plugin says it with what to do.
async fn is_told(t: &Trial, fault: &Fault) -> Result<()> {
    let Fault { name, condition, status, reason, advice } = fault;
    strike(t, name).await.with_context(|| format!("{name} could not be made"))?;
    t.stands(name, SEEN + READY, condition, status, Some(reason)).await?;
    let told = t.drover(&["why", name]).await?;
    let cause = format!("{condition} is {status}: {reason}");
    let advised = told.lines().any(|line| line.trim_start().starts_with("Do:") && line.contains(advice));
    ensure!(told.contains(&cause) && advised, "{name}: neither {cause} nor what to do: {told}");
    Ok(())
}

/// Each in a namespace of its own: a quota is the whole namespace's.
async fn in_a_trial(fault: &Fault) -> Result<()> {
    trial(&format!("fault-{}", fault.name), async |t| is_told(t, fault).await).await
}

#[tokio::test]
async fn each_of_ten_faults_has_a_reason_of_its_own_and_advice() -> Result<()> {
    let reasons: BTreeSet<_> = FAULTS.iter().map(|fault| fault.reason).collect();
    ensure!(reasons.len() == FAULTS.len(), "two faults have the same reason: {reasons:?}");
    // The slow one takes a minute: the others go on beside it.
    let (slow, quick): (Vec<&Fault>, Vec<&Fault>) = FAULTS.iter().partition(|fault| fault.name == "slow-sink");
    let quickly = async {
        for fault in quick {
            in_a_trial(fault).await?;
        }
        anyhow::Ok(())
    };
    let slowly = async {
        for fault in slow {
            in_a_trial(fault).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(quickly, slowly).map(drop)
}
