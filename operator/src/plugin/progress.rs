//! How far a run is, on a terminal only.

use std::io::{self, IsTerminal as _, Write as _};

use super::dead::Report;

/// Characters of a full bar.
const WIDTH: u64 = 30;

/// Shows it on standard error, in one line that is written over.
pub(super) struct Progress {
    shown: bool,
    last: Report,
    wanted: bool,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { shown: false, last: Report::default(), wanted: io::stderr().is_terminal() }
    }

    /// As far as it came.
    pub(super) fn last(&self) -> Report {
        self.last
    }

    pub(super) fn show(&mut self, report: &Report) {
        self.last = *report;
        if self.wanted {
            self.shown = true;
            // A terminal that is gone must not end the run.
            let _ = write!(io::stderr(), "\r{}\x1b[K", bar(report));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = writeln!(io::stderr());
        }
    }
}

fn bar(report: &Report) -> String {
    let full = (report.looked * WIDTH).checked_div(report.depth).unwrap_or(WIDTH).min(WIDTH);
    let bar: String = (0..WIDTH).map(|n| if n < full { '█' } else { '░' }).collect();
    format!("{bar} {} of {} looked at, {} done", report.looked, report.depth, report.done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_the_run_is_far() {
        let at = |looked, depth| bar(&Report { depth, looked, matched: 0, done: 7 });
        assert_eq!(at(5, 10), format!("{}{} 5 of 10 looked at, 7 done", "█".repeat(15), "░".repeat(15)));
        assert!(at(0, 0).starts_with(&"█".repeat(30)));
    }
}
