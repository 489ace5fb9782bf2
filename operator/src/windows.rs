//! A `WindowQuery`: observe, decide, act.

pub(crate) mod admit;
mod cleanup;
mod decide;
mod observe;
pub mod outside;
mod reconcile;
mod render;
mod report;
pub mod scale;
mod snapshot;
mod verdict;
pub mod wake;
mod watch;

use std::sync::Arc;

use crate::{metrics::Metrics, workers::Workers};
use outside::Outsides;
use watch::Watches;

/// What is remembered of queries between two looks: their hubs and stores, and how many workers they need.
#[derive(Debug)]
pub struct Windows {
    pub(crate) outsides: Outsides,
    pub(crate) watches: Arc<Watches>,
}

impl Windows {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(workers: Workers, metrics: Metrics) -> Self {
        Self { outsides: Outsides::default(), watches: Arc::new(Watches::new(workers, metrics)) }
    }

    /// The object is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.outsides.forget(uid);
        self.watches.forget(uid);
    }
}

#[cfg(test)]
mod tests;
