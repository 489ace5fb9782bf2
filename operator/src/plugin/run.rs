//! From the command line to what is done.

use std::{
    future::pending,
    io::{IsTerminal as _, stdout},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use drover_worker::hub;
use k8s_openapi::jiff::Timestamp;

use super::{
    action,
    args::{Cli, Cluster, Command},
    cluster::{Access, Target},
    command::Scope,
    dead::{self, Selection},
    dead_command, fault, reader,
    seen::Seen,
    status,
    watch::{self, Reasons},
    why,
};
use crate::context;

/// Dead letters that are looked at for their reasons.
const LETTERS: u64 = 1_000;
/// A hub that is not reached from here must not hold up what the cluster tells.
const PATIENCE: Duration = Duration::from_secs(3);

/// Does what the command line says.
///
/// # Errors
/// If it cannot be done; the message says why.
pub fn main(cli: Cli) -> Result<()> {
    // Fails only if one is installed already, which is then the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let scope = Scope::new(&cli.cluster, String::new());
    runtime.block_on(run(cli)).map_err(|error| anyhow::Error::msg(fault::text(&error, &scope)))
}

async fn run(cli: Cli) -> Result<()> {
    let Cli { cluster, command } = cli;
    match command {
        Command::Status { object, watch } => show_status(&cluster, &object, watch).await,
        Command::Why { object } => {
            let target = Target::parse(&object)?;
            let seen = Seen::look(&Access::new(&cluster).await?, &target).await?;
            reader::print(&why::text(&seen, now())).map(drop)
        }
        Command::Dead(command) => dead_command::run(&cluster, command, now()).await,
        Command::Promote(request) => action::request(&cluster, "promote", request).await,
        Command::Abort(request) => action::request(&cluster, "abort", request).await,
        Command::Retry(request) => action::request(&cluster, "retry", request).await,
        Command::Suspend { object } => action::suspend(&cluster, &object, true).await,
        Command::Resume { object } => action::suspend(&cluster, &object, false).await,
        Command::Version => reader::print(&format!("kubectl-drover {}\n", env!("CARGO_PKG_VERSION"))).map(drop),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kubectl-drover", &mut script);
            reader::print(&String::from_utf8(script).context("the script is no text")?).map(drop)
        }
    }
}

async fn show_status(cluster: &Cluster, object: &str, watch: bool) -> Result<()> {
    let target = Target::parse(object)?;
    let access = Access::new(cluster).await?;
    let look = async || Seen::look(&access, &target).await;
    let letters = async |count| reasons(&access, &target, count).await;
    let clear = if watch && stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    let show = |seen: &Seen| reader::print(&format!("{clear}{}", status::text(seen, now())));
    let stop = async {
        // Without it a signal just ends the program.
        if watch { tokio::signal::ctrl_c().await } else { pending().await }
    };
    watch::follow(look, letters, show, watch, stop).await
}

/// How many of the first dead letters have which reason, where they can be looked at from here.
async fn reasons(access: &Access, target: &Target, count: Option<i64>) -> Reasons {
    count.filter(|count| *count > 0)?;
    let letters = access.letters(target).await.ok()?;
    // A look that is broken off could leave another order: only the way there is given so little time.
    let reached = tokio::time::timeout(PATIENCE, hub::connect(&letters.hub, "kubectl-drover status")).await;
    // It may have ended already.
    let _ = reached.ok()?.ok()?.close(200, "done".into()).await;
    let seen = dead::look(&letters, &Selection::default(), (0, 0), LETTERS, now()).await.ok()?;
    Some(seen.reasons)
}

fn now() -> Timestamp {
    context::now().0
}
