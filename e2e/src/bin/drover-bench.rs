//! Runs benchmarks and writes what they found into `docs/benchmarks.md`.

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use drover_e2e::bench::{Bench, report};

/// Benchmarks; their tables go into docs/benchmarks.md.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// drain, retry, "decode and window", "stream to row", "window keys", "pod start", "from zero", "load trace", "load trace on the cluster", "slow messages", cutover, footprint, "1000 pipelines"; without a name all of them
    names: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("drover-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True if every benchmark ran; whether an aim was met is in the table.
async fn run(args: &Args) -> Result<bool> {
    let named: Result<Vec<_>> = args.names.iter().map(|name| Bench::named(name)).collect();
    let mut benches = named?;
    if benches.is_empty() {
        benches.extend(Bench::ALL);
    }
    let mut all = true;
    for bench in benches {
        println!("== {}", bench.name());
        match measure(bench).await {
            Ok(()) => {}
            // The others have figures of their own.
            Err(error) => {
                eprintln!("{}: {error:#}", bench.name());
                all = false;
            }
        }
    }
    Ok(all)
}

async fn measure(bench: Bench) -> Result<()> {
    let outcome = bench.run().await?;
    let raw = report::write(bench, &outcome).context("the figures cannot be written")?;
    for row in &outcome.rows {
        let met = if row.met { "met" } else { "NOT met" };
        println!("  {}: {:.3} {} (aim {}: {met})", row.what, row.ours, row.unit, row.aim);
    }
    println!("  docs/benchmarks.md, {}", raw.display());
    Ok(())
}
