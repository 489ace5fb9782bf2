//! Programs that a user runs by hand: kubectl, helm, the scripts that start and stop the services.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Stdio;

use crate::surroundings::variable;
use anyhow::{Context as _, Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// What a program wrote and how it ended.
#[derive(Debug)]
pub struct Ended {
    /// It ended well.
    pub success: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a program to its end, in the repository's directory, with this as its standard input.
pub async fn attempt<A: AsRef<OsStr>>(program: &str, arguments: &[A], input: &str) -> Result<Ended> {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(repository())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("{program} cannot be started"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let feed = async {
        // A program that does not read its input is no failure of this.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
    };
    let ((), output) = tokio::join!(feed, child.wait_with_output());
    let output = output.with_context(|| format!("{program} did not end"))?;
    Ok(Ended {
        success: output.status.success(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a program that must end well; what it printed.
pub async fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<String> {
    let ended = attempt(program, arguments, "").await?;
    let words: Vec<_> = arguments.iter().map(|a| a.as_ref().to_string_lossy()).collect();
    ensure!(ended.success, "{program} {}: {}{}", words.join(" "), ended.out, ended.err);
    Ok(ended.out)
}

/// The repository's directory.
#[must_use]
pub fn repository() -> PathBuf {
    let mut path = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    path.pop();
    path
}

/// Cargo's target directory: the one that holds the running program.
pub fn target() -> Result<PathBuf> {
    Ok(profile()?.parent().context("not run from a target directory")?.to_owned())
}

/// The directory of the profile that the running program was built with; other binaries lie in it.
pub fn profile() -> Result<PathBuf> {
    let program = std::env::current_exe().context("the running program has no path")?;
    let profile = program.ancestors().find(|path| path.ends_with("debug") || path.ends_with("release"));
    Ok(profile.context("not run from a target directory")?.to_owned())
}

/// Has a service of the tests started, stopped, restarted, suspended or resumed.
pub async fn service(name: &str, command: &str) -> Result<()> {
    run(&variable("DROVER_TEST_CTL")?, &["test", name, command]).await.map(drop)
}
