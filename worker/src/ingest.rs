//! Messages of a queue through a transform to a sink: everything between a delivery and its acknowledgement.
//!
//! ```text
//! session: intake ─► held ─► slot: prepare ─► write ─► dead-letter ─► session: acknowledge
//!             ▲        │                       │ holds while the sink is down
//!             │        └► strays: to suspects  ├► what failed in passing: to wait
//!             └── credit                       └► surrender: back to the session, back to the queue
//! ```
//!
//! A message is acknowledged in one place, last, and only after its effect is confirmed. The worker declares nothing: queue,
//! exchange and bindings are the operator's, or somebody else's.

mod acks;
pub(crate) mod backoff;
mod cell;
pub(crate) mod clock;
mod context;
mod credit;
pub(crate) mod decode;
pub(crate) mod envelope;
mod event;
mod guard;
mod halving;
mod handler;
mod holds;
mod http;
mod identity;
mod layout;
mod meter;
mod outage;
mod prepare;
mod preview;
pub(crate) mod publisher;
mod ramp;
pub mod redrive;
pub(crate) mod reject;
mod session;
pub(crate) mod sink;
mod slot;
mod spans;
mod sql;
pub mod status;
mod suspect;
pub(crate) mod template;
mod web;

use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use drover_crds::query::QueryError;
use lapin::Connection;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    hub,
    settings::{Role, Settings},
};
use backoff::Backoff;
use context::Context;
use credit::Limits;
use session::{Crew, End, Origin, Session};

/// A session of so long was a good one: the next connection is tried at once.
const GOOD: Duration = Duration::from_secs(10);
/// Time to close a connection in; it is gone with the process anyway.
const CLOSE: Duration = Duration::from_secs(2);

/// A worker cannot run at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The transform's query is refused.
    #[error("the transform's query is refused")]
    Transform(#[source] QueryError),
    /// The sink cannot be spoken to.
    #[error("the sink cannot be used")]
    Sink(#[source] sink::SinkError),
    /// The address for health, metrics and status cannot be bound.
    #[error("cannot listen for health, metrics and status")]
    Listen(#[source] io::Error),
}

/// Runs a worker until `shutdown` ends, and then for at most its grace period.
///
/// A hub or sink that is not there is waited for, however long.
///
/// # Errors
/// If it cannot run at all: the query is refused, or the address cannot be bound.
pub async fn run(settings: Settings, shutdown: impl Future<Output = ()> + Send) -> Result<(), RunError> {
    let listener = TcpListener::bind(settings.listen).await.map_err(RunError::Listen)?;
    run_on(settings, listener, shutdown).await
}

/// As [`run`], with health, metrics and status on a socket of the caller's.
///
/// # Errors
/// If the query is refused, or the sink cannot be spoken to.
pub async fn run_on(
    settings: Settings,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let name = settings.identity.connection_name();
    let context = Arc::new(Context::new(&settings, &name)?);
    let stop = CancellationToken::new();
    let served = {
        let stopped = stop.clone().cancelled_owned();
        let served = axum::serve(listener, http::router(Arc::clone(&context))).with_graceful_shutdown(stopped);
        tokio::spawn(served.into_future())
    };
    let draining = CancellationToken::new();
    let supervisor = supervise(&settings, &context, &name, &draining);
    tokio::pin!(supervisor);
    tokio::select! {
        () = &mut supervisor => {}
        () = shutdown => {
            draining.cancel();
            supervisor.await;
        }
    }
    let _ = timeout(CLOSE, context.link.close()).await;
    if let Some(traces) = &context.traces {
        // A collector that takes nothing is not waited for.
        let _ = timeout(CLOSE, traces.close()).await;
    }
    stop.cancel();
    // Health is answered to the end; an open request does not keep the process.
    let _ = timeout(CLOSE, served).await;
    Ok(())
}

/// One session after another.
async fn supervise(settings: &Settings, context: &Arc<Context>, name: &str, draining: &CancellationToken) {
    let most = suspect::most_in_flight(settings.role);
    let limits = Limits {
        concurrency: settings.concurrency.min(most),
        ceiling: settings.source.prefetch.min(most),
        grace: settings.grace,
        memory: settings.memory_limit,
    };
    let origin = Origin {
        queue: settings.queue(),
        // Queues of suspects are the pipeline's own, whosever the source is. A copy never goes to the source.
        by_nack: (settings.source.adopt && settings.role == Role::Main) || settings.preview.is_some(),
        priority: settings.source.priority,
    };
    let mut crew = Crew::new(context, limits, origin);
    let mut backoff = Backoff::default();
    while !draining.is_cancelled() {
        let connected = tokio::select! {
            connected = hub::connect(&settings.hub, name) => connected,
            () = draining.cancelled() => return,
        };
        let began = clock::now();
        match connected {
            Ok(connection) => {
                context.meter.connected.store(true, Relaxed);
                let end = session(&mut crew, connection, draining).await;
                context.meter.connected.store(false, Relaxed);
                match end {
                    End::Shutdown => return,
                    End::Lost(why) => tracing::warn!("the session with the hub is lost: {why}"),
                }
            }
            Err(error) => tracing::warn!(reason = error.reason.as_str(), "no connection to the hub: {error}"),
        }
        context.meter.reconnects.inc();
        crew.reset().await;
        if clock::now().duration_since(began) > GOOD {
            backoff.reset();
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            () = draining.cancelled() => return,
        }
    }
}

async fn session(crew: &mut Crew, connection: Connection, draining: &CancellationToken) -> End {
    let end = match hub::channel(&connection).await {
        Ok(channel) => Session::new(crew, channel).run(draining).await,
        Err(error) => End::Lost(error.to_string()),
    };
    // Acknowledgements that were sent go before the close. A lost connection cannot be closed.
    let _ = timeout(CLOSE, connection.close(200, "done".into())).await;
    end
}
