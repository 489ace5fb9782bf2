//! Window queries: the engine and its file mode.

use std::process::ExitCode;

/// Arguments of `drover-worker query`.
#[derive(Debug, clap::Args)]
pub struct QueryArgs {}

/// Runs the command.
#[must_use]
pub fn run(_args: &QueryArgs) -> ExitCode {
    ExitCode::SUCCESS
}
