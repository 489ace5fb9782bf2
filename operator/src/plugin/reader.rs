//! Whoever reads what is printed. A pipe may be closed before all is said: that is no error, and ends nothing that is being done.

use std::io::{self, ErrorKind, Write};

use anyhow::{Context as _, Result};

/// Whether anybody reads on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Listens,
    Gone,
}

/// Prints it as it stands.
pub(super) fn print(text: &str) -> Result<Reader> {
    write(&mut io::stdout().lock(), text).context("it cannot be printed")
}

/// A line beside what is asked for, such as a summary. Who has closed standard error wants none.
pub(super) fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn write(out: &mut impl Write, text: &str) -> io::Result<Reader> {
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::Listens),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fails(ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_an_end_and_a_full_disk_an_error() {
        let mut out = Vec::new();
        assert_eq!(write(&mut out, "a\n").unwrap(), Reader::Listens);
        assert_eq!(out, b"a\n");
        assert_eq!(write(&mut Fails(ErrorKind::BrokenPipe), "a").unwrap(), Reader::Gone);
        assert_eq!(write(&mut Fails(ErrorKind::StorageFull), "a").unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
