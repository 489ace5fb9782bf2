//! A WindowQuery on streams, exactly once, by workers that hold no state.
//!
//! ```text
//! partition: read ─► batch ─► one fenced transaction ─► acknowledge       (crew: leases, fair shares)
//!                                  │ offset, watermark, partial aggregates, counts, dead letters
//!                                  ▼
//! close: least watermark ─► windows that end below it ─► result table, or outbox ─► relay ─► hub
//! ```
//!
//! Everything that counts is in PostgreSQL, fenced by each partition's epoch; any number of workers may race. The worker makes its tables,
//! but nothing at the hub: streams, exchange and queues are the operator's.

mod close;
mod commit;
mod crew;
mod emit;
mod http;
mod intake;
mod job;
mod lease;
mod message;
mod meter;
mod partials;
mod partition;
mod relay;
pub mod schema;
pub mod settings;
pub mod status;
mod table;
mod time;

use std::{hash::BuildHasher, io, process, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Notify, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    ingest::{
        backoff::Backoff,
        publisher::{Link, Publisher},
    },
    store::{self, StoreReason},
};
use close::{Closer, Progress};
use crew::Crew;
use job::Job;
use lease::Leases;
pub use message::{ARRIVAL, PROBE, TICK};
use partials::PartialError;
pub use relay::DEAD;
use settings::StreamSettings;

/// Time to close a connection in; it is gone with the process anyway.
const CLOSE: Duration = Duration::from_secs(2);
/// Another worker's commits are looked for so often.
const LOOK: Duration = Duration::from_millis(250);
/// Between a panic and the next attempt.
const AFTER_PANIC: Duration = Duration::from_secs(1);
/// Between two closings: each reads what may be due.
const PAUSE: Duration = Duration::from_millis(50);

/// A worker cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address for health, metrics and status cannot be bound.
    #[error("cannot listen for health, metrics and status")]
    Listen(#[source] io::Error),
}

/// Runs a worker until `shutdown` ends, and then for at most its grace period.
///
/// A hub or store that is not there is waited for, however long.
///
/// # Errors
/// If the address cannot be bound.
pub async fn run(settings: StreamSettings, shutdown: impl Future<Output = ()> + Send) -> Result<(), RunError> {
    let listener = TcpListener::bind(settings.listen).await.map_err(RunError::Listen)?;
    run_on(settings, listener, shutdown).await;
    Ok(())
}

/// As [`run`], with health, metrics and status on a socket of the caller's.
pub async fn run_on(settings: StreamSettings, listener: TcpListener, shutdown: impl Future<Output = ()> + Send) {
    let name = settings.identity.connection_name();
    let job = Arc::new(Job::new(settings, name.clone()));
    let stop = CancellationToken::new();
    let served =
        axum::serve(listener, http::router(Arc::clone(&job))).with_graceful_shutdown(stop.clone().cancelled_owned());
    let served = tokio::spawn(served.into_future());
    let link = Arc::new(Link::new(job.settings.hub.clone(), name));
    let draining = CancellationToken::new();
    let mut others = JoinSet::new();
    let (of_closing, of_relaying) = (Arc::clone(&job), Arc::clone(&job));
    let (end_closing, end_relaying, its_link) = (stop.clone(), stop.clone(), Arc::clone(&link));
    others.spawn(kept("close", Arc::clone(&job), stop.clone(), move || {
        closing(Arc::clone(&of_closing), end_closing.clone())
    }));
    others.spawn(kept("relay", Arc::clone(&job), stop.clone(), move || {
        relaying(Arc::clone(&of_relaying), Arc::clone(&its_link), end_relaying.clone())
    }));
    let crew = Crew::new(Arc::clone(&job), leases(&job), Arc::clone(&link)).run(&draining);
    tokio::pin!(crew);
    tokio::select! {
        () = &mut crew => {}
        () = shutdown => {
            draining.cancel();
            crew.await;
        }
    }
    stop.cancel();
    let _ = timeout(CLOSE, async { while others.join_next().await.is_some() {} }).await;
    let _ = timeout(CLOSE, link.close()).await;
    let _ = timeout(CLOSE, served).await;
}

