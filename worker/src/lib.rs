//! Drover's worker as a library: what the binary runs, and what the operator shares with it (hub and store connections, and how a
//! dead letter is published again).

mod answer;
pub mod hub;
pub mod ingest;
pub mod query;
pub mod settings;
pub mod store;
pub mod stream;
pub mod tls;
mod traces;

pub use ingest::{redrive, status};
