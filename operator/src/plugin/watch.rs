//! Looks, and looks again until a person has seen enough.

use std::{collections::BTreeMap, future::Future, io, pin::pin, time::Duration};

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use tokio::time::sleep;

use super::{reader::Reader, seen::Seen};

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// How many dead letters have which reason, where that is known.
pub(super) type Reasons = Option<BTreeMap<String, u64>>;

/// Looks once, or again and again with `watch`, until nobody reads it or it is to stop. At dead letters it looks only where their
/// number has changed, and to the end: a look that is broken off could leave them in another order.
pub(super) async fn follow(
    mut look: impl AsyncFnMut() -> Result<Seen>,
    mut letters: impl AsyncFnMut(Option<i64>) -> Reasons,
    mut show: impl FnMut(&Seen) -> Result<Reader>,
    watch: bool,
    stop: impl Future<Output = io::Result<()>>,
) -> Result<()> {
    // One for all of it: a signal is kept whatever is done meanwhile.
    let mut stop = pin!(async { stop.await.context("no signal can be waited for") });
    let mut dead = (None, None);
    loop {
        let mut seen = tokio::select! {
            biased;
            ended = &mut stop => return ended,
            seen = look() => seen?,
        };
        if seen.status.dead_letters != dead.0 {
            dead = (seen.status.dead_letters, letters(seen.status.dead_letters).await);
            if let Some(ended) = stop.as_mut().now_or_never() {
                return ended;
            }
        }
        seen.reasons.clone_from(&dead.1);
        if show(&seen)? == Reader::Gone || !watch {
            return Ok(());
        }
        tokio::select! {
            ended = &mut stop => return ended,
            () = sleep(PAUSE) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending};

    use tokio::sync::Notify;

    use super::*;

    fn with_letters() -> Seen {
        let mut seen = Seen::default();
        seen.status.dead_letters = Some(1);
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_during_a_look_ends_it() {
        let (asked, looks) = (Notify::new(), Cell::new(0));
        let look = async || {
            looks.set(looks.get() + 1);
            if looks.get() == 2 {
                asked.notify_one();
                return pending().await;
            }
            Ok(Seen::default())
        };
        let stop = async {
            asked.notified().await;
            Ok(())
        };
        follow(look, async |_| None, |_| Ok(Reader::Listens), true, stop).await.unwrap();
        assert_eq!(looks.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_during_a_look_at_dead_letters_is_heeded_after_it() {
        let (asked, ended) = (Notify::new(), Cell::new(false));
        let letters = async |_| {
            asked.notify_one();
            sleep(PAUSE).await;
            ended.set(true);
            None
        };
        let stop = async {
            asked.notified().await;
            Ok(())
        };
        let show = |_: &Seen| panic!("who has had enough is shown no more");
        follow(async || Ok(with_letters()), letters, show, true, stop).await.unwrap();
        assert!(ended.get(), "it was broken off");
    }

    #[tokio::test(start_paused = true)]
    async fn dead_letters_are_looked_at_again_only_where_their_number_changes() {
        let (shown, looked) = (Cell::new(0), Cell::new(0));
        let letters = async |_| {
            looked.set(looked.get() + 1);
            Some([("NotJson".to_owned(), 1)].into())
        };
        let show = |seen: &Seen| {
            assert!(seen.reasons.is_some(), "what was seen of them stays");
            shown.set(shown.get() + 1);
            Ok(if shown.get() == 3 { Reader::Gone } else { Reader::Listens })
        };
        follow(async || Ok(with_letters()), letters, show, true, pending()).await.unwrap();
        assert_eq!((shown.get(), looked.get()), (3, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn without_watch_it_looks_once() {
        let shown = Cell::new(0);
        let show = |_: &Seen| {
            shown.set(shown.get() + 1);
            Ok(Reader::Listens)
        };
        follow(async || Ok(Seen::default()), async |_| None, show, false, pending()).await.unwrap();
        assert_eq!(shown.get(), 1);
    }
}
