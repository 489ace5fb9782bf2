//! What is wrong with a query, and where.

use sqlparser::tokenizer::{Location, Span};

/// A place in the query text, both from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

impl Position {
    /// The first character of the text.
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    /// The start of a span, or `fallback` for a span that the parser left empty.
    pub(crate) fn of(span: Span, fallback: Self) -> Self {
        Self::at(span.start).unwrap_or(fallback)
    }

    fn at(location: Location) -> Option<Self> {
        (location.line > 0 && location.column > 0).then_some(Self { line: location.line, column: location.column })
    }
}

/// Why a query is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}{}", .hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default())]
pub struct QueryError {
    /// Line in the text as written, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
    /// The nearest supported form, where there is one.
    pub hint: Option<String>,
}

impl QueryError {
    pub(crate) fn new(position: Position, message: impl Into<String>) -> Self {
        Self { line: position.line, column: position.column, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
