//! The operator's command line.

use std::{io::Write as _, process::ExitCode};

use clap::{Parser, Subcommand};
use drover_operator::{config::Config, crds, run};

/// Drover's operator: runs, sizes and replaces the workers of pipelines and queries.
#[derive(Debug, Parser)]
#[command(name = "drover-operator", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reconcile the objects of the cluster until told to stop.
    Run(Box<Config>),
    /// Print the custom resource definitions as YAML.
    Crds,
    /// Print the version.
    Version,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(config) => run::main(*config),
        Command::Crds => crds::yaml().and_then(|yaml| Ok(std::io::stdout().write_all(yaml.as_bytes())?)),
        Command::Version => {
            println!("drover-operator {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
