//! From the command line to what is done.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use k8s_openapi::jiff::Timestamp;

use super::{
    action,
    args::{Cli, Cluster, Command},
    cluster::{Access, Target},
    dead_command,
    seen::Seen,
    status, why,
};
use crate::context;

/// Between two looks of `--watch`.
const WATCH: Duration = Duration::from_secs(2);
/// Looks whose lag is drawn.
const LINE: usize = 60;

/// Does what the command line says.
///
/// # Errors
/// If it cannot be done; the message says why.
pub fn main(cli: Cli) -> Result<()> {
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
    let mut lags = Vec::new();
    loop {
        let seen = Seen::look(&access, &target).await?;
        lags.extend(seen.lag());
        let surplus = lags.len().saturating_sub(LINE);
        lags.drain(..surplus);
        let screen = status::text(&seen, &lags, now());
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

fn now() -> Timestamp {
    context::now().0
}
