//! Looks at something outside that may be slow to answer, in a task of its own: who asks waits a moment and then gets what was last
//! seen, so that one hub or store that is down keeps nobody else's reconcile waiting.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::context::now;

/// How long who asks waits for a look that is under way.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was seen last, and whether somebody is looking.
#[derive(Debug)]
pub(crate) struct Probe<T> {
    state: Mutex<State<T>>,
    seen: Notify,
}

#[derive(Debug)]
struct State<T> {
    last: Option<(Instant, T)>,
    looking: bool,
}

impl<T> Default for Probe<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { last: None, looking: false }), seen: Notify::new() }
    }
}

/// Ends the look, also one that has panicked.
struct Looking<T>(Arc<Probe<T>>);

impl<T> Drop for Looking<T> {
    fn drop(&mut self) {
        self.0.lock().looking = false;
        self.0.seen.notify_waiters();
    }
}

impl<T> Probe<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Send + 'static> Probe<T> {
    /// What was seen less than its `life` ago, else what a new look finds. `None` if nothing was ever seen and the look takes long.
    pub(crate) async fn ask<F>(self: &Arc<Self>, life: impl Fn(&T) -> Duration, look: impl FnOnce() -> F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let seen = self.seen.notified();
        tokio::pin!(seen);
        seen.as_mut().enable();
        {
            let mut state = self.lock();
            if let Some((at, value)) = &state.last
                && now().1.duration_since(*at) < life(value)
            {
                return Some(value.clone());
            }
            if !state.looking {
                state.looking = true;
                self.start(look());
            }
        }
        let _ = tokio::time::timeout(PATIENCE, seen).await;
        self.lock().last.as_ref().map(|(_, value)| value.clone())
    }

    fn start(self: &Arc<Self>, look: impl Future<Output = T> + Send + 'static) {
        let looking = Looking(Arc::clone(self));
        tokio::spawn(async move {
            let value = look.await;
            looking.0.lock().last = Some((now().1, value));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: fn(&u8) -> Duration = |_| Duration::from_mins(1);
    const NONE: fn(&u8) -> Duration = |_| Duration::ZERO;

    #[tokio::test(start_paused = true)]
    async fn what_is_fresh_is_not_looked_at_again() {
        let probe = Arc::new(Probe::default());
        assert_eq!(probe.ask(LONG, || async { 1 }).await, Some(1));
        assert_eq!(probe.ask(LONG, || async { 2 }).await, Some(1));
        assert_eq!(probe.ask(NONE, || async { 3 }).await, Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_look_gives_what_was_seen_before_and_is_made_once() {
        let probe = Arc::new(Probe::default());
        assert_eq!(probe.ask(NONE, std::future::pending).await, None::<u8>);
        let probe = Arc::new(Probe::default());
        assert_eq!(probe.ask(NONE, || async { 1_u8 }).await, Some(1));
        assert_eq!(probe.ask(NONE, std::future::pending).await, Some(1));
        assert_eq!(probe.ask(NONE, || async { unreachable!("one look is under way") }).await, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_that_panics_is_followed_by_another() {
        let probe = Arc::new(Probe::default());
        assert_eq!(probe.ask(NONE, || async { panic!("as the test wants it") }).await, None::<u8>);
        assert_eq!(probe.ask(NONE, || async { 2 }).await, Some(2));
    }
}
