//! Asks a person before something is gone.

use std::io::{self, BufRead, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, bail};

/// Whether a person at the terminal says yes.
pub(super) fn ask(question: &str) -> Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("nobody is here to be asked: say --yes");
    }
    let mut stderr = io::stderr();
    write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()).context("nobody can be asked: say --yes")?;
    read(&mut io::stdin().lock())
}

fn read(input: &mut impl BufRead) -> Result<bool> {
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, yes) in [("y\n", true), ("YES\n", true), ("\n", false), ("", false), ("yep\n", false)] {
            assert_eq!(read(&mut answer.as_bytes()).unwrap(), yes, "{answer:?}");
        }
    }
}
