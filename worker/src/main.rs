//! The worker's command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use drover_worker::query::QueryArgs;

/// Drover's worker: takes messages from a hub to a sink, or runs a window query.
#[derive(Debug, Parser)]
#[command(name = "drover-worker", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a WindowQuery.
    Query(QueryArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Query(args) => drover_worker::query::run(&args),
    }
}
