//! What all tasks of a query's worker share.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use drover_crds::query::{Input, StepKind, Window};
use tokio::sync::{Notify, RwLock};
use tokio_postgres::Client;

use super::{emit::Targets, meter::Meter, schema, settings::StreamSettings};
use crate::store::{self, StoreError};

/// The query that runs, and what its tasks tell each other.
pub(crate) struct Job {
    pub(crate) settings: StreamSettings,
    pub(crate) query: String,
    pub(crate) revision: String,
    pub(crate) connection_name: String,
    pub(crate) meter: Meter,
    /// Held shared by ordinary work, and alone by a message that may end the process.
    pub(crate) gate: RwLock<()>,
    /// A watermark has moved.
    pub(crate) moved: Notify,
    /// There is something to relay.
    pub(crate) left: Notify,
    targets: Mutex<Option<Arc<Targets>>>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("query", &self.query).field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl Job {
    pub(crate) fn new(settings: StreamSettings, connection_name: String) -> Self {
        Self {
            query: settings.query_name(),
            revision: settings.identity.revision.clone(),
            settings,
            connection_name,
            meter: Meter::default(),
            gate: RwLock::new(()),
            moved: Notify::new(),
            left: Notify::new(),
            targets: Mutex::new(None),
        }
    }

    pub(crate) fn sql(&self, text: &str) -> String {
        schema::sql(&self.settings.schema, text)
    }

    /// Longest wait in the store, in milliseconds.
    fn most(&self) -> u128 {
        self.settings.lease.as_millis() * 2 / 3
    }

    /// Begins a transaction. It says itself what the connection was told: a pooler may give it another one of the server's.
    pub(crate) fn begin(&self) -> String {
        let most = self.most();
        format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {most}; SET LOCAL lock_timeout = {most};
             SET LOCAL idle_in_transaction_session_timeout = {most}; SET LOCAL timezone = 'UTC'"
        )
    }

    /// A connection to the store on which nothing lasts as long as a lease: a worker that stands still holds no row for longer.
    pub(crate) async fn connect(&self) -> Result<Client, StoreError> {
        let client = store::connect(&self.settings.store, &self.connection_name).await?;
        let most = self.most();
        let limits = format!(
            "SET statement_timeout = {most}; SET idle_in_transaction_session_timeout = {most}; SET lock_timeout = {most};
             SET tcp_user_timeout = {most}; SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3;
             SET default_transaction_isolation = 'read committed'; SET timezone = 'UTC'; SET client_min_messages = warning"
        );
        let described = |e| store::describe(&self.settings.store.identity(), e);
        client.batch_execute(&limits).await.map_err(described)?;
        Ok(client)
    }

    pub(crate) fn targets(&self) -> Option<Arc<Targets>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn aim(&self, targets: Option<Targets>) {
        *self.targets.lock().unwrap_or_else(PoisonError::into_inner) = targets.map(Arc::new);
    }

    /// The windows of the plan: step, place in its set, and the window.
    pub(crate) fn windows(&self) -> Vec<(usize, usize, &Window)> {
        let mut windows = Vec::new();
        for (step, definition) in self.settings.plan.steps.iter().enumerate() {
            if let StepKind::Group(group) = &definition.kind {
                windows.extend(group.windows.iter().enumerate().map(|(place, def)| (step, place, &def.window)));
            }
        }
        windows
    }

    /// The step of windows whose rows a step reads; none where it reads the input.
    pub(crate) fn upstream(&self, step: usize) -> Option<usize> {
        let steps = &self.settings.plan.steps;
        let mut at = step;
        while let Input::Step(before) = steps[at].input {
            if matches!(steps[before].kind, StepKind::Group(_)) {
                return Some(before);
            }
            at = before;
        }
        None
    }
}
