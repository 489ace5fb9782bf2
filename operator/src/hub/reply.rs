//! What the hub's answers mean. Pure.

use lapin::{ErrorKind, types::ShortString};

use crate::problem::Problem;

/// AMQP's code for what the user may not do.
const ACCESS_REFUSED: u16 = 403;
/// AMQP's code for what it does not know.
pub(super) const COMMAND_INVALID: u16 = 503;
/// AMQP's code for what does not exist.
pub(super) const NOT_FOUND: u16 = 404;
/// AMQP's code for what exists with other arguments.
pub(super) const PRECONDITION_FAILED: u16 = 406;

/// What an error means to somebody who wanted to do `what`, where one code has a meaning of its own.
pub(super) fn told(error: &lapin::Error, what: &str, code: u16, meaning: impl FnOnce(&str) -> Problem) -> Problem {
    match reply(error) {
        Some((found, text)) if found == code && (code != NOT_FOUND || says_missing(&text)) => meaning(&text),
        _ => refused(error, what),
    }
}

/// What an error means to somebody who wanted to do `what`.
pub(super) fn refused(error: &lapin::Error, what: &str) -> Problem {
    match reply(error) {
        None => lost(error),
        Some((ACCESS_REFUSED, text)) => Problem::new(
            "PermissionMissing",
            format!("the hub's user may not {what}: {text}. Grant it configure, write and read there"),
        ),
        Some((_, text)) => Problem::new("HubRefuses", format!("the hub refuses to {what}: {text}")),
    }
}

/// True if the hub says that something does not exist. It has the same code for a queue whose node is down, with another text:
/// that one is there, and has what it had.
pub(super) fn is_missing(error: &lapin::Error) -> bool {
    reply(error).is_some_and(|(code, text)| code == NOT_FOUND && says_missing(&text))
}

fn says_missing(text: &str) -> bool {
    ["no queue ", "no exchange ", "no binding "].iter().any(|what| text.contains(what))
}

/// The connection ended meanwhile.
pub(super) fn lost(error: &lapin::Error) -> Problem {
    Problem::new("ConnectionLost", format!("hub: the connection was lost: {error}"))
}

/// A name as AMQP takes it.
pub(super) fn short(name: &str) -> Result<ShortString, Problem> {
    ShortString::try_new(name)
        .map_err(|e| Problem::new("InvalidSpec", format!("a name is longer than AMQP takes: {e}")))
}

/// The hub's own answer; `None` if there was none.
fn reply(error: &lapin::Error) -> Option<(u16, String)> {
    match error.kind() {
        ErrorKind::ProtocolError(e) => Some((e.get_id(), e.get_message().to_string())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::says_missing;

    #[test]
    fn a_queue_whose_node_is_down_is_not_missing() {
        assert!(says_missing("NOT_FOUND - no queue 'a' in vhost '/'"));
        assert!(says_missing("NOT_FOUND - no exchange 'a' in vhost '/'"));
        assert!(!says_missing(
            "NOT_FOUND - home node 'rabbit@b' of durable queue 'a' in vhost '/' is down or inaccessible"
        ));
        assert!(!says_missing("NOT_FOUND - queue 'a' in vhost '/' process is stopped by supervisor"));
        assert!(!says_missing("NOT_FOUND - failed to perform operation on queue 'a' in vhost '/' due to timeout"));
    }
}
