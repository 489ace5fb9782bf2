//! A good revision takes over while 2,000 messages a second arrive: what they wait then, and before.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{IngestPipeline, RolloutPhase};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Figure, Outcome, timed};
use crate::pipeline::{NAME, manifest};
use crate::publisher;
use crate::trial::{Trial, lone_trial};
use crate::until::until;

/// Messages per second.
const RATE: u32 = 2_000;
/// How long it runs before a new revision is asked for, and after it has taken over.
const CALM: Duration = Duration::from_secs(20);
/// Of that, what is not counted: the first batches are those of a start.
const WARM: i64 = 5_000;
/// How often messages that are due are published.
const TICK: Duration = Duration::from_millis(10);
/// A whole rollout.
const DONE: Duration = Duration::from_mins(5);

/// Measures.
pub async fn run() -> Result<Outcome> {
    let mut rows = Vec::new();
    lone_trial("cutover", async |t| {
        let mut pipeline = manifest(NAME);
        pipeline["spec"]["scaling"] = json!({ "minReplicas": 2 });
        pipeline["spec"]["rollout"] = json!({ "blueGreen": {
            "preview": { "maxSeconds": 30 },
            "scaleDownDelaySeconds": 20,
        } });
        timed::start(t, pipeline).await?;
        let enough = CancellationToken::new();
        let (published, moments) = tokio::try_join!(publish(t, &enough), change(t, &enough))?;
        timed::written(t, published).await?;
        rows = figures(t, published, moments).await?;
        Ok(())
    })
    .await?;
    Ok(Outcome { bench: "cutover".to_owned(), rows, more: serde_json::Map::new() })
}

/// Milliseconds since 1970: the start, the change, when the new revision takes the messages, and when it is the only one.
type Moments = [i64; 4];

async fn change(t: &Trial, enough: &CancellationToken) -> Result<Moments> {
    // Whatever becomes of it, the publisher ends.
    let _done = enough.clone().drop_guard();
    let begin = timed::millis();
    tokio::time::sleep(CALM).await;
    let active = async || -> Result<(RolloutPhase, Option<String>)> {
        let state = t.api::<IngestPipeline>().get(NAME).await?.status.and_then(|s| s.rollout).context("no rollout")?;
        Ok((state.phase, state.active))
    };
    let (_, first) = active().await?;
    let changed = timed::millis();
    t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "source": { "maxBytes": 500_000 } } })).await?;
    until(DONE, async || {
        let (phase, _) = active().await?;
        ensure!(phase == RolloutPhase::Verifying, "{phase:?}");
        Ok(())
    })
    .await?;
    let takes = timed::millis();
    until(DONE, async || {
        let (phase, now) = active().await?;
        ensure!(phase == RolloutPhase::Stable && now != first, "{phase:?}");
        Ok(())
    })
    .await?;
    let alone = timed::millis();
    tokio::time::sleep(CALM).await;
    Ok([begin, changed, takes, alone])
}

/// Publishes until it is enough; how many.
async fn publish(t: &Trial, enough: &CancellationToken) -> Result<u32> {
    let channel = timed::channel(t).await?;
    let (start, mut number) = (Instant::now(), 0);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !enough.is_cancelled() {
        tick.tick().await;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
        let due = (start.elapsed().as_secs_f64() * f64::from(RATE)) as u32;
        let mut sent = Vec::new();
        while number < due {
            sent.push(timed::publish(&channel, number).await?);
            number += 1;
        }
        for confirm in sent {
            publisher::taken(confirm).await?;
        }
    }
    Ok(number)
}

async fn figures(t: &Trial, published: u32, [begin, changed, takes, alone]: Moments) -> Result<Vec<Figure>> {
    let number = async |what: &str, from: i64, to: i64| -> Result<f64> {
        let sql = format!(
            "select coalesce((1000 * ({what}))::bigint, 0) from (select ts, received_at, extract(epoch from received_at - ts) as wait,
                 extract(epoch from received_at - lag(received_at) over (order by received_at)) as gap
             from {NAME} where ts between to_timestamp({from} / 1000.0) and to_timestamp({to} / 1000.0)) as rows"
        );
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of minutes")]
        Ok(t.store.admin.number(&sql).await? as f64 / 1000.0)
    };
    let p99 = "percentile_disc(0.99) within group (order by wait)";
    let before = number(p99, begin + WARM, changed).await?;
    let during = number(p99, takes, alone).await?;
    let all = number(p99, changed, alone).await?;
    let gap = number("max(gap)", changed, alone).await?;
    let seconds = Duration::from_millis((alone - changed).unsigned_abs()).as_secs_f64();
    let twice = "≤ 2 × floor";
    Ok(vec![
        Figure::new(
            "published → row, p99 from when the new revision takes the messages to the old one's end; floor: before the change",
            Some(before),
            during,
            "s",
            twice,
            during <= 2.0 * before,
        ),
        Figure::new(
            "the same from the change on: three pods start meanwhile, beside hub and store",
            Some(before),
            all,
            "s",
            "for comparison",
            true,
        ),
        Figure::new("longest time without a row in it", None, gap, "s", "< 1 s", gap < 1.0),
        Figure::new("change → the new revision alone", None, seconds, "s", "", true),
        Figure::new("messages, each a row, once", None, f64::from(published), "", "all", true),
    ])
}
