//! `kubectl drover`: the plugin's command line.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use drover_operator::plugin::{self, Cli};

fn main() -> ExitCode {
    match plugin::main(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
