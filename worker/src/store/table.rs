//! What a table is like, and whether a sink fits it. Reads the catalog; changes nothing.

mod catalog;
mod fit;

use drover_crds::api::PostgresSink;
use tokio_postgres::Client;

use super::StoreReason;
pub use catalog::{Column, Kind, TableShape};

/// Why a table cannot take a sink's rows, as a condition's reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableReason {
    /// There is no such table, or it is not one.
    TableNotFound,
    /// A column that the sink names is missing.
    ColumnNotFound,
    /// The id or the key has no unique index.
    NoUniqueIndex,
    /// The role lacks a right.
    PrivilegeMissing,
    /// The database takes no writes.
    ReadOnly,
    /// A column cannot be used for what the sink names it for.
    ColumnTypeUnfit,
    /// The catalog could not be read.
    Store(StoreReason),
}

impl TableReason {
    /// The reason in `CamelCase`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TableNotFound => "TableNotFound",
            Self::ColumnNotFound => "ColumnNotFound",
            Self::NoUniqueIndex => "NoUniqueIndex",
            Self::PrivilegeMissing => "PrivilegeMissing",
            Self::ReadOnly => "ReadOnly",
            Self::ColumnTypeUnfit => "ColumnTypeUnfit",
            Self::Store(reason) => reason.as_str(),
        }
    }
}

/// A table cannot take a sink's rows.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TableProblem {
    /// The condition's reason.
    pub reason: TableReason,
    /// One line: what is the matter, and what to do, as a statement where one mends it.
    pub message: String,
    /// The cause, where there is one.
    #[source]
    pub source: Option<tokio_postgres::Error>,
}

/// Reads what the sink's table is like.
///
/// # Errors
/// If the table is missing, or the catalog cannot be read.
pub async fn describe(client: &Client, sink: &PostgresSink) -> Result<TableShape, TableProblem> {
    catalog::read(client, sink).await
}

/// `table` or `schema.table` as SQL wants it; `None` where it is neither.
pub(crate) fn quoted_table(table: &str) -> Option<String> {
    Some(match drover_crds::resolved::table(table)? {
        (Some(schema), table) => format!("{}.{}", quoted(schema), quoted(table)),
        (None, table) => quoted(table),
    })
}

/// A name as SQL wants it, whatever is in it.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
