//! Remembers for a moment which topologies were seen to be as they should be.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{pool::Hub, topology::Topology};
use crate::{context::now, problem::Problem};

/// A topology seen less than this long ago is still there: twice the time between two looks when all is well.
const FRESH: Duration = Duration::from_secs(30);

/// Of each object, by its UID: what was seen to be there, when, and how many dead letters there were.
#[derive(Debug, Default)]
pub struct Topologies {
    seen: Mutex<HashMap<String, (String, Instant, u32)>>,
}

impl Topologies {
    /// Makes sure of a topology, and counts the dead letters; where it is `pressing`, what was seen a moment ago is enough.
    pub(crate) async fn ensure(
        &self,
        owner: &str,
        hub: &Hub,
        topology: &Topology,
        pressing: bool,
    ) -> Result<u32, Problem> {
        let what = format!("{} {topology:?}", hub.name());
        if pressing
            && let Some((seen, at, dead)) = self.lock().get(owner)
            && *seen == what
            && now().1.duration_since(*at) < FRESH
        {
            return Ok(*dead);
        }
        let found = hub.ensure(topology).await;
        match &found {
            Ok(dead) => self.lock().insert(owner.to_owned(), (what, now().1, *dead)),
            Err(_) => self.lock().remove(owner),
        };
        found
    }

    /// The object is gone.
    pub(crate) fn forget(&self, owner: &str) {
        self.lock().remove(owner);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (String, Instant, u32)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
