//! Remembers for a moment which topologies were seen to be as they should be, and for longer how old their dead letters are.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;

use super::{pool::Hub, topology::Topology};
use crate::{audit::Cause, context::now, problem::Problem};

/// A topology seen less than this long ago is still there: twice the time between two looks when all is well.
const FRESH: Duration = Duration::from_secs(30);
/// The oldest dead letter is looked at no more often, unless some have gone: what is told of it is a matter of hours.
const LOOK: Duration = Duration::from_mins(10);

/// Dead letters of an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dead {
    /// How many there are.
    pub count: u32,
    /// Since when the oldest is there, as seen some minutes ago at most.
    pub oldest: Option<Timestamp>,
}

/// What was seen of an object's topology.
#[derive(Debug, Clone)]
struct Seen {
    what: String,
    at: Instant,
    dead: Dead,
    looked: Option<Instant>,
}

/// Of each object, by its UID: what was seen.
#[derive(Debug, Default)]
pub struct Topologies {
    seen: Mutex<HashMap<String, Seen>>,
}

impl Topologies {
    /// Makes sure of a topology, and counts the dead letters; where it is `pressing`, what was seen a moment ago is enough.
    pub(crate) async fn ensure(
        &self,
        cause: &Cause,
        hub: &Hub,
        topology: &Topology,
        pressing: bool,
    ) -> Result<Dead, Problem> {
        let owner = cause.uid();
        let what = format!("{} {topology:?}", hub.name());
        let before = self.lock().get(owner).filter(|seen| seen.what == what).cloned();
        if let Some(seen) = before.as_ref().filter(|seen| pressing && now().1.duration_since(seen.at) < FRESH) {
            return Ok(seen.dead);
        }
        let count = match hub.ensure(topology, cause).await {
            Ok(count) => count,
            Err(problem) => {
                self.lock().remove(owner);
                return Err(problem);
            }
        };
        let (oldest, looked) = match before.filter(|seen| !is_due(seen, count, now().1)) {
            _ if count == 0 => (None, None),
            Some(seen) => (seen.dead.oldest, seen.looked),
            // What cannot be seen now is not known until the next look.
            None => (hub.oldest(&topology.dead).await.unwrap_or_default(), Some(now().1)),
        };
        let dead = Dead { count, oldest };
        self.lock().insert(owner.to_owned(), Seen { what, at: now().1, dead, looked });
        Ok(dead)
    }

    /// The object is gone.
    pub(crate) fn forget(&self, owner: &str) {
        self.lock().remove(owner);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the oldest is to be looked at: never so far, long ago, or another one may be the oldest now.
fn is_due(seen: &Seen, count: u32, now: Instant) -> bool {
    count < seen.dead.count || seen.looked.is_none_or(|at| now.duration_since(at) >= LOOK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_looked_at_now_and_then_and_when_some_have_gone() {
        let (_, start) = now();
        let dead = Dead { count: 5, oldest: None };
        let seen = Seen { what: String::new(), at: start, dead, looked: Some(start) };
        assert!(!is_due(&seen, 5, start) && !is_due(&seen, 9, start + LOOK / 2));
        assert!(is_due(&seen, 4, start) && is_due(&seen, 9, start + LOOK));
        assert!(is_due(&Seen { looked: None, ..seen }, 5, start));
    }
}
