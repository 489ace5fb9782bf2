//! An `IngestPipeline`: observe, decide, act.

pub(crate) mod act;
pub(crate) mod admit;
mod cleanup;
mod cutover;
mod decide;
pub(crate) mod effects;
mod handler;
mod letters;
pub(crate) mod network;
pub(crate) mod observe;
pub(crate) mod plan;
pub(crate) mod pods;
mod reconcile;
mod render;
pub(crate) mod report;
pub(crate) mod revision;
pub(crate) mod size;
pub(crate) mod snapshot;
mod suspects;

#[cfg(test)]
mod tests;
