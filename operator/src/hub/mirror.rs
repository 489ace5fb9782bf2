//! The mirror of a source: a queue that copies of what arrives go to, while a revision is tried on them.
//!
//! It must never cost the publishers anything: a mirror that refused when full would refuse the message itself.

use std::time::Duration;

use super::{
    declare::{bind, declare},
    look::Thing,
    pool::Hub,
    remove::{delete, remove},
    topology::{Arg, Bind, Queue},
};
use crate::{audit::Cause, problem::Problem};
use drover_crds::api::Binding;

/// Most messages of it; the oldest go first.
const MOST: i64 = 10_000;
/// Most bytes of it, for large messages.
const MOST_BYTES: i64 = 64 * 1024 * 1024;
/// One that nobody has used for so long, in milliseconds, removes itself: what an operator that was removed has left behind.
const EXPIRES: i64 = 600_000;
/// From the end of its bindings to its own. A publisher's channel that has found it among the bindings, and that it is gone when it is to
/// get the message, refuses the message, though the source has it.
const ROUTED: Duration = Duration::from_millis(500);

impl Hub {
    /// Makes sure of a mirror, bound as its source is.
    ///
    /// # Errors
    /// If it cannot be made, or the hub does not answer.
    pub async fn mirror(&self, name: &str, bindings: &[Binding], cause: &Cause) -> Result<(), Problem> {
        let (channel, look) = self.look(&[Thing::Queue(name)], cause).await?;
        let bindings = to_mirror(name, bindings);
        look.expect(&bindings);
        look.declared(Thing::Queue(name), declare(&channel, &queue(name), false).await)?;
        for binding in &bindings {
            look.bound(binding, bind(&channel, binding, "source.bindings").await)?;
        }
        // A channel that the hub has closed meanwhile needs no closing.
        let _ = channel.close(200, "done".into()).await;
        Ok(())
    }

    /// Removes a mirror with what is in it; one that is not there is removed. Nothing goes to it any more when it is.
    ///
    /// # Errors
    /// If the hub does not answer.
    pub async fn remove_mirror(&self, name: &str, bindings: &[Binding], cause: &Cause) -> Result<(), Problem> {
        // One that the user may not remove, and could not make, is not there.
        if self.lacks(Thing::Queue(name)).await? {
            return Ok(());
        }
        for binding in &to_mirror(name, bindings) {
            remove(self, binding, cause).await?;
        }
        tokio::time::sleep(ROUTED).await;
        delete(self, Thing::Queue(name), cause).await
    }
}

fn to_mirror(name: &str, bindings: &[Binding]) -> Vec<Bind> {
    let to_mirror = |b: &Binding| {
        let (exchange, routing_key) = (b.exchange.clone(), b.routing_key.clone());
        Bind { queue: name.to_owned(), exchange, routing_key }
    };
    bindings.iter().map(to_mirror).collect()
}

/// Durable, since only such queues go on in all versions; classic, since what is in it may be lost.
fn queue(name: &str) -> Queue {
    let arguments = vec![
        ("x-queue-type", Arg::Text("classic".to_owned())),
        ("x-overflow", Arg::Text("drop-head".to_owned())),
        ("x-max-length", Arg::Number(MOST)),
        ("x-max-length-bytes", Arg::Number(MOST_BYTES)),
        ("x-expires", Arg::Number(EXPIRES)),
    ];
    Queue { name: name.to_owned(), arguments }
}
