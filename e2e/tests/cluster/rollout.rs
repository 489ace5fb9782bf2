//! A new revision is tried on copies, takes over by priority, and costs nothing if it is bad.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use drover_crds::api::{IngestPipeline, RolloutPhase, RolloutStatus};
use drover_e2e::hub::Lying;
use drover_e2e::pipeline::{NAME, SEEN, manifest, told};
use drover_e2e::publisher::Publisher;
use drover_e2e::surroundings::variable;
use drover_e2e::trial::{Trial, trial};
use drover_e2e::until::until;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use serde_json::{Value, json};

/// A whole rollout, with the trials' short preview.
pub(crate) const DONE: Duration = Duration::from_mins(2);

pub(crate) fn state(pipeline: &IngestPipeline) -> RolloutStatus {
    pipeline.status.as_ref().and_then(|status| status.rollout.clone()).unwrap_or_default()
}

/// A pipeline whose previews are short.
pub(crate) fn quick(more: &Value) -> Value {
    let mut pipeline = manifest(NAME);
    let mut rollout = json!({
        "preview": { "mirrorPercent": 100, "minMessages": 50, "maxSeconds": 15 },
        "scaleDownDelaySeconds": 5,
        "progressDeadlineSeconds": 30,
    });
    let fields = more.as_object().cloned().unwrap_or_default();
    rollout.as_object_mut().expect("it is one").extend(fields);
    pipeline["spec"]["rollout"] = json!({ "blueGreen": rollout });
    pipeline
}

/// What a preview can tell something of.
pub(crate) fn another(bytes: u32) -> Value {
    json!({ "spec": { "source": { "maxBytes": bytes } } })
}

async fn awaits(t: &Trial, phase: RolloutPhase, reason: Option<&str>) -> Result<RolloutStatus> {
    until(DONE, async || {
        let pipeline = t.api::<IngestPipeline>().get(NAME).await?;
        let found = state(&pipeline);
        // Not to be mended by waiting.
        assert!(phase != RolloutPhase::Aborted || found.reason != "Verified", "a bad revision is active: {found:?}");
        let as_wanted = found.phase == phase && found.preview.is_none() != (phase == RolloutPhase::AwaitingPromotion);
        ensure!(as_wanted && reason.is_none_or(|r| r == found.reason), "{found:?}\n{}", told(&pipeline));
        Ok(found)
    })
    .await
}

/// The revision that is active.
pub(crate) async fn active(t: &Trial) -> Result<String> {
    state(&t.api::<IngestPipeline>().get(NAME).await?).active.context("no active revision")
}

/// Another revision than `old` is active and alone.
pub(crate) async fn takes_over(t: &Trial, old: &str) -> Result<String> {
    until(DONE, async || {
        let pipeline = t.api::<IngestPipeline>().get(NAME).await?;
        let found = state(&pipeline);
        ensure!(found.phase == RolloutPhase::Stable && found.preview.is_none(), "{found:?}");
        ensure!(found.active.as_deref().is_some_and(|active| active != old), "{found:?}\n{}", told(&pipeline));
        let all = t.list::<Deployment>(&format!("drover.dev/pipeline={NAME}")).await?;
        ensure!(all.len() == 1, "{} Deployments", all.len());
        ensure!(found.mirror.is_none(), "the mirror is still there: {found:?}");
        found.active.context("no active revision")
    })
    .await
}

