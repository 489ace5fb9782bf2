//! What a query's worker tells the operator on `/status`.

use serde::{Deserialize, Serialize};

pub use crate::ingest::status::HoldingStatus;

/// A worker's state at one moment, and what it last read of the query's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryStatus {
    /// The worker's revision; empty where it is run by hand.
    pub revision: String,
    /// There is a connection to the hub.
    pub connected: bool,
    /// State and result tables are there, and partitions are claimed.
    pub ready: bool,
    /// Why work waits, of each stage: `store`, `hub`, `partition`, `tick`, `close` and `relay`.
    pub holding: Vec<HoldingStatus>,
    /// Partitions that this worker holds.
    pub held: Vec<i32>,
    /// All partitions of the query, as the store has them.
    pub partitions: Vec<PartitionStatus>,
    /// Windows are open: partial aggregates are kept.
    pub open: bool,
    /// Dead letters that are not in the queue yet.
    pub dead_letters_waiting: i64,
    /// Result rows that are not at the hub yet.
    pub rows_waiting: i64,
    /// When the process started, in seconds since 1970.
    pub started_seconds: u64,
}

/// A partition as the store has it. Counters begin with the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStatus {
    /// Its number.
    pub partition: i32,
    /// How often its stream was another one than before.
    pub generation: i64,
    /// The offset that is read next.
    pub next_offset: i64,
    /// No event counts at an earlier time: milliseconds since 1970.
    pub watermark_millis: Option<i64>,
    /// Arrival of the newest message that was read, or the clock of the newest tick: milliseconds since 1970.
    pub read_at_millis: Option<i64>,
    /// Claims without progress.
    pub stalled_claims: i32,
    /// Events at their own time.
    pub on_time: i64,
    /// Events at a moved time.
    pub adjusted: i64,
    /// Events that were dropped.
    pub dropped: i64,
    /// Events that are dead letters, undecodable messages among them.
    pub dead_lettered: i64,
    /// Messages that said nothing of their arrival.
    pub without_arrival: i64,
    /// Messages that were passed over because they end workers.
    pub skipped: i64,
    /// Data loss: messages that were gone before they were read, and 1 for each stream that was declared anew.
    pub lost: i64,
    /// When that was noticed last, in seconds since 1970.
    pub lost_at_seconds: Option<i64>,
}
