//! Benchmarks of the crates' own: Cargo runs them, and their last line is JSON.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use super::Outcome;
use crate::shell::repository;

/// Runs a bench target; what it tells on the way is shown.
pub async fn run(target: &str) -> Result<Outcome> {
    let mut command = Command::new("cargo");
    // With the features of the whole workspace, so that what the images are made of is not compiled once more.
    command.args(["bench", "--workspace", "--bench", target]).current_dir(repository());
    let output = command.stderr(Stdio::inherit()).output().await.context("cargo cannot be started")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "cargo bench --bench {target} failed:\n{text}");
    let last = text.lines().rfind(|line| !line.trim().is_empty()).context("it printed nothing")?;
    serde_json::from_str(last).with_context(|| format!("its last line is no outcome: {last}"))
}
