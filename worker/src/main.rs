//! The worker's command line.

use std::{future::pending, process::ExitCode};

use clap::{Parser, Subcommand};
use drover_worker::{
    ingest,
    query::QueryArgs,
    settings::{LogFormat, Settings, SettingsError},
    stream::{self, settings::StreamSettings},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The hub's client logs whole messages that are returned to it; what matters of its errors is logged here.
const LOG: &str = "info,lapin=off";

/// Drover's worker: takes messages from a hub to a sink, or runs a window query.
#[derive(Debug, Parser)]
#[command(name = "drover-worker", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take messages of a queue to a sink, as environment variables say.
    Ingest,
    /// Run a WindowQuery.
    Query(QueryArgs),
}

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Command::Ingest => start(|lookup| Ok(Work::Ingest(Box::new(Settings::from_env(lookup)?)))),
        Command::Query(args) if args.on_streams() => {
            start(|lookup| Ok(Work::Query(Box::new(StreamSettings::from_env(lookup)?))))
        }
        Command::Query(args) => return drover_worker::query::run(&args),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// What runs until it is told to end.
enum Work {
    Ingest(Box<Settings>),
    Query(Box<StreamSettings>),
}

fn lookup(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn start(work: impl FnOnce(fn(&str) -> Option<String>) -> Result<Work, SettingsError>) -> anyhow::Result<ExitCode> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(LOG));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stdout());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    match LogFormat::from_env(lookup)? {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    let work = work(lookup)?;
    // Nothing else may choose the cryptography.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Each line says whose it is, whichever task writes it.
    let [namespace, object, revision] = ["DROVER_NAMESPACE", "DROVER_NAME", "DROVER_REVISION"].map(lookup);
    // A field "name" would be the span's own in JSON.
    let whose = tracing::error_span!("worker", namespace, object, revision);
    let _here = whose.enter();
    let there = whose.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(move || std::mem::forget(there.clone().entered()))
        .enable_all()
        .build()?;
    let code = runtime.block_on(run(work))?;
    runtime.shutdown_background();
    Ok(code)
}

/// The first signal drains, the second ends at once.
async fn run(work: Work) -> anyhow::Result<ExitCode> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (told, telling) = tokio::sync::oneshot::channel::<()>();
    let signals = async move {
        received(&mut term, &mut int).await;
        let _ = told.send(());
        received(&mut term, &mut int).await;
    };
    let shutdown = async move {
        // The sender lives as long as signals are waited for.
        if telling.await.is_err() {
            pending::<()>().await;
        }
    };
    let running = async move {
        match work {
            Work::Ingest(settings) => ingest::run(*settings, shutdown).await?,
            Work::Query(settings) => stream::run(*settings, shutdown).await?,
        }
        anyhow::Ok(())
    };
    tokio::select! {
        ended = running => ended.map(|()| ExitCode::SUCCESS),
        () = signals => Ok(ExitCode::FAILURE),
    }
}

async fn received(term: &mut Signal, int: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
