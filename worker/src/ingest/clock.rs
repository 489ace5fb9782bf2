//! Where time enters. Everything else is given it.

use std::time::Instant;

use jiff::Timestamp;

#[expect(clippy::disallowed_methods, reason = "time enters here")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "time enters here")]
pub(crate) fn today() -> Timestamp {
    Timestamp::now()
}
