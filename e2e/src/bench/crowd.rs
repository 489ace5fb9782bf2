//! Pipelines without pods, and what the operator takes for them: what it costs to look after them is its own.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::IngestPipeline;
use futures::{TryStreamExt as _, stream};
use kube::Client;
use serde_json::Value;

use crate::operator;
use crate::sigkill::processes;
use crate::trial::Trial;

/// Pipelines that are applied at the same time.
const AT_ONCE: usize = 16;

const MIB: f64 = 1024.0 * 1024.0;

/// Of every Linux: what `/proc` counts a process' time in, per second.
const TICKS: f64 = 100.0;

/// Applies pipelines, the manifest of each by its number.
pub(super) async fn apply(t: &Trial, count: usize, manifest: impl Fn(usize) -> Value) -> Result<()> {
    let all = stream::iter((0..count).map(Ok)).try_for_each_concurrent(AT_ONCE, |number| {
        let manifest = manifest(number);
        async move { t.apply::<IngestPipeline>(&manifest).await.map(drop) }
    });
    Ok(all.await?)
}

/// The operator's process on this machine.
#[derive(Debug)]
pub(super) struct Process(String);

impl Process {
    /// The one that works now.
    pub(super) async fn find(client: &Client) -> Result<Self> {
        let pod = operator::pod(client).await?;
        let found = processes(pod.metadata.uid.as_deref().unwrap_or_default())?;
        let found = found.into_iter().next();
        found.map(Self).context("the operator is no process of this machine: what it takes cannot be read")
    }

    /// Its resident memory, in MiB.
    pub(super) fn memory(&self) -> Result<f64> {
        self.status("VmRSS:")
    }

    /// The most that it ever had, in MiB.
    pub(super) fn peak(&self) -> Result<f64> {
        self.status("VmHWM:")
    }

    /// The time that it has computed for, in seconds of one core.
    pub(super) fn cpu(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // A name may hold blanks; what follows it are numbers, from the third field on: user and system time are the 14th and 15th.
        let (_, fields) = stat.rsplit_once(") ").context("no name")?;
        let times: Vec<f64> = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
        ensure!(times.len() == 2, "no times");
        Ok(times.iter().sum::<f64>() / TICKS)
    }

    fn status(&self, field: &str) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("no {field}"))?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{field} is no number"))?;
        Ok(kib * 1024.0 / MIB)
    }
}
