//! What a person has applied stays as it was applied, while workers come and go and revisions follow each other: `kubectl diff`
//! finds nothing, and so nothing is out of sync for Argo CD.

use std::time::Duration;

use anyhow::{Result, ensure};
use drover_crds::api::{IngestPipeline, RolloutPhase, WindowQuery};
use drover_e2e::cluster::Kind;
use drover_e2e::pipeline::{NAME, READY};
use drover_e2e::publisher::Publisher;
use drover_e2e::query::{CLOSED, COUNTS, Published, STARTED, manifest, text};
use drover_e2e::shell::{self, Ended};
use drover_e2e::store::Each;
use drover_e2e::trial::{Trial, trial};
use drover_e2e::until::until;
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::rollout::{DONE, active, quick, state};

/// Messages of a load, and how long it lasts.
const LOAD: (u32, Duration) = (6_000, Duration::from_mins(1));
/// One worker is not enough for it where each row takes so many seconds.
const SLOW: f64 = 0.2;
/// The manager of what `kubectl apply --server-side` writes.
const PERSON: &str = "kubectl";

/// Whole objects: a changed line is of the last top-level field above it.
const WHOLE: &str = "KUBECTL_EXTERNAL_DIFF=diff -U9999 -N";

/// Both objects as a person keeps them, with queries that are of this round.
fn manifests(round: u32) -> String {
    let scaling = json!({ "mode": "Auto", "maxReplicas": 3, "cooldownSeconds": 5 });
    let mut pipeline = quick(&json!({}));
    pipeline["spec"]["scaling"] = scaling.clone();
    pipeline["spec"]["transform"] = json!({ "query": format!("SELECT *, {round} AS edition FROM input") });
    let mut query = manifest(COUNTS);
    query["spec"]["scaling"] = scaling;
    query["spec"]["query"] = text(&round.to_string()).into();
    let typed = |mut object: Value, version: &str, kind: &str| {
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        object
    };
    let pipeline = typed(pipeline, &IngestPipeline::api_version(&()), &IngestPipeline::kind(&()));
    let query = typed(query, &WindowQuery::api_version(&()), &WindowQuery::kind(&()));
    json!({ "apiVersion": "v1", "kind": "List", "items": [pipeline, query] }).to_string()
}

async fn kubectl(t: &Trial, command: &str, manifests: &str) -> Result<Ended> {
    let words = [WHOLE, "kubectl", "--namespace", &t.namespace, command, "--server-side", "-f", "-"];
    shell::attempt("env", &words, manifests).await
}

async fn apply(t: &Trial, round: u32) -> Result<String> {
    let manifests = manifests(round);
    let ended = kubectl(t, "apply", &manifests).await?;
    ensure!(ended.success, "{}", ended.err);
    Ok(manifests)
}

/// The lines of a diff of whole objects that say another thing than a status: kubectl looks twice, and the operator may write one in between.
fn changes(diff: &str) -> Vec<&str> {
    let mut field = "";
    let mut changes = Vec::new();
    for line in diff.lines().filter(|line| !line.starts_with("+++ ") && !line.starts_with("--- ")) {
        let Some((sign, rest)) = line.split_at_checked(1).filter(|(sign, _)| [" ", "+", "-"].contains(sign)) else {
            continue;
        };
        if !rest.starts_with(' ') {
            field = rest;
        }
        let told = field.starts_with("status:") || rest.trim_start().starts_with("resourceVersion:");
        if sign != " " && !told {
            changes.push(line);
        }
    }
    changes
}

/// Nobody but the person has written a part of a spec.
async fn is_a_persons<K: Kind>(t: &Trial, name: &str) -> Result<()> {
    for entry in t.api::<K>().get(name).await?.managed_fields() {
        let manager = entry.manager.as_deref().unwrap_or_default();
        let spec = entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:spec").is_some());
        // Not to be mended by waiting.
        assert!(!spec || manager == PERSON, "{manager} has written the spec of {name}: {:?}", entry.fields_v1);
    }
    Ok(())
}

async fn in_sync(t: &Trial, applied: &str) -> Result<()> {
    let ended = kubectl(t, "diff", applied).await?;
    let changes = changes(&ended.out);
    // Not to be mended by waiting. Without a diff it is a conflict: somebody else has written what was applied.
    assert!(ended.success || !ended.out.is_empty(), "out of sync: {}", ended.err);
    assert!(changes.is_empty(), "out of sync:\n{}", changes.join("\n"));
    is_a_persons::<IngestPipeline>(t, NAME).await?;
    is_a_persons::<WindowQuery>(t, COUNTS).await
}

/// Waits for so many workers of both, while what was applied stays as it is.
async fn workers(t: &Trial, applied: &str, wanted: impl Fn(usize, usize) -> bool) -> Result<()> {
    until(DONE, async || {
        in_sync(t, applied).await?;
        let (pipeline, query) = (t.workers(NAME).await?.len(), t.query_workers().await?.len());
        ensure!(wanted(pipeline, query), "{pipeline} workers of the pipeline and {query} of the query");
        Ok(())
    })
    .await
}

/// From zero up and into another revision of both, under load; what was published.
async fn round(t: &Trial, applied: &mut String, round: u32) -> Result<Published> {
    let before = active(t).await?;
    t.store.slow(NAME, Each::Row, SLOW).await?;
    let work = Box::pin(async {
        workers(t, applied, |pipeline, query| pipeline > 1 && query > 0).await?;
        t.store.slow(NAME, Each::Row, 0.0).await?;
        *applied = apply(t, round).await?;
        until(DONE, async || {
            in_sync(t, applied).await?;
            let found = state(&t.api::<IngestPipeline>().get(NAME).await?);
            // Not to be mended by waiting.
            assert!(found.phase != RolloutPhase::Aborted, "{found:?}");
            ensure!(found.phase == RolloutPhase::Stable && found.active.as_ref() != Some(&before), "{found:?}");
            Ok(())
        })
        .await
    });
    // Each has its own: an event that is published again after a lost connection counts twice.
    let publisher = Publisher::new(LOAD.0, LOAD.1);
    let (flow, events) = tokio::join!(publisher.run(&t.hub), t.publish_events(LOAD.1, work));
    flow?;
    Ok(events?.0)
}

async fn stays_in_sync(t: &Trial, span: Duration) -> Result<()> {
    t.table(NAME).await?;
    t.query_store().await?;
    let mut applied = apply(t, 0).await?;
    t.ready(NAME).await?;
    t.query_stands("Ready", STARTED, "True", None).await?;
    let begin = Instant::now();
    let mut published = Published::default();
    for number in 1.. {
        workers(t, &applied, |pipeline, query| (pipeline, query) == (0, 0)).await?;
        if begin.elapsed() > span {
            break;
        }
        published = published.and(round(t, &mut applied, number).await?);
    }
    // Each round has the same ones.
    t.rows(READY, 0..LOAD.0).await?;
    t.no_dead_letters().await?;
    t.has_windows(CLOSED, &published).await
}

#[tokio::test]
async fn through_scaling_and_rollouts_nothing_is_out_of_sync() -> Result<()> {
    trial("in-sync", async |t| stays_in_sync(t, Duration::from_mins(1)).await).await
}

#[tokio::test]
#[ignore = "slow: ten minutes of scaling and rollouts"]
async fn through_ten_minutes_of_scaling_and_rollouts_nothing_is_out_of_sync() -> Result<()> {
    trial("in-sync-long", async |t| stays_in_sync(t, Duration::from_mins(10)).await).await
}
