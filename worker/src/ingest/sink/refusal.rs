//! What a statement that PostgreSQL refused says about a message. Pure.

use tokio_postgres::error::DbError;

use super::super::{outage::Likeness, reject::Rejection};

/// The rejection of the message that is to blame, and what others refused for the same have in common.
pub(crate) fn of(error: &DbError) -> (Rejection, Likeness) {
    let code = error.code().code();
    let mut text = format!("{} (SQLSTATE {code})", error.message());
    if let Some(detail) = error.detail() {
        text = format!("{text}: {detail}");
    }
    let place = error.constraint().or(error.column()).unwrap_or_default();
    (Rejection::sink(reason(code), text), format!("SQLSTATE {code} {place}"))
}

fn reason(code: &str) -> &'static str {
    match code {
        "22001" => "TextTooLong",
        "22003" => "NumberOutOfRange",
        "22007" | "22008" => "InvalidTime",
        "22021" | "22P05" => "NulInText",
        "22P02" => "InvalidText",
        "22P03" => "InvalidBinary",
        "23502" => "NotNullViolation",
        "23503" => "ForeignKeyViolation",
        "23505" => "UniqueViolation",
        "23514" => "CheckViolation",
        "23P01" => "ExclusionViolation",
        "54000" => "ValueTooLong",
        _ => "RefusedBySink",
    }
}
