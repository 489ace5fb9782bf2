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
        None => lost(error),
        Some((found, text)) if found == code => meaning(&text),
        Some((ACCESS_REFUSED, text)) => Problem::new(
            "PermissionMissing",
            format!("the hub's user may not {what}: {text}. Grant it configure, write and read there"),
        ),
        Some((_, text)) => Problem::new("HubRefuses", format!("the hub refuses to {what}: {text}")),
    }
}

/// True if the hub says that something does not exist.
pub(super) fn is_missing(error: &lapin::Error) -> bool {
    reply(error).is_some_and(|(code, _)| code == NOT_FOUND)
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
