//! Whose fault a refused statement is: the rows', the moment's or the store's.

use tokio_postgres::error::SqlState;

/// What to do about a refused statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A row is refused for what it is; the same row will be refused again.
    Content,
    /// Concurrent work was in the way; at once again.
    Retry,
    /// The store does not take rows now; all of them wait.
    Sink,
}

impl Fault {
    /// By SQLSTATE: classes 22 and 23 and a trigger's own exception are content, 40 is retried, all others and the unknown are the sink.
    #[must_use]
    pub fn of(error: &tokio_postgres::Error) -> Self {
        error.code().map_or(Self::Sink, Self::of_state)
    }

    /// As [`Fault::of`], from the SQLSTATE alone.
    #[must_use]
    pub fn of_state(code: &SqlState) -> Self {
        let code = code.code();
        match code.get(..2) {
            Some("22" | "23") => Self::Content,
            Some("40") => Self::Retry,
            // A value too long for an index. The rest of class 54 is the statement's. P0001 is what a trigger raises that checks rows.
            _ if matches!(code, "54000" | "P0001") => Self::Content,
            _ => Self::Sink,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_apart_by_sqlstate() {
        for code in ["22P02", "22021", "22003", "23502", "23505", "23514", "54000", "P0001"] {
            assert_eq!(Fault::of_state(&SqlState::from_code(code)), Fault::Content, "{code}");
        }
        for code in ["40001", "40P01"] {
            assert_eq!(Fault::of_state(&SqlState::from_code(code)), Fault::Retry, "{code}");
        }
        for code in ["08006", "25006", "28P01", "42P01", "42501", "53100", "53300", "57P01", "58030", "XX000"] {
            assert_eq!(Fault::of_state(&SqlState::from_code(code)), Fault::Sink, "{code}");
        }
    }
}