fn leases(job: &Job) -> Leases {
    // A pod's name comes again in its next container; what that container's process holds in memory does not.
    let random = std::hash::RandomState::new().hash_one(process::id());
    let owner = format!("{}/{random:016x}", job.settings.identity.pod);
    Leases::new(&job.settings.schema, &job.query, &job.revision, owner, job.settings.lease)
}

/// Begins a task again that has ended by a panic: the process is well, and what the task left half done was in a transaction.
async fn kept<F>(stage: &str, job: Arc<Job>, stop: CancellationToken, start: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    while let Err(error) = tokio::spawn(start()).await {
        job.meter.hold(stage, "Panicked", &error.to_string());
        if !pause(AFTER_PANIC, &stop).await {
            return;
        }
    }
}

/// Waits for a call or for some time; `false` if everything ends.
async fn wait(call: &Notify, most: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        _ = timeout(most, call.notified()) => true,
    }
}

/// Waits without being called; `false` if everything ends.
async fn pause(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}

/// Closes windows whenever a watermark has moved.
async fn closing(job: Arc<Job>, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut closer: Option<Closer> = None;
    loop {
        let going = match close_once(&job, &mut closer).await {
            Ok(progress) => {
                backoff.reset();
                job.meter.go_on("close");
                match progress {
                    Progress::More => !stop.is_cancelled(),
                    Progress::Done | Progress::NotOurs => {
                        wait(&job.moved, LOOK, &stop).await && pause(PAUSE, &stop).await
                    }
                }
            }
            Err((reason, message)) => {
                closer = None;
                job.meter.hold("close", &reason, &message);
                pause(backoff.next(), &stop).await
            }
        };
        if !going {
            return;
        }
    }
}

async fn close_once(job: &Job, closer: &mut Option<Closer>) -> Result<Progress, (String, String)> {
    // State and result tables are made elsewhere.
    if job.targets().is_none() || job.windows().is_empty() {
        return Ok(Progress::Done);
    }
    let described = |e: store::StoreError| (e.reason.as_str().to_owned(), e.message);
    let of_error = |e| described(store::describe(&job.settings.store.identity(), e));
    if closer.is_none() {
        let client = job.connect().await.map_err(described)?;
        *closer = Some(Closer::new(client, job));
    }
    let open = closer.as_mut().expect("made above");
    let progress = open.step(job).await.map_err(|error| match error {
        PartialError::Store(error) => {
            emit::doubt(job, &error);
            of_error(error)
        }
        unreadable @ PartialError::Unreadable { .. } => ("StateUnreadable".to_owned(), unreadable.to_string()),
    })?;
    if progress != Progress::NotOurs {
        job.left.notify_one();
    }
    Ok(progress)
}

/// Relays dead letters and rows for the hub.
async fn relaying(job: Arc<Job>, link: Arc<Link>, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut client = None;
    let mut publisher = Publisher::new(link);
    let mut stuck = relay::Stuck::new();
    loop {
        let going = match relay_once(&job, &mut client, &mut publisher, &mut stuck).await {
            Ok(()) => {
                backoff.reset();
                job.meter.go_on("relay");
                wait(&job.left, LOOK * 4, &stop).await
            }
            Err((reason, message)) => {
                job.meter.hold("relay", &reason, &message);
                pause(backoff.next(), &stop).await
            }
        };
        if !going {
            // Where this worker is the last there is nobody else to do it.
            let _ = relay_once(&job, &mut client, &mut publisher, &mut stuck).await;
            return;
        }
    }
}

async fn relay_once(
    job: &Job,
    client: &mut Option<tokio_postgres::Client>,
    publisher: &mut Publisher,
    stuck: &mut relay::Stuck,
) -> Result<(), (String, String)> {
    if job.targets().is_none() {
        return Ok(());
    }
    if client.as_ref().is_none_or(tokio_postgres::Client::is_closed) {
        let connected = job.connect().await.map_err(|e| (e.reason.as_str().to_owned(), e.message))?;
        *client = Some(connected);
    }
    let open = client.as_ref().expect("connected above");
    let relayed = relay::relay(open, job, publisher, stuck).await;
    relayed.map_err(|error| {
        if matches!(error, relay::RelayError::Store(_)) {
            *client = None;
        }
        let message = match &error {
            relay::RelayError::Store(cause) => format!("{error} ({})", StoreReason::of(cause).as_str()),
            other => other.to_string(),
        };
        (error.reason().to_owned(), message)
    })
}
