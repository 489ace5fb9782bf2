//! Few messages of ten seconds each, from zero: the first worker must not take them all.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::time::Instant;

use super::{Figure, Outcome};
use crate::pipeline::{NAME, manifest};
use crate::store::Each;
use crate::trial::lone_trial;
use crate::until::within;

const MESSAGES: u32 = 150;

/// What each takes, in seconds.
const EACH: f64 = 10.0;

const WORKERS: u32 = 20;

/// Measures.
pub async fn run() -> Result<Outcome> {
    let mut seconds = 0.0;
    let ideal = f64::from(MESSAGES.div_ceil(WORKERS)) * EACH;
    lone_trial("slow-messages", async |t| {
        let mut pipeline = manifest(NAME);
        pipeline["spec"]["scaling"] = json!({ "maxReplicas": WORKERS });
        pipeline["spec"]["worker"] = json!({ "concurrency": 1 });
        t.telemetry_as(&pipeline).await?;
        t.store.slow(NAME, Each::Row, EACH).await?;
        let began = Instant::now();
        t.publish(0..MESSAGES).await?;
        within(Duration::from_secs_f64(ideal * 10.0), async || {
            let there = t.store.admin.number(&format!("select count(*) from {NAME}")).await?;
            ensure!(there == i64::from(MESSAGES), "{there} of {MESSAGES} are done");
            Ok(())
        })
        .await?;
        seconds = began.elapsed().as_secs_f64();
        t.has_rows(NAME, 0..MESSAGES).await?;
        t.no_dead_letters().await
    })
    .await?;
    let figure = Figure {
        what: format!(
            "{MESSAGES} messages of {EACH} s from zero, at most {WORKERS} workers; floor: all of them at once"
        ),
        floor: Some(ideal),
        peer: None,
        ours: seconds,
        unit: "s".to_owned(),
        aim: "≤ 2 × the floor".to_owned(),
        met: seconds <= 2.0 * ideal,
    };
    Ok(Outcome { bench: "slow messages".to_owned(), rows: vec![figure], more: serde_json::Map::new() })
}
