//! Hubs: one connection each, and the topology of pipelines.

mod declare;
mod pool;
mod remove;
mod reply;
mod topology;
mod waiting;

pub use pool::{Hub, Hubs};
pub use remove::{Emptied, delete_all, delete_when_empty, sources_empty, unbind};
pub use topology::{Arg, Bind, Queue, Topology};
