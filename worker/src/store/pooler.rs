//! What a pooler says of its own, not the server behind it. `PgBouncer` gives all of it one SQLSTATE, so its words tell it apart.

use super::StoreReason;

/// The SQLSTATE: a violation of the protocol, which it is not.
pub(super) const STATE: &str = "08P01";

/// Words of its messages, and what is the matter.
const WORDS: [(&str, StoreReason); 9] = [
    ("authentication failed", StoreReason::AuthenticationFailed),
    ("no such user", StoreReason::AuthenticationFailed),
    ("no such database", StoreReason::DatabaseNotFound),
    ("SSL required", StoreReason::TlsRequired),
    ("max_client_conn", StoreReason::TooManyConnections),
    // None of the server's connections came free.
    ("query_wait_timeout", StoreReason::TooManyConnections),
    ("too many connections", StoreReason::TooManyConnections),
    ("shutting down", StoreReason::NotReady),
    ("client_login_timeout", StoreReason::NotReady),
];

/// The reason behind a message; none where it says no more than that the connection is lost.
pub(super) fn reason(message: &str) -> Option<StoreReason> {
    WORDS.iter().find(|(words, _)| message.contains(words)).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pooler_says_is_told_apart() {
        assert_eq!(reason("SASL authentication failed"), Some(StoreReason::AuthenticationFailed));
        assert_eq!(reason("no such database: iot"), Some(StoreReason::DatabaseNotFound));
        assert_eq!(reason("no more connections allowed (max_client_conn)"), Some(StoreReason::TooManyConnections));
        assert_eq!(reason("server conn crashed?"), None);
    }
}
