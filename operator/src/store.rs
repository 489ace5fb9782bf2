//! Looks at the tables of sinks, as the workers will see them, and remembers for a while what it saw.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use drover_crds::api::PostgresSink;
use drover_worker::store::{self, StoreAddress, table};

use crate::{probe::Probe, problem::Problem};

/// A table that fits is looked at again after this long; workers tell of trouble sooner.
const FRESH: Duration = Duration::from_mins(1);
/// One that does not, after this long.
const PAUSE: Duration = Duration::from_secs(2);

/// How far a good answer that was had before is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// For a while.
    Usual,
    /// Not for long: workers are in trouble.
    Doubt,
    /// Whatever its age: something else is to be done now, and the next look is soon.
    Pressing,
}

/// What was seen lately of the table of each pipeline, by its UID.
#[derive(Debug, Default)]
pub struct Stores {
    seen: Mutex<HashMap<String, Look>>,
}

/// Of one pipeline: what is looked at, and what was seen. Another secret or another sink is another look.
#[derive(Debug, Default)]
struct Look {
    what: String,
    probe: Arc<Probe<Result<(), Problem>>>,
}

impl Stores {
    /// Whether a table fits what a pipeline writes. `digest` changes with the secret.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) async fn check(
        &self,
        owner: &str,
        digest: &str,
        address: &StoreAddress,
        sink: &PostgresSink,
        trust: Trust,
    ) -> Result<(), Problem> {
        let what = serde_json::to_string(&(digest, sink)).unwrap_or_default();
        let probe = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = seen.entry(owner.to_owned()).or_default();
            if entry.what != what {
                *entry = Look { what, probe: Arc::default() };
            }
            Arc::clone(&entry.probe)
        };
        let life = |seen: &Result<(), Problem>| match trust {
            Trust::Pressing if seen.is_ok() => Duration::MAX,
            Trust::Usual if seen.is_ok() => FRESH,
            _ => PAUSE,
        };
        let seen = probe.ask(life, || look(address.clone(), sink.clone())).await;
        seen.unwrap_or_else(|| Err(Problem::new("Connecting", "sink.postgres: it has not answered yet")))
    }

    /// The pipeline is gone.
    pub(crate) fn forget(&self, owner: &str) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(owner);
    }
}

async fn look(address: StoreAddress, sink: PostgresSink) -> Result<(), Problem> {
    let client = store::connect(&address, "drover-operator")
        .await
        .map_err(|e| Problem::new(e.reason.as_str(), format!("sink.postgres: {}", e.message)))?;
    let problem = |e: table::TableProblem| Problem::new(e.reason.as_str(), format!("sink.postgres: {e}"));
    let shape = table::describe(&client, &sink).await.map_err(problem)?;
    shape.fits(&sink).map_err(problem)
}
