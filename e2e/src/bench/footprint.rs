//! What Drover itself takes: the operator's memory with many pipelines, and the size of the images.

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::IngestPipeline;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;

use super::crowd::{self, Process};
use super::{Figure, Outcome};
use crate::pipeline::{READY, condition, discarding};
use crate::surroundings::variable;
use crate::trial::{Trial, lone_trial};
use crate::until::{throughout, until};

/// Pipelines that the operator looks after.
const PIPELINES: usize = 100;

/// The operator may have so many MiB.
const MEMORY: f64 = 40.0;

/// An image may have so many MB.
const IMAGE: f64 = 40.0;

const MB: f64 = 1_000_000.0;

/// Measures.
pub async fn run() -> Result<Outcome> {
    let mut rows = Vec::new();
    lone_trial("footprint", async |t| {
        rows.extend(images(t).await?);
        let operator = Process::find(&t.client).await?;
        let idle = operator.memory()?;
        crowd::apply(t, PIPELINES, suspended).await?;
        ready(t).await?;
        let mut most = 0_f64;
        // Twice as long as the operator leaves a pipeline that is well alone.
        throughout(READY * 4, async || {
            most = most.max(operator.memory()?);
            Ok(())
        })
        .await?;
        rows.push(figure("operator, memory without pipelines", idle, "MiB", MEMORY));
        rows.push(figure(&format!("operator, most memory with {PIPELINES} pipelines"), most, "MiB", MEMORY));
        Ok(())
    })
    .await?;
    Ok(Outcome { bench: "footprint".to_owned(), rows, more: serde_json::Map::new() })
}

/// Without pods: what they cost is the operator's.
fn suspended(number: usize) -> Value {
    let mut manifest = discarding(&format!("p-{number}"));
    manifest["spec"]["suspend"] = true.into();
    manifest
}

async fn ready(t: &Trial) -> Result<()> {
    until(READY * 2, async || {
        let all = t.list::<IngestPipeline>("").await?;
        let is_ready = |pipeline: &&IngestPipeline| condition(pipeline, "Ready").is_some_and(|c| c.status == "True");
        let count = all.iter().filter(is_ready).count();
        ensure!(count == PIPELINES, "{count} of {PIPELINES} are ready");
        Ok(())
    })
    .await
}

fn figure(what: &str, ours: f64, unit: &str, most: f64) -> Figure {
    Figure::new(what, None, ours, unit, &format!("≤ {most} {unit}"), ours <= most)
}

/// Sizes of both images, as the node tells them.
async fn images(t: &Trial) -> Result<Vec<Figure>> {
    let (registry, tag) = (variable("DROVER_IMAGE_REGISTRY")?, variable("DROVER_IMAGE_TAG")?);
    let nodes = Api::<Node>::all(t.client.clone()).list(&ListParams::default()).await?;
    let images: Vec<_> = nodes.items.into_iter().filter_map(|node| node.status?.images).flatten().collect();
    let sized = ["drover-worker", "drover-operator"].map(|name| {
        let full = format!("{registry}/{name}:{tag}");
        let has = |names: &Option<Vec<String>>| names.iter().flatten().any(|name| *name == full);
        let image = images.iter().find(|image| has(&image.names)).with_context(|| format!("no node has {full}"))?;
        #[expect(clippy::cast_precision_loss, reason = "a size of some megabytes")]
        let bytes = image.size_bytes.unwrap_or_default() as f64;
        Ok(figure(&format!("{name}, image as the node holds it"), bytes / MB, "MB", IMAGE))
    });
    sized.into_iter().collect()
}
