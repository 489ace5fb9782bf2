//! Hubs: one connection each, and the topology of pipelines.

mod declare;
mod pool;
mod remove;
mod topology;

pub use pool::{Hub, Hubs};
pub(crate) use remove::{Emptied, delete_all, delete_when_empty, sources_empty, unbind};
pub(crate) use topology::Topology;
