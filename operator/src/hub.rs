//! Hubs: one connection each, and the topology of pipelines.

mod bindings;
mod declare;
mod depth;
mod look;
mod mirror;
mod oldest;
mod pool;
mod remove;
mod reply;
mod streams;
mod topologies;
mod topology;
mod waiting;

pub use depth::Depths;
pub use pool::{Hub, Hubs};
pub use remove::{Emptied, delete_all, delete_when_empty, sources_empty, unbind};
pub use streams::{Found, Streams};
pub use topologies::{Dead, Topologies};
pub use topology::{Arg, Bind, Queue, Topology};
