//! From the command line to what is done.

use std::io::{IsTerminal as _, Write as _};
use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use drover_worker::hub;
use k8s_openapi::jiff::Timestamp;

use super::{
    action,
    args::{Cli, Cluster, Command},
    cluster::{Access, Target},
    dead::{self, Selection},
    dead_command,
    seen::Seen,
    status, why,
};
use crate::context;

/// Between two looks of `--watch`.
const WATCH: Duration = Duration::from_secs(2);
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
    runtime.block_on(run(cli))
}

async fn run(cli: Cli) -> Result<()> {
    let Cli { cluster, command } = cli;
    match command {
        Command::Status { object, watch } => show_status(&cluster, &object, watch).await,
        Command::Why { object } => {
            let target = Target::parse(&object)?;
            let seen = Seen::look(&Access::new(&cluster).await?, &target).await?;
            print!("{}", why::text(&seen, now()));
            Ok(())
        }
        Command::Dead(command) => dead_command::run(&cluster, command, now()).await,
        Command::Promote(request) => action::request(&cluster, "promote", request).await,
        Command::Abort(request) => action::request(&cluster, "abort", request).await,
        Command::Retry(request) => action::request(&cluster, "retry", request).await,
        Command::Suspend { object } => action::suspend(&cluster, &object, true).await,
        Command::Resume { object } => action::suspend(&cluster, &object, false).await,
        Command::Version => {
            println!("kubectl-drover {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "kubectl-drover", &mut std::io::stdout());
            Ok(())
        }
    }
}

async fn show_status(cluster: &Cluster, object: &str, watch: bool) -> Result<()> {
    let target = Target::parse(object)?;
    let access = Access::new(cluster).await?;
    let mut dead = (None, None);
    loop {
        let mut seen = Seen::look(&access, &target).await?;
        if seen.status.dead_letters != dead.0 {
            dead = (seen.status.dead_letters, reasons(&access, &target, seen.status.dead_letters).await);
        }
        seen.reasons.clone_from(&dead.1);
        let screen = status::text(&seen, now());
        let mut out = std::io::stdout().lock();
        let clear = if watch && out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        write!(out, "{clear}{screen}").context("the terminal is gone")?;
        out.flush().context("the terminal is gone")?;
        drop(out);
        if !watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH) => {}
            ended = tokio::signal::ctrl_c() => return ended.context("no signal can be waited for"),
        }
    }
}

/// How many of the first dead letters have which reason, where they can be looked at from here.
async fn reasons(access: &Access, target: &Target, count: Option<i64>) -> Option<BTreeMap<String, u64>> {
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
