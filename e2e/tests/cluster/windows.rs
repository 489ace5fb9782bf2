//! Window queries: each window and key once, whatever happens meanwhile.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{Phase, WindowQuery};
use drover_e2e::cluster::is_ready;
use drover_e2e::operator;
use drover_e2e::pipeline::SEEN;
use drover_e2e::query::{CLOSED, COUNTS, Published, STARTED, condition, manifest, text, told};
use drover_e2e::sigkill::sigkill;
use drover_e2e::trial::{Trial, trial};
use drover_e2e::until::until;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::DeleteParams;
use serde_json::json;

fn scaled(replicas: u32) -> serde_json::Value {
    let mut query = manifest(COUNTS);
    query["spec"]["scaling"]["replicas"] = json!(replicas);
    query
}

#[tokio::test]
async fn a_query_writes_its_rows_while_its_workers_are_killed() -> Result<()> {
    trial("windows-kills", async |t| {
        t.query(&scaled(2)).await?;
        let kills = Box::pin(async {
            for _ in 0..4 {
                t.query_has_workers(STARTED, 2).await?;
                let victim = t.query_workers().await?.into_iter().find(is_ready).context("no worker is ready")?;
                sigkill(t, &victim).await?;
            }
            t.query_has_workers(STARTED, 2).await
        });
        let (published, ()) = t.publish_events(Duration::from_secs(10), kills).await?;
        t.has_windows(CLOSED, &published).await?;
        ensure!(t.hub.ready(&format!("{COUNTS}.dead")).await? == 0, "there are dead letters");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn workers_and_partitions_grow_and_shrink_and_rows_are_the_same() -> Result<()> {
    trial("windows-scale", async |t| {
        t.query(&scaled(1)).await?;
        let changes = Box::pin(async {
            t.kubectl(&["scale", "windowquery", COUNTS, "--replicas=4"]).await?;
            t.query_has_workers(STARTED, 4).await?;
            let eight = json!({ "spec": { "input": { "partitions": 8 } } });
            t.merge::<WindowQuery>(COUNTS, &eight).await?;
            let message = "8 streams";
            until(SEEN, async || {
                let query = t.api::<WindowQuery>().get(COUNTS).await?;
                let hub = condition(&query, "HubReady").map(|c| c.message.clone()).unwrap_or_default();
                ensure!(hub.starts_with(message), "{}", told(&query));
                Ok(())
            })
            .await?;
            t.query_stands("Ready", STARTED, "True", None).await?;
            t.kubectl(&["scale", "wq", COUNTS, "--replicas=1"]).await?;
            t.query_has_workers(STARTED, 1).await
        });
        let (published, ()) = t.publish_events(Duration::from_secs(20), changes).await?;
        t.has_windows(CLOSED, &published).await
    })
    .await
}

#[tokio::test]
async fn a_query_goes_to_zero_when_no_window_is_open_and_wakes_with_the_first_event() -> Result<()> {
    trial("windows-zero", async |t| {
        let mut query = manifest(COUNTS);
        query["spec"]["scaling"] = json!({ "mode": "Auto", "cooldownSeconds": 5 });
        t.query(&query).await?;
        let mut published = Published::default();
        for round in 0..2 {
            t.query_has_workers(SEEN * 2, 0).await?;
            t.publish_event(round, &mut published).await?;
            t.query_has_workers(STARTED, 1).await?;
            t.has_windows(CLOSED, &published).await?;
        }
        t.query_has_workers(SEEN * 2, 0).await?;
        let query = t.query_stands("Ready", SEEN, "True", None).await?;
        let reason = query.status.and_then(|s| s.scale).map(|s| s.reason);
        ensure!(reason.as_deref() == Some("Idle"), "{reason:?}");
        Ok(())
    })
    .await
}

/// Deployments of the query, by the version of the state that they work on.
async fn versions(t: &Trial) -> Result<Vec<String>> {
    let deployments = t.list::<Deployment>(&format!("drover.dev/query={COUNTS}")).await?;
    let label = |d: &Deployment| d.metadata.labels.as_ref()?.get("drover.dev/state").cloned();
    let mut all: Vec<String> = deployments.iter().filter_map(label).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

/// Waits until there are more rows than so many.
async fn more_rows(t: &Trial, than: usize) -> Result<()> {
    until(CLOSED, async || {
        let rows = t.windows().await?.len();
        ensure!(rows > than, "{rows} rows, no more than {than}");
        Ok(())
    })
    .await
}

/// Changes the text and waits until the new one is alone.
async fn retold(t: &Trial, marker: &str) -> Result<()> {
    let before = versions(t).await?;
    t.merge::<WindowQuery>(COUNTS, &json!({ "spec": { "query": text(marker) } })).await?;
    until(STARTED * 6, async || {
        let now = versions(t).await?;
        ensure!(now.len() == 1 && now != before, "versions {now:?} after {before:?}");
        Ok(())
    })
    .await?;
    t.query_stands("Reconciling", SEEN, "False", None).await.map(drop)
}

#[tokio::test]
async fn a_new_text_takes_over_at_a_boundary_and_so_does_the_old_one_again() -> Result<()> {
    trial("windows-text", async |t| {
        t.query(&manifest(COUNTS)).await?;
        let changes = Box::pin(async {
            more_rows(t, 0).await?;
            retold(t, "second").await?;
            retold(t, "first").await
        });
        let (published, ()) = t.publish_events(Duration::from_secs(20), changes).await?;
        t.has_windows(CLOSED, &published).await?;
        let mut texts: Vec<(i64, String)> = t.windows().await?.into_iter().map(|(text, end, ..)| (end, text)).collect();
        texts.dedup();
        let mixed = texts.windows(2).any(|pair| pair[0].0 == pair[1].0);
        ensure!(!mixed, "one window has rows of both texts: {texts:?}");
        let mut order: Vec<&str> = texts.iter().map(|(_, text)| text.as_str()).collect();
        order.dedup();
        ensure!(order == ["first", "second", "first"], "{order:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_text_that_cannot_be_leaves_the_one_that_runs_at_work() -> Result<()> {
    trial("windows-bad", async |t| {
        t.query(&manifest(COUNTS)).await?;
        t.merge::<WindowQuery>(COUNTS, &json!({ "spec": { "query": "SELECT NoSuch(k) AS k FROM input" } })).await?;
        t.query_stands("Accepted", SEEN, "False", Some("InvalidQuery")).await?;
        let (published, ()) = t.publish_events(Duration::from_secs(3), async { Ok(()) }).await?;
        t.has_windows(CLOSED, &published).await
    })
    .await
}

#[tokio::test]
async fn a_stream_that_was_deleted_is_declared_anew_and_told_as_a_loss() -> Result<()> {
    trial("windows-loss", async |t| {
        t.query(&manifest(COUNTS)).await?;
        let (published, ()) = t.publish_events(Duration::from_secs(3), async { Ok(()) }).await?;
        t.has_windows(CLOSED, &published).await?;
        t.hub.delete_queue(&format!("{COUNTS}-2")).await?;
        t.query_stands("DataLoss", SEEN * 2, "True", Some("MessagesLost")).await?;
        t.query_stands("Ready", SEEN * 2, "True", None).await?;
        let (more, ()) = t.publish_events(Duration::from_secs(3), async { Ok(()) }).await?;
        t.has_windows(CLOSED, &published.and(more)).await
    })
    .await
}

#[tokio::test]
async fn two_queries_of_one_stream_are_one_too_many() -> Result<()> {
    trial("windows-claimed", async |t| {
        let first = t.query(&manifest(COUNTS)).await?;
        ensure!(first.status.and_then(|s| s.phase) == Some(Phase::Running), "it does not run");
        let mut second = manifest("others");
        second["spec"]["input"]["stream"] = json!(COUNTS);
        t.apply::<WindowQuery>(&second).await?;
        let claimed = |query: &WindowQuery| {
            let accepted = condition(query, "Accepted").context("not looked at")?;
            ensure!(accepted.reason == "Claimed" && accepted.message.contains(COUNTS), "{}", told(query));
            Ok(())
        };
        t.awaits::<WindowQuery>("others", SEEN, claimed).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn deleted_with_delete_a_query_leaves_results_and_nothing_else() -> Result<()> {
    trial("windows-delete", async |t| {
        let mut query = manifest(COUNTS);
        query["spec"]["deletionPolicy"] = json!("Delete");
        t.query(&query).await?;
        let (published, ()) = t.publish_events(Duration::from_secs(3), async { Ok(()) }).await?;
        t.has_windows(CLOSED, &published).await?;
        t.delete::<WindowQuery>(COUNTS, &DeleteParams::default()).await?;
        t.awaits_gone::<WindowQuery>(COUNTS, SEEN * 2).await?;
        for queue in [format!("{COUNTS}-0"), format!("{COUNTS}-3"), format!("{COUNTS}.dead")] {
            ensure!(t.hub.depth(&queue).await?.is_none(), "{queue} is still there");
        }
        let state = t.store.admin.number("select count(*) from drover.partition").await?;
        ensure!(state == 0, "{state} rows of state are left");
        t.has_windows(CLOSED, &published).await
    })
    .await
}

#[tokio::test]
async fn a_text_that_takes_no_event_is_refused_until_a_person_promotes_it() -> Result<()> {
    trial("windows-refused", async |t| {
        t.query(&manifest(COUNTS)).await?;
        let changes = Box::pin(async {
            more_rows(t, 0).await?;
            // No key is a number.
            let bad = text("second").replace(" GROUP BY", " WHERE CAST(k AS bigint) > 0 GROUP BY");
            t.merge::<WindowQuery>(COUNTS, &json!({ "spec": { "query": bad } })).await?;
            t.query_stands("Stalled", STARTED * 3, "True", Some("TooManyErrors")).await?;
            t.query_stands("Ready", SEEN, "False", Some("TooManyErrors")).await?;
            t.query_stands("Reconciling", SEEN, "False", None).await?;
            let why = t.drover(&["why", "wq/counts"]).await?;
            ensure!(why.contains("TooManyErrors") && why.contains("kubectl drover promote"), "{why}");
            more_rows(t, t.windows().await?.len()).await?;
            t.kubectl(&["annotate", "windowquery", COUNTS, "drover.dev/promote=the-request"]).await?;
            t.query_stands("Stalled", STARTED, "False", None).await?;
            until(STARTED * 3, async || {
                let now = versions(t).await?;
                ensure!(now.len() == 1, "versions {now:?}");
                Ok(())
            })
            .await?;
            until(SEEN, async || {
                let log = operator::log(&t.client, None).await?;
                let lines = log.lines().filter(|line| line.contains("drover::audit") && line.contains("the-request"));
                let verbs: Vec<_> = lines.filter(|line| line.contains(&t.namespace)).collect();
                let is_told = |verb: &str| verbs.iter().any(|line| line.contains(&format!("verb=\"{verb}\"")));
                ensure!(is_told("apply") && is_told("answer"), "{verbs:#?}");
                Ok(())
            })
            .await
        });
        t.publish_events(Duration::from_secs(10), changes).await?;
        let texts: Vec<String> = t.windows().await?.into_iter().map(|(text, ..)| text).collect();
        ensure!(!texts.is_empty() && texts.iter().all(|text| text == "first"), "{texts:?}");
        Ok(())
    })
    .await
}
