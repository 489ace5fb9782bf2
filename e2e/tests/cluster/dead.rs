//! Dead letters and faults as a person deals with them: `kubectl drover dead`, the annotation that sends letters back, and
//! `kubectl drover why`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{IngestPipeline, RedriveStatus};
use drover_e2e::pipeline::{FLOW, NAME, READY, SEEN, discarding, manifest};
use drover_e2e::trial::{Trial, trial};
use drover_e2e::until::until;
use serde_json::{Value, json};

/// Dead letters of the tests: ten that are refused alike would be the table's fault, and be waited with.
const LETTERS: u32 = 5;

/// A pipeline with dead letters that only the table's constraint made dead.
async fn with_dead_letters(t: &Trial) -> Result<()> {
    t.telemetry().await?;
    t.store.owner.run(&format!("alter table {NAME} add constraint cold check (temp < 0)")).await?;
    t.publish(0..LETTERS).await?;
    until(READY, async || {
        let dead = t.dead_letters().await?.len();
        ensure!(dead == usize::try_from(LETTERS)?, "{dead} dead letters");
        Ok(())
    })
    .await?;
    t.store.owner.run(&format!("alter table {NAME} drop constraint cold")).await
}

/// Asks for a redrive, as `kubectl annotate` does.
async fn ask(t: &Trial, id: &str) -> Result<()> {
    let annotation = format!("drover.dev/redrive={id}");
    t.kubectl(&["annotate", "--overwrite", "ingestpipeline", NAME, &annotation]).await.map(drop)
}

/// Waits until the request is answered.
async fn answered(t: &Trial, id: &str, expected: Duration) -> Result<RedriveStatus> {
    let pipeline = t
        .awaits(NAME, expected, |pipeline: &IngestPipeline| {
            let redrive = pipeline.status.as_ref().and_then(|status| status.redrive.as_ref());
            let ended = redrive.is_some_and(|redrive| redrive.id == id && redrive.finished_at.is_some());
            ensure!(ended, "not yet answered: {redrive:?}");
            Ok(())
        })
        .await?;
    pipeline.status.and_then(|status| status.redrive).context("no answer")
}

#[tokio::test]
async fn dead_letters_are_told_and_looks_leave_them_where_they_are() -> Result<()> {
    trial("dead-list", async |t| {
        with_dead_letters(t).await?;
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(t.drover(&["dead", "list", NAME, "-o", "json"]).await?);
        }
        ensure!(seen.iter().all(|told| *told == seen[0]), "a look has changed the queue: {seen:?}");
        let letters: Vec<Value> = serde_json::from_str(&seen[0])?;
        ensure!(letters.len() == usize::try_from(LETTERS)?, "{} letters", letters.len());
        let whole = letters.iter().all(|letter| letter["stage"] == "sink" && letter["body"].is_string());
        ensure!(whole, "{}", seen[0]);
        // Numbers are written at most every 15 s, and looked at every 15 s.
        until(SEEN * 2, async || {
            let status = t.drover(&["status", NAME]).await?;
            ensure!(status.contains("kubectl drover dead list"), "{status}");
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn an_annotation_sends_dead_letters_back_once() -> Result<()> {
    trial("dead-redrive", async |t| {
        with_dead_letters(t).await?;
        ask(t, "one").await?;
        let answer = answered(t, "one", READY).await?;
        let told = (answer.redriven, answer.remaining, &answer.message);
        ensure!(told == (i64::from(LETTERS), Some(0), &None), "{answer:?}");
        t.rows(FLOW, 0..LETTERS).await?;
        t.no_dead_letters().await?;
        // The same id is the same request, whatever lies there by now.
        t.hub.publish(&format!("{NAME}.drover"), "dead", &[b"not JSON"]).await?;
        ask(t, "one").await?;
        t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "retry": { "attempts": 7 } } })).await?;
        t.ready(NAME).await?;
        ensure!(t.dead_letters().await?.len() == 1, "it was sent back again");
        ask(t, "two").await?;
        ensure!(answered(t, "two", READY).await?.redriven == 1, "the next request is another");
        let events = t.kubectl(&["get", "events", "-o", "jsonpath={.items[*].reason}"]).await?;
        ensure!(events.contains("Redriven"), "no event: {events}");
        until(READY, async || {
            ensure!(t.dead_letters().await?.len() == 1, "it is not back yet");
            Ok(())
        })
        .await?;
        t.drover(&["dead", "purge", NAME, "--yes"]).await?;
        let notes = r#"jsonpath={.items[?(@.reason=="Purged")].message}"#;
        let told = t.kubectl(&["get", "events", "-o", notes]).await?;
        ensure!(told.starts_with("1 deleted") && told.contains("by admin"), "what a person did is not told: {told:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn why_names_each_fault_and_what_to_do() -> Result<()> {
    trial("why", async |t| {
        t.secret("wrong-password", &{
            let mut uri = t.hub.uri.clone();
            let _ = uri.set_password(Some("wrong"));
            uri.to_string()
        })
        .await?;
        let mut password = discarding("password");
        password["spec"]["hub"]["secretRef"]["name"] = "wrong-password".into();
        let mut image = discarding("image");
        image["spec"]["worker"] = json!({ "image": "localhost/no-such-image:1" });
        for manifest in [&password, &manifest("table"), &image] {
            t.apply::<IngestPipeline>(manifest).await?;
        }
        for (name, condition, reason, advice) in [
            ("password", "HubReady", "AccessRefused", "correct the secret"),
            ("table", "StoreReady", "TableNotFound", "make it"),
            ("image", "WorkersReady", "ImagePullFailed", "check the name"),
        ] {
            t.stands(name, SEEN + READY, condition, "False", Some(reason)).await?;
            let told = t.drover(&["why", name]).await?;
            ensure!(told.contains(&format!("{condition} is False: {reason}")) && told.contains(advice), "{told}");
        }
        Ok(())
    })
    .await
}
