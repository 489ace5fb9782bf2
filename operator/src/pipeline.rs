//! An `IngestPipeline`: observe, decide, act.

mod act;
mod admit;
mod cleanup;
mod decide;
mod handler;
mod network;
mod observe;
mod plan;
mod pods;
mod reconcile;
mod render;
mod report;
mod revision;
mod size;
mod snapshot;
mod suspects;

pub use reconcile::{error_policy, reconcile};

#[cfg(test)]
mod tests;
