//! The command line, as it is written.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::dead::Selection;

/// Pipelines and queries of Drover, by hand.
#[derive(Debug, Parser)]
#[command(name = "kubectl-drover", bin_name = "kubectl drover", version, about)]
pub struct Cli {
    #[command(flatten)]
    pub(super) cluster: Cluster,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Which cluster, as kubectl has it.
#[derive(Debug, Args)]
pub(super) struct Cluster {
    /// Namespace; that of the context where it is not given
    #[arg(short, long, global = true)]
    pub(super) namespace: Option<String>,
    /// Context of the kubeconfig
    #[arg(long, global = true)]
    pub(super) context: Option<String>,
    /// The kubeconfig file
    #[arg(long, global = true)]
    pub(super) kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub(super) enum Command {
    /// What is it doing, on one screen
    Status {
        /// The object: NAME of an IngestPipeline, ipl/NAME or wq/NAME
        object: String,
        /// Go on showing it
        #[arg(short, long)]
        watch: bool,
    },
    /// Why is it not right, and what to do
    Why {
        /// The object: NAME of an IngestPipeline, ipl/NAME or wq/NAME
        object: String,
    },
    /// Dead letters: look at them, send them back, delete them
    #[command(subcommand)]
    Dead(Dead),
    /// Let a new revision, or a query's new text that was refused, take over now
    Promote(Request),
    /// Give a new revision up and stay with the old one
    Abort(Request),
    /// Try an aborted revision again
    Retry(Request),
    /// Take all workers away; messages wait in the hub
    Suspend {
        /// The object: NAME of an IngestPipeline, ipl/NAME or wq/NAME
        object: String,
    },
    /// Let workers run again
    Resume {
        /// The object: NAME of an IngestPipeline, ipl/NAME or wq/NAME
        object: String,
    },
    /// Print the version
    Version,
    /// Print a completion script of a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// An action, asked for once.
#[derive(Debug, Args)]
pub(super) struct Request {
    /// The object: NAME of an IngestPipeline, ipl/NAME or wq/NAME
    pub(super) object: String,
    /// Do not wait until the operator has answered
    #[arg(long)]
    pub(super) no_wait: bool,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(super) timeout: u64,
}

#[derive(Debug, Subcommand)]
pub(super) enum Dead {
    /// List them; depth and order stay
    List {
        #[command(flatten)]
        queue: Queue,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        page: Page,
        /// Most letters to tell
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show them whole, with headers and body; depth and order stay
    Show {
        #[command(flatten)]
        queue: Queue,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        page: Page,
        /// Most letters to tell
        #[arg(long, default_value_t = 1)]
        limit: usize,
    },
    /// Send them back to where they came from, or to another queue
    Redrive {
        #[command(flatten)]
        queue: Queue,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        extent: Extent,
        /// At most so many a second
        #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
        rate: Option<f64>,
        /// Another queue than the source, through the default exchange
        #[arg(long, value_name = "QUEUE")]
        to: Option<String>,
    },
    /// Delete them for good
    Purge {
        #[command(flatten)]
        queue: Queue,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        extent: Extent,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// Whose dead letters.
#[derive(Debug, Args)]
#[expect(clippy::struct_field_names, reason = "the names of the flags")]
pub(super) struct Queue {
    /// The object: NAME of an IngestPipeline, ipl/NAME or wq/NAME
    #[arg(required_unless_present = "queue")]
    pub(super) name: Option<String>,
    /// Source queue of a pipeline, without Kubernetes: the hub is that of the environment variable `DROVER_HUB_URI`
    #[arg(long, conflicts_with = "name")]
    pub(super) queue: Option<String>,
    /// With --queue: the dead-letter queue, where it is not QUEUE.dead
    #[arg(long, requires = "queue")]
    pub(super) dead_queue: Option<String>,
    /// The hub's address as seen from here, where the secret's is another; by the environment only, as it has a password
    #[arg(long, env = "DROVER_HUB_URI", hide_env_values = true, hide = true)]
    pub(super) hub_uri: Option<String>,
    /// Authorities of the hub's certificate (PEM), instead of those of the secret
    #[arg(long, env = "DROVER_HUB_CA", value_name = "FILE")]
    pub(super) hub_ca: Option<PathBuf>,
}

/// Which of them.
#[derive(Debug, Args)]
pub(super) struct Filter {
    /// Only with this reason; may be repeated
    #[arg(long, value_name = "REASON")]
    reason: Vec<String>,
    /// Only the one with this message id
    #[arg(long)]
    id: Option<String>,
    /// Only those that failed at least so long ago: 90s, 15m, 2h, 7d
    #[arg(long, value_name = "AGE", value_parser = Selection::age)]
    older_than: Option<std::time::Duration>,
    /// Only those that failed less than so long ago
    #[arg(long, value_name = "AGE", value_parser = Selection::age)]
    newer_than: Option<std::time::Duration>,
    /// Only with this header; may be repeated, and all must hold
    #[arg(long, value_name = "NAME=VALUE", value_parser = Selection::header)]
    header: Vec<(String, String)>,
    /// Only with this value in the body, such as $.deviceId=7; may be repeated, and all must hold
    #[arg(long, value_name = "PATH=VALUE", value_parser = json)]
    json_path: Vec<Json>,
}

/// A path and a value. A type of its own, as clap takes a list for repetition.
#[derive(Debug, Clone)]
pub(super) struct Json(Vec<String>, String);

fn json(text: &str) -> Result<Json, super::dead::Invalid> {
    Selection::json(text).map(|(path, value)| Json(path, value))
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && f64::is_finite(rate) => Ok(rate),
        _ => Err("must be a number above 0".to_owned()),
    }
}

impl Filter {
    pub(super) fn selection(self) -> Selection {
        Selection {
            reasons: self.reason,
            id: self.id,
            older_than: self.older_than,
            newer_than: self.newer_than,
            headers: self.header,
            json: self.json_path.into_iter().map(|Json(path, value)| (path, value)).collect(),
        }
    }
}

/// Which part of them is told, and how.
#[derive(Debug, Args)]
pub(super) struct Page {
    /// Leave out so many of those that match
    #[arg(long, default_value_t = 0)]
    pub(super) skip: u64,
    /// Look at so many letters at most
    #[arg(long, value_name = "LETTERS", default_value_t = 10_000)]
    pub(super) scan: u64,
    /// Format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    Wide,
    Json,
    Yaml,
}

/// How many of them.
#[derive(Debug, Args)]
pub(super) struct Extent {
    /// At most so many
    #[arg(long, value_name = "LETTERS")]
    pub(super) max: Option<u64>,
    /// Only count them
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(line.split(' ')).map_err(|e| e.to_string())
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_kubectl_may_stand_anywhere() {
        for line in ["d -n iot dead list telemetry", "d dead list telemetry -n iot", "d dead -n iot list telemetry"] {
            assert_eq!(parse(line).unwrap().cluster.namespace.as_deref(), Some("iot"), "{line}");
        }
    }

    #[test]
    fn a_pipeline_or_a_queue_must_be_named_and_not_both() {
        assert!(parse("d dead list").is_err());
        assert!(parse("d dead list a --queue b").is_err());
        assert!(parse("d dead list --queue b").is_ok());
    }

    #[test]
    fn filters_are_read() {
        let line = "d dead redrive t --reason A --reason B --json-path $.a.b=1 --header k=v --older-than 2h --rate 0.5";
        let Command::Dead(Dead::Redrive { filter, rate, .. }) = parse(line).unwrap().command else { panic!() };
        let selection = filter.selection();
        assert_eq!(selection.reasons, ["A", "B"]);
        assert_eq!(selection.json, [(vec!["a".to_owned(), "b".to_owned()], "1".to_owned())]);
        assert_eq!(selection.headers, [("k".to_owned(), "v".to_owned())]);
        assert_eq!(selection.older_than.unwrap().as_secs(), 7200);
        assert_eq!(rate, Some(0.5));
        assert!(parse("d dead redrive t --rate 0").is_err() && parse("d dead redrive t --json-path a=1").is_err());
    }
}
