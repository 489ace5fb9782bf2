//! Window queries: the engine, the transform of pipelines, and the file mode.

pub(crate) mod clock;
mod decode;
mod engine;
mod error;
mod exact;
mod explain;
pub mod file;
pub(crate) mod key;
mod manifest;
mod node;
pub(crate) mod ordering;
mod partial;
mod scalars;
mod sketch;
pub(crate) mod step;
mod strings;
mod text;
mod transform;
mod value;
pub(crate) mod windows;

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

pub use clock::{format as format_datetime, parse as parse_datetime};
pub use decode::{Decoder, Event};
use drover_crds::query::{Plan, parse};
pub use engine::{Engine, Failed, OutputRow, StoredPartial};
pub use error::DataError;
pub use explain::explain;
pub use manifest::{Manifest, ManifestError, resolve_tolerance};
pub use ordering::{Counters, Ordering, Policy, Reason, Tolerance, Verdict};
pub use transform::Transform;
pub use value::{Record, Value};

/// Arguments of `drover-worker query`.
#[derive(Debug, clap::Args)]
pub struct QueryArgs {
    /// The manifest with a WindowQuery. Without one the query runs on streams, as environment variables say.
    manifest: Option<PathBuf>,
    /// Print the plan and stop.
    #[arg(long, conflicts_with = "input", requires = "manifest")]
    explain: bool,
    /// Run over a file of one JSON event a line, `-` for standard input.
    #[arg(long, value_name = "FILE", requires = "manifest")]
    input: Option<PathBuf>,
    /// The field with an event's arrival: milliseconds since 1970, or ISO 8601.
    #[arg(long, value_name = "NAME", requires = "input")]
    arrival_field: Option<String>,
    /// Add the end of its window, or the time of its event, to each row as `_window_end`.
    #[arg(long, requires = "input")]
    window_end: bool,
}

impl QueryArgs {
    /// Whether the query runs on streams.
    #[must_use]
    pub fn on_streams(&self) -> bool {
        self.manifest.is_none()
    }
}

/// Runs a query of a manifest.
#[must_use]
pub fn run(args: &QueryArgs) -> ExitCode {
    let Some(manifest) = &args.manifest else {
        eprintln!("error: there is no manifest");
        return ExitCode::FAILURE;
    };
    match execute(args, manifest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// A reader that has seen enough (`| head`) is no error.
fn written(result: io::Result<()>) -> Result<(), String> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(format!("writing: {e}")),
        _ => Ok(()),
    }
}

fn execute(args: &QueryArgs, manifest: &Path) -> Result<(), String> {
    let path = manifest.display();
    let yaml = std::fs::read_to_string(manifest).map_err(|e| format!("{path}: {e}"))?;
    let manifest = Manifest::parse(&yaml).map_err(|e| format!("{path}: {e}"))?;
    let plan = parse(&manifest.query).map_err(|e| format!("{path}: the query, {e}"))?;
    if let Some(alias) = manifest.alias.as_deref().filter(|a| !a.eq_ignore_ascii_case(&plan.source)) {
        eprintln!("warning: the query reads {}, and input.alias is {alias}; the operator would refuse it", plan.source);
    }
    if args.explain {
        return written(io::stdout().write_all(explain(&plan).as_bytes()));
    }
    match &args.input {
        Some(input) => run_file(args, &manifest, &plan, input),
        None => Err("a manifest needs --input or --explain; without a manifest the query runs on streams".to_owned()),
    }
}

fn run_file(args: &QueryArgs, manifest: &Manifest, plan: &Plan, input: &PathBuf) -> Result<(), String> {
    let reader: Box<dyn io::Read> = if input.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(input).map_err(|e| format!("{}: {e}", input.display()))?)
    };
    let options = file::Options { arrival_field: args.arrival_field.clone(), window_end: args.window_end };
    let terminal = io::stderr().is_terminal();
    let mut progress = |lines: u64| {
        if terminal {
            eprint!("\r{lines} lines");
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut notes = io::stderr();
    let report =
        file::run(plan, manifest.tolerance, &options, &mut BufReader::new(reader), &mut out, &mut notes, &mut progress);
    let report = match report {
        Ok(report) => report,
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(e) => return Err(format!("{}: {e}", input.display())),
    };
    let c = report.counters;
    if terminal {
        eprintln!(
            "\r{} on time, {} adjusted, {} dropped, {} dead-lettered, {} in error",
            c.on_time, c.adjusted, c.dropped, c.dead_lettered, report.errors
        );
    }
    Ok(())
}
