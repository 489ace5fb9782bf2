//! Dead letters: looked at, sent back, deleted. The operator and the plugin do it by the same functions.
//!
//! Nothing here is acknowledged before it is confirmed elsewhere, or meant to be gone. Whatever ends a run, the rest is in
//! the queue.

mod letter;
mod look;
mod purge;
mod redrive;
mod scan;
mod selection;

use drover_worker::{
    hub::{HubAddress, HubError},
    redrive::RedriveError,
};

pub use letter::Letter;
pub use look::{Look, look};
pub use purge::purge;
pub use redrive::{Destination, redrive};
pub use selection::{Invalid, Selection};

/// Where dead letters are.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    /// The hub.
    pub hub: HubAddress,
    /// The dead-letter queue.
    pub queue: String,
}

/// How much is done, and how fast.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    /// At most so many letters.
    pub most: Option<u64>,
    /// At most so many a second.
    pub rate: Option<f64>,
    /// At most so many are held at once; as many as is fast where it is not given.
    pub held: Option<u16>,
    /// Nothing is done; it is only counted.
    pub dry_run: bool,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Letters in the queue when it began.
    pub depth: u64,
    /// Letters that were looked at.
    pub looked: u64,
    /// Those that match, as far as they were asked for.
    pub matched: u64,
    /// Those that were sent back, or deleted.
    pub done: u64,
}

/// It could not be done, or not to the end.
#[derive(Debug, thiserror::Error)]
pub enum DeadError {
    /// There is no connection.
    #[error("hub: {0}")]
    Hub(#[source] HubError),
    /// The queue cannot be read.
    #[error("queue {queue} cannot be read: it is missing, or the user may not read it")]
    Queue {
        /// The queue.
        queue: String,
        /// What the hub said.
        #[source]
        source: lapin::Error,
    },
    /// The connection broke.
    #[error("the hub ended the connection; what was not done is in the queue, run it again")]
    Lost(#[source] lapin::Error),
    /// A name for which AMQP has no room.
    #[error("{0:?} is too long a name")]
    NameTooLong(String),
    /// Letters cannot be published.
    #[error("{0}; what was not done is in the queue")]
    Publish(#[source] RedriveError),
    /// No queue takes them.
    #[error("no queue is bound to {0}: does the pipeline run? Name a queue with --to. All is in the queue as it was")]
    Unroutable(String),
    /// A queue is full.
    #[error("the queue behind {0} takes no more: it is full. What was not done is in the queue")]
    Refused(String),
    /// To itself.
    #[error("queue {0} is the one that the letters are in")]
    SameQueue(String),
}
