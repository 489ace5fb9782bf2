//! Benchmarks: which there are, how each is run, and where its figures go.

pub mod cargo;
mod crowd;
pub mod cutover;
pub mod footprint;
pub mod from_zero;
pub mod live_trace;
pub mod pod_start;
pub mod report;
pub mod slow_messages;
pub mod thousand;
mod timed;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// A benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bench {
    /// Messages of a queue into PostgreSQL, against a bare loop that does the same.
    Drain,
    /// A handler that fails for a tenth of the messages.
    Retry,
    /// What workers held that are gone at once, beside fresh messages.
    NodeLoss,
    /// JSON events decoded and counted in windows.
    DecodeAndWindow,
    /// Events of a stream into rows of windows, against a bare reader of the stream.
    StreamToRow,
    /// A million keys in one window, and the memory that they take.
    WindowKeys,
    /// From a pod's creation to its consumer.
    PodStart,
    /// From the first message to its row, where nothing runs.
    FromZero,
    /// A load replayed against rules for replicas.
    LoadTrace,
    /// The same, shortened, on the cluster.
    LiveTrace,
    /// Few messages that take long, where nothing runs.
    SlowMessages,
    /// A new revision takes over under load.
    Cutover,
    /// Memory and images.
    Footprint,
    /// A thousand pipelines on one operator.
    Thousand,
}

impl Bench {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 14] = [
        Self::Drain,
        Self::Retry,
        Self::NodeLoss,
        Self::DecodeAndWindow,
        Self::StreamToRow,
        Self::WindowKeys,
        Self::PodStart,
        Self::FromZero,
        Self::LoadTrace,
        Self::LiveTrace,
        Self::SlowMessages,
        Self::Cutover,
        Self::Footprint,
        Self::Thousand,
    ];

    /// Its name, as on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Retry => "retry",
            Self::NodeLoss => "node loss",
            Self::DecodeAndWindow => "decode and window",
            Self::StreamToRow => "stream to row",
            Self::WindowKeys => "window keys",
            Self::PodStart => "pod start",
            Self::FromZero => "from zero",
            Self::LoadTrace => "load trace",
            Self::LiveTrace => "load trace on the cluster",
            Self::SlowMessages => "slow messages",
            Self::Cutover => "cutover",
            Self::Footprint => "footprint",
            Self::Thousand => "1000 pipelines",
        }
    }

    /// The benchmark of that name.
    pub fn named(name: &str) -> Result<Self> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|bench| bench.name() == name);
        found.with_context(|| format!("there is no benchmark {name:?}; there are: {}", names()))
    }

    /// Runs it.
    pub async fn run(self) -> Result<Outcome> {
        match self {
            Self::Drain => cargo::run("drain").await,
            Self::Retry => cargo::run("retry").await,
            Self::NodeLoss => cargo::run("node_loss").await,
            Self::DecodeAndWindow => cargo::run("decode_and_window").await,
            Self::StreamToRow => cargo::run("stream_to_row").await,
            Self::WindowKeys => cargo::run("window_keys").await,
            Self::PodStart => pod_start::run().await,
            Self::FromZero => from_zero::run().await,
            Self::LoadTrace => cargo::run("load_trace").await,
            Self::LiveTrace => live_trace::run().await,
            Self::SlowMessages => slow_messages::run().await,
            Self::Cutover => cutover::run().await,
            Self::Footprint => footprint::run().await,
            Self::Thousand => thousand::run().await,
        }
    }
}

/// What a benchmark found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub bench: String,
    /// Its figures.
    pub rows: Vec<Figure>,
    /// What else it measured.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

/// One figure, beside what it is held against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// The same done by the least that can do it, in the same run.
    #[serde(default)]
    pub floor: Option<f64>,
    /// The same done by another product, in the same run.
    #[serde(default)]
    pub peer: Option<f64>,
    /// Ours.
    pub ours: f64,
    /// Of all three.
    pub unit: String,
    /// What ours should be.
    #[serde(default)]
    pub aim: String,
    /// It is.
    pub met: bool,
}

impl Figure {
    /// One without a peer.
    #[must_use]
    pub fn new(what: &str, floor: Option<f64>, ours: f64, unit: &str, aim: &str, met: bool) -> Self {
        let [what, unit, aim] = [what, unit, aim].map(str::to_owned);
        Self { what, floor, peer: None, ours, unit, aim, met }
    }
}

/// The value in the middle; the lower one of an even number. Zero of none.
#[must_use]
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bench_is_found_by_its_name() {
        for bench in Bench::ALL {
            assert_eq!(Bench::named(bench.name()).unwrap(), bench);
        }
        assert!(Bench::named("speed").unwrap_err().to_string().contains("decode and window"));
    }

    #[test]
    fn the_median_is_a_value_that_was_seen() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&mut [4.0, 1.0, 3.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(&mut []).abs() < f64::EPSILON);
    }
}
