//! An upgrade of the operator that gives all workers another pod template changes few pipelines at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use drover_crds::api::{IngestPipeline, RolloutPhase};
use drover_e2e::operator;
use drover_e2e::pipeline::{READY, discarding};
use drover_e2e::trial::{Trial, lone_trial};
use drover_e2e::until::until;
use kube::ResourceExt as _;
use serde_json::json;

use crate::rollout::state;

const PIPELINES: usize = 30;
/// `maxRollouts` of the chart.
const AT_ONCE: usize = 5;
/// All of them, a few at a time.
const DONE: Duration = Duration::from_mins(3);
/// Nothing tells of two phases that follow each other sooner.
const LOOK: Duration = Duration::from_millis(100);

/// Each pipeline's active revision, and those that are on their way to another.
async fn look(t: &Trial) -> Result<(BTreeSet<String>, Vec<String>)> {
    let (mut active, mut under_way) = (BTreeSet::new(), Vec::new());
    for pipeline in t.list::<IngestPipeline>("").await? {
        let state = state(&pipeline);
        if !matches!(state.phase, RolloutPhase::Stable | RolloutPhase::Aborted) {
            under_way.push(pipeline.name_any());
        }
        active.extend(state.active.map(|revision| format!("{} {revision}", pipeline.name_any())));
    }
    Ok((active, under_way))
}

async fn change(t: &Trial) -> Result<()> {
    for number in 0..PIPELINES {
        let mut pipeline = discarding(&format!("p{number:02}"));
        pipeline["spec"]["rollout"] = json!({ "blueGreen": { "scaleDownDelaySeconds": 1 } });
        t.apply::<IngestPipeline>(&pipeline).await?;
    }
    let before = until(READY * 6, async || {
        let (active, under_way) = look(t).await?;
        ensure!(active.len() == PIPELINES && under_way.is_empty(), "{} of {PIPELINES} are active", active.len());
        Ok(active)
    })
    .await?;
    let watched = async {
        let mut most = 0;
        loop {
            let (active, under_way) = look(t).await?;
            most = most.max(under_way.len());
            // Not to be mended by waiting.
            ensure!(under_way.len() <= AT_ONCE, "{under_way:?} are on their way at once");
            if active.len() == PIPELINES && active.is_disjoint(&before) && under_way.is_empty() {
                return Ok(most);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    // It is part of the pods: each gets a new revision that nobody has asked for.
    let upgraded = operator::install_chart_with(&t.client, &["image.pullPolicy=Never"]);
    let (upgraded, most) = tokio::join!(upgraded, tokio::time::timeout(DONE * 10, watched));
    upgraded?;
    let most = most??;
    ensure!(most > 1, "one at a time, or nothing was seen: {most}");
    eprintln!("upgrade: at most {most} of {PIPELINES} at once");
    Ok(())
}

#[tokio::test]
#[ignore = "slow: thirty pipelines change one after the other"]
async fn an_upgrade_that_changes_all_pods_changes_few_pipelines_at_a_time() -> Result<()> {
    lone_trial("upgrade", async |t| {
        let changed = change(t).await;
        // For the tests that follow, whatever is found.
        operator::install_chart(&t.client).await?;
        changed
    })
    .await
}
