//! Looks at the tables of sinks, as the workers will see them, and remembers for a while what it saw.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use drover_crds::api::PostgresSink;
use drover_worker::store::{self, StoreAddress, table};

use crate::problem::Problem;

/// A table that fits is looked at again after this long; workers tell of trouble sooner.
const FRESH: Duration = Duration::from_mins(1);
/// One that does not, after this long.
const PAUSE: Duration = Duration::from_secs(3);

/// Of a pipeline, with its secret and sink.
type Key = (String, String);
/// What was seen, and when.
type Seen = HashMap<Key, (Instant, Result<(), Problem>)>;

/// What was seen lately.
#[derive(Debug, Default)]
pub struct Stores {
    seen: Mutex<Seen>,
}

impl Stores {
    /// Whether a table fits what a pipeline writes. `owner` is the pipeline, `digest` changes with the secret; both, and the sink as
    /// written, make it another look. Workers in trouble make it a fresh one.
    pub(crate) async fn check(
        &self,
        owner: &str,
        digest: &str,
        address: &StoreAddress,
        sink: &PostgresSink,
        doubt: bool,
        now: Instant,
    ) -> Result<(), Problem> {
        let what = serde_json::to_string(&(digest, sink)).unwrap_or_default();
        let key = (owner.to_owned(), what);
        if let Some((at, result)) = self.lock().get(&key) {
            let life = if result.is_ok() && !doubt { FRESH } else { PAUSE };
            if now.duration_since(*at) < life {
                return result.clone();
            }
        }
        let result = look(address, sink).await;
        let mut seen = self.lock();
        seen.retain(|(o, _), (at, _)| o != owner && now.duration_since(*at) < 2 * FRESH);
        seen.insert(key, (now, result.clone()));
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look(address: &StoreAddress, sink: &PostgresSink) -> Result<(), Problem> {
    let client = store::connect(address, "drover-operator")
        .await
        .map_err(|e| Problem::new(e.reason.as_str(), format!("sink.postgres: {}", e.message)))?;
    let problem = |e: table::TableProblem| Problem::new(e.reason.as_str(), format!("sink.postgres: {e}"));
    let shape = table::describe(&client, sink).await.map_err(problem)?;
    shape.fits(sink).map_err(problem)
}
