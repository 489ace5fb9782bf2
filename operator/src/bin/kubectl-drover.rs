//! `kubectl drover`: the plugin's command line.

use std::process::ExitCode;

use clap::Parser as _;
use drover_operator::plugin::{self, Cli};

fn main() -> ExitCode {
    match plugin::main(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