async fn ask(t: &Trial, what: &str, id: &str) -> Result<()> {
    let annotation = format!("drover.dev/{what}");
    t.merge::<IngestPipeline>(NAME, &json!({ "metadata": { "annotations": { annotation: id } } })).await?;
    until(SEEN, async || {
        let status = t.api::<IngestPipeline>().get(NAME).await?.status.unwrap_or_default();
        let answered = status.handled_requests.iter().filter(|handled| *handled == id).count();
        ensure!(answered == 1, "answered {answered} times");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_good_revision_takes_over_under_load_and_nothing_is_lost_or_doubled() -> Result<()> {
    trial("rollout-good", async |t| {
        t.telemetry_as(&quick(&json!({}))).await?;
        let first = active(t).await?;
        let publisher = Publisher::new(30_000, Duration::from_mins(1));
        let change = async {
            t.merge::<IngestPipeline>(NAME, &another(500_000)).await?;
            takes_over(t, &first).await
        };
        let (flow, changed) = tokio::join!(publisher.run(&t.hub), change);
        changed?;
        flow?;
        t.rows(DONE, 0..30_000).await?;
        t.no_dead_letters().await
    })
    .await
}

#[tokio::test]
async fn a_quiet_pipeline_gets_its_new_revision() -> Result<()> {
    trial("rollout-quiet", async |t| {
        t.telemetry_as(&quick(&json!({}))).await?;
        let first = active(t).await?;
        t.merge::<IngestPipeline>(NAME, &another(500_000)).await?;
        takes_over(t, &first).await?;
        let found = state(&t.api::<IngestPipeline>().get(NAME).await?);
        ensure!(found.reason == "ProvenByReadiness", "{found:?}");
        Ok(())
    })
    .await
}

async fn fails_its_preview(name: &str, change: Value, reason: &str) -> Result<()> {
    trial(name, async |t| {
        t.telemetry_as(&quick(&json!({}))).await?;
        let first = active(t).await?;
        t.merge::<IngestPipeline>(NAME, &change).await?;
        let found = awaits(t, RolloutPhase::Aborted, Some(reason)).await?;
        ensure!(found.active.as_deref() == Some(&*first), "{found:?}");
        t.publish(0..50).await?;
        t.rows(SEEN, 0..50).await?;
        t.no_dead_letters().await
    })
    .await
}

#[tokio::test]
async fn an_image_that_does_not_exist_is_given_up() -> Result<()> {
    let change = json!({ "spec": { "worker": { "image": "localhost/no-such-image:1" } } });
    fails_its_preview("rollout-image", change, "ProgressDeadlineExceeded").await
}

#[tokio::test]
async fn a_handler_that_ends_at_its_start_is_given_up() -> Result<()> {
    let image = variable("DROVER_TEST_HANDLER_IMAGE")?;
    let handler = json!({ "image": image, "command": ["/no-such-program"] });
    let change = json!({ "spec": { "transform": { "handler": handler } } });
    trial("rollout-crash", async |t| {
        t.telemetry_as(&quick(&json!({}))).await?;
        let first = active(t).await?;
        t.merge::<IngestPipeline>(NAME, &change).await?;
        let found = awaits(t, RolloutPhase::Aborted, None).await?;
        ensure!(found.active.as_deref() == Some(&*first), "{found:?}");
        ensure!(["Restarts", "ProgressDeadlineExceeded"].contains(&&*found.reason), "{found:?}");
        t.no_dead_letters().await
    })
    .await
}

#[tokio::test]
async fn an_exclusive_takeover_has_no_moment_with_pods_of_both() -> Result<()> {
    trial("rollout-exclusive", async |t| {
        t.telemetry_as(&quick(&json!({ "cutover": "Exclusive" }))).await?;
        let first = active(t).await?;
        t.publish(0..500).await?;
        t.merge::<IngestPipeline>(NAME, &another(500_000)).await?;
        let second = until(DONE, async || {
            let pods = t.list::<Pod>(&format!("drover.dev/pipeline={NAME},drover.dev/revision")).await?;
            let of = |pod: &Pod| pod.metadata.labels.as_ref().and_then(|l| l.get("drover.dev/revision")).cloned();
            let old = pods.iter().filter(|pod| of(pod).as_ref() == Some(&first)).count();
            // Not to be mended by waiting: both could have had messages.
            assert!(old == 0 || old == pods.len(), "pods of both revisions are there");
            let found = state(&t.api::<IngestPipeline>().get(NAME).await?);
            ensure!(found.phase == RolloutPhase::Stable && found.active.as_ref() != Some(&first), "{found:?}");
            found.active.context("no active revision")
        })
        .await?;
        ensure!(second != first, "no other revision");
        t.publish(500..600).await?;
        t.rows(DONE, 0..600).await?;
        t.no_dead_letters().await
    })
    .await
}

#[tokio::test]
async fn a_person_aborts_retries_and_promotes_and_each_is_answered_once() -> Result<()> {
    trial("rollout-requests", async |t| {
        t.telemetry_as(&quick(&json!({ "autoPromotionEnabled": false }))).await?;
        let first = active(t).await?;
        t.merge::<IngestPipeline>(NAME, &another(500_000)).await?;
        awaits(t, RolloutPhase::AwaitingPromotion, None).await?;
        ask(t, "abort", "one").await?;
        awaits(t, RolloutPhase::Aborted, Some("AbortRequested")).await?;
        t.merge::<IngestPipeline>(NAME, &another(500_000)).await?;
        awaits(t, RolloutPhase::Aborted, Some("AbortRequested")).await?;
        ask(t, "retry", "two").await?;
        awaits(t, RolloutPhase::AwaitingPromotion, None).await?;
        ask(t, "promote", "three").await?;
        takes_over(t, &first).await?;
        Ok(())
    })
    .await
}

/// Writes of every revision but this one do this for each row. Previews write elsewhere, and see nothing of it.
async fn spoils(t: &Trial, good: &str, what: &str) -> Result<()> {
    // The name of a connection is cut to 63 bytes: with a short namespace enough of the revision's is left.
    let like = format!("%/{NAME}-{}%", &good[..5]);
    let cut = format!("drover-worker {}/{NAME}/{NAME}-{}", t.namespace, &good[..5]).len();
    ensure!(cut <= 63, "the trial's name is too long: no revision could be told from another");
    let statements = format!(
        "create function spoiled() returns trigger language plpgsql as $$ begin \
         if current_setting('application_name') not like '{like}' then {what} end if; return new; end $$; \
         create trigger spoiled before insert on {NAME} for each row execute function spoiled()"
    );
    t.store.owner.run(&statements).await
}

/// A revision that is bad only on the source is given up for one of these reasons, under load, and every message has its place.
async fn fails_on_the_source(name: &str, what: &str, reasons: &[&str]) -> Result<()> {
    trial(name, async |t| {
        t.telemetry_as(&quick(&json!({}))).await?;
        let first = active(t).await?;
        spoils(t, &first, what).await?;
        let publisher = Publisher::new(45_000, Duration::from_secs(90));
        let change = async {
            t.merge::<IngestPipeline>(NAME, &another(500_000)).await?;
            let found = awaits(t, RolloutPhase::Aborted, None).await?;
            ensure!(reasons.contains(&&*found.reason) && found.active.as_deref() == Some(&*first), "{found:?}");
            Ok(())
        };
        let (flow, changed) = tokio::join!(publisher.run(&t.hub), change);
        changed?;
        flow?;
        let twice = until(DONE, async || t.rows_and_letters(0..45_000).await).await?;
        // Revisions that are given up end at once: no more than what their workers had in hand.
        ensure!(twice <= 100, "{twice} messages are at two places");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn five_percent_of_errors_are_found_on_the_source() -> Result<()> {
    let what = "if right(new.message_id, 2)::int % 20 = 7 then raise exception using errcode = '22000'; end if;";
    fails_on_the_source("r-err", what, &["TooManyErrors"]).await
}

#[tokio::test]
async fn dead_letters_of_a_revision_that_was_given_up_go_back_and_the_old_one_works_on_them() -> Result<()> {
    trial("r-redrive", async |t| {
        t.telemetry_as(&quick(&json!({ "redriveOnAbort": true }))).await?;
        let first = active(t).await?;
        let what = "if right(new.message_id, 2)::int % 20 = 7 then raise exception using errcode = '22000'; end if;";
        spoils(t, &first, what).await?;
        let publisher = Publisher::new(30_000, Duration::from_mins(1));
        let change = async {
            t.merge::<IngestPipeline>(NAME, &another(500_000)).await?;
            awaits(t, RolloutPhase::Aborted, Some("TooManyErrors")).await
        };
        let (flow, changed) = tokio::join!(publisher.run(&t.hub), change);
        let aborted = changed?.aborted_revision.context("no aborted revision")?;
        flow?;
        let redrive = until(DONE, async || {
            let status = t.api::<IngestPipeline>().get(NAME).await?.status.unwrap_or_default();
            let redrive = status.redrive.context("no redrive")?;
            ensure!(redrive.finished_at.is_some(), "{redrive:?}");
            Ok(redrive)
        })
        .await?;
        ensure!(redrive.of.as_ref().is_some_and(|of| of.revision == aborted), "{redrive:?}");
        ensure!(redrive.redriven > 0 && redrive.message.is_none(), "{redrive:?}");
        t.rows(DONE, 0..30_000).await?;
        t.no_dead_letters().await
    })
    .await
}

#[tokio::test]
async fn one_that_cannot_carry_the_load_alone_is_too_slow_and_the_old_one_does_not_hide_it() -> Result<()> {
    fails_on_the_source("r-slow", "perform pg_sleep(0.02);", &["TooSlow"]).await
}

#[tokio::test]
async fn one_that_hangs_is_taken_away_and_what_it_held_is_back() -> Result<()> {
    fails_on_the_source("r-hang", "perform pg_sleep(600);", &["Hangs", "TooSlow"]).await
}

/// One message in two hundred is bad, whoever works on it.
const NATURAL: &str = "create function natural_errors() returns trigger language plpgsql as $$ begin \
     if right(new.message_id, 3)::int % 200 = 7 then raise exception using errcode = '22000'; end if; return new; end $$;";

#[tokio::test]
#[ignore = "slow: twenty rollouts one after the other"]
async fn with_natural_errors_twenty_good_revisions_take_over() -> Result<()> {
    trial("natural", async |t| {
        t.telemetry_as(&quick(&json!({}))).await?;
        t.store.owner.run(NATURAL).await?;
        let trigger =
            format!("create trigger n before insert on {NAME} for each row execute function natural_errors()");
        t.store.owner.run(&trigger).await?;
        // For longer than all of it takes: what is left then is not published.
        let publisher = Publisher::new(1_500_000, Duration::from_mins(50));
        let changes = async {
            let mut active = active(t).await?;
            for round in 0..20 {
                t.merge::<IngestPipeline>(NAME, &another(500_000 + round)).await?;
                active = takes_over(t, &active).await?;
                eprintln!("natural: rollout {} of 20", round + 1);
            }
            anyhow::Ok(())
        };
        tokio::select! {
            flow = publisher.run(&t.hub) => bail!("the publisher ends first: {flow:?}"),
            done = changes => done?,
        }
        let dead = t.dead_letters().await?;
        let natural = |letter: &Lying| {
            let id = serde_json::from_slice::<Value>(&letter.body).ok()?["id"].as_str()?.to_owned();
            Some(id.get(id.len().checked_sub(3)?..)?.parse::<u32>().ok()? % 200 == 7)
        };
        let others: Vec<String> = dead.iter().filter(|l| natural(l) != Some(true)).map(Lying::headline).collect();
        ensure!(others.is_empty() && !dead.is_empty(), "{} dead letters, of good ones: {others:?}", dead.len());
        Ok(())
    })
    .await
}
