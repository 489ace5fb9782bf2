//! How long a worker takes from its pod's creation to its consumer, the median of several starts.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::IngestPipeline;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams};
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Figure, Outcome, median};
use crate::pipeline::{NAME, READY, discarding};
use crate::trial::{Trial, lone_trial};
use crate::until::until;

/// Starts of each.
const STARTS: usize = 11;

/// Promised, in seconds.
const AIM: f64 = 1.5;

/// How often hub and API server are asked: short against what is measured.
const TICK: Duration = Duration::from_millis(10);

/// An image that does nothing, which the nodes of `make cluster-up` have.
const NOTHING: &str = "localhost/pause:1";

/// Measures.
pub async fn run() -> Result<Outcome> {
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    lone_trial("pod-start", async |t| {
        t.apply::<IngestPipeline>(&discarding(NAME)).await?;
        t.ready(NAME).await?;
        for _ in 0..STARTS {
            ours.push(start(t).await?);
            // On a cluster without that image there is no floor.
            if let Ok(seconds) = bare(t).await {
                floor.push(seconds);
            }
        }
        Ok(())
    })
    .await?;
    let samples = json!({ "ours": ours, "floor": floor });
    let middle = median(&mut ours);
    let figure = Figure {
        what: "worker pod created → consuming; floor: an empty pod created → running".to_owned(),
        floor: (!floor.is_empty()).then(|| median(&mut floor)),
        peer: None,
        ours: middle,
        unit: "s".to_owned(),
        aim: format!("≤ {AIM} s"),
        met: middle <= AIM,
    };
    let more = serde_json::Map::from_iter([("samples".to_owned(), samples)]);
    Ok(Outcome { bench: "pod start".to_owned(), rows: vec![figure], more })
}

/// Seconds from the first sight of a new worker pod to its consumer.
async fn start(t: &Trial) -> Result<f64> {
    t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "suspend": true } })).await?;
    until(READY, async || {
        let left = t.list::<Pod>(&format!("drover.dev/pipeline={NAME}")).await?.len();
        let depth = t.hub.depth(NAME).await?.context("no queue")?;
        ensure!(left == 0 && depth.consumers == 0, "{left} pods and {} consumers are left", depth.consumers);
        Ok(())
    })
    .await?;
    let channel = t.hub.channel().await?;
    t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "suspend": false } })).await?;
    let labels = ListParams::default().labels(&format!("drover.dev/pipeline={NAME}"));
    let pods = t.api::<Pod>();
    first(async || Ok(!pods.list(&labels).await?.items.is_empty())).await.context("no pod is created")?;
    let created = Instant::now();
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    first(async || Ok(channel.queue_declare(NAME.into(), passive, FieldTable::default()).await?.consumer_count() > 0))
        .await
        .context("it does not consume")?;
    Ok(created.elapsed().as_secs_f64())
}

/// Seconds from the creation of a pod that does nothing to its running.
async fn bare(t: &Trial) -> Result<f64> {
    let name = "nothing";
    let restricted = json!({
        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
        "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" },
    });
    let container =
        json!({ "name": name, "image": NOTHING, "imagePullPolicy": "Never", "securityContext": restricted });
    let pod = json!({ "metadata": { "name": name }, "spec": { "containers": [container], "automountServiceAccountToken": false } });
    t.apply::<Pod>(&pod).await?;
    let created = Instant::now();
    let pods = t.api::<Pod>();
    let running =
        first(async || Ok(pods.get(name).await?.status.and_then(|status| status.phase).as_deref() == Some("Running")))
            .await;
    let seconds = created.elapsed().as_secs_f64();
    t.delete::<Pod>(name, &DeleteParams::default().grace_period(0)).await?;
    until(READY, async || {
        ensure!(!t.list::<Pod>("").await?.iter().any(|pod| pod.name_any() == name), "it is still there");
        Ok(())
    })
    .await?;
    running.map(|()| seconds)
}

/// Asks at every tick until the answer is yes.
async fn first(mut probe: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let asked = async {
        while !probe().await? {
            tick.tick().await;
        }
        anyhow::Ok(())
    };
    timeout(READY * 4, asked).await?
}
