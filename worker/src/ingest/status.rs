//! What a worker tells the operator on `/status`.

use serde::{Deserialize, Serialize};

/// A worker's state at one moment. Counters begin with the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerStatus {
    /// The worker's revision; empty where it is run by hand.
    pub revision: String,
    /// Which queue it reads: `main`, `suspects-1` or `suspects-2`; `preview` where it reads copies.
    #[serde(default)]
    pub role: String,
    /// There is a connection to the hub.
    pub connected: bool,
    /// There is a consumer, or the sink is down and the worker waits for it without one.
    pub consuming: bool,
    /// The sink takes nothing; messages wait.
    pub holding: Option<HoldingStatus>,
    /// Messages that are being written.
    pub in_flight: u64,
    /// Messages received and not started.
    pub held: u64,
    /// Time in which at least one batch was being written, in seconds. Time of holding does not count.
    pub busy_seconds: f64,
    /// Messages acknowledged after their effect, repeats among them.
    pub processed: u64,
    /// Messages dead-lettered; of a preview those that it would have.
    pub dead_lettered: u64,
    /// Messages sent on to suspects.
    #[serde(default)]
    pub suspected: u64,
    /// Messages that failed in passing and were sent to wait.
    #[serde(default)]
    pub delayed: u64,
    /// Messages that failed here, by whose fault that was; one that is tried again counts each time.
    #[serde(default)]
    pub failed: Failures,
    /// Copies that a preview left alone.
    #[serde(default)]
    pub skipped: u64,
    /// When the process started, in seconds since 1970.
    pub started_seconds: u64,
    /// Sums over its batches; older workers do not tell them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<BatchSums>,
}

/// Messages that failed, by whose fault that was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// What the message is.
    pub content: u64,
    /// Something that passes.
    pub passing: u64,
    /// The handler died of it.
    pub killer: u64,
}

impl Failures {
    /// All of them.
    #[must_use]
    pub fn all(self) -> u64 {
        self.content + self.passing + self.killer
    }
}

/// Sums over the batches that were finished without a wait for the sink. What a batch costs is fitted from them as a + b·messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchSums {
    /// Batches.
    pub count: f64,
    /// Messages.
    pub messages: f64,
    /// Seconds that each took.
    pub seconds: f64,
    /// Messages times seconds of each.
    pub messages_seconds: f64,
    /// Messages of each, squared.
    pub messages_squared: f64,
    /// Most messages of a batch.
    pub full: f64,
    /// Batches at the same time.
    pub lanes: f64,
}

/// Why a worker holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldingStatus {
    /// Where: `sink`, `handler`, `deadLetter`, `delay` or `suspects`.
    pub stage: String,
    /// The reason in `CamelCase`.
    pub reason: String,
    /// One line: what is the matter, and what to do.
    pub message: String,
    /// For how long, in seconds.
    pub since_seconds: u64,
}
