//! The mirror of a source: a queue that copies of what arrives go to, while a revision is tried on them.
//!
//! It must never cost the publishers anything: a mirror that refused when full would refuse the message itself.

use lapin::{options::QueueDeclareOptions, types::FieldTable};

use super::{
    declare::{bind, declare},
    pool::Hub,
    remove::delete,
    reply::{is_missing, lost, short},
    topology::{Arg, Bind, Queue},
};
use crate::problem::Problem;
use drover_crds::api::Binding;

/// Most messages of it; the oldest go first.
const MOST: i64 = 10_000;
/// Most bytes of it, for large messages.
const MOST_BYTES: i64 = 64 * 1024 * 1024;
/// One that nobody has used for so long, in milliseconds, removes itself: what an operator that was removed has left behind.
const EXPIRES: i64 = 600_000;

impl Hub {
    /// Makes sure of a mirror, bound as its source is.
    ///
    /// # Errors
    /// If it cannot be made, or the hub does not answer.
    pub async fn mirror(&self, name: &str, bindings: &[Binding]) -> Result<(), Problem> {
        let channel = self.channel().await?;
        declare(&channel, &queue(name), false).await?;
        for binding in bindings {
            let (exchange, routing_key) = (binding.exchange.clone(), binding.routing_key.clone());
            bind(&channel, &Bind { queue: name.to_owned(), exchange, routing_key }, "source.bindings").await?;
        }
        // A channel that the hub has closed meanwhile needs no closing.
        let _ = channel.close(200, "done".into()).await;
        Ok(())
    }

    /// Removes a mirror with what is in it; one that is not there is removed.
    ///
    /// # Errors
    /// If the hub does not answer.
    pub async fn remove_mirror(&self, name: &str) -> Result<(), Problem> {
        let Err(problem) = delete(self, name).await else { return Ok(()) };
        // One that the user may not remove, and could not make, need not be there.
        if self.is_there(name).await? { Err(problem) } else { Ok(()) }
    }

    async fn is_there(&self, name: &str) -> Result<bool, Problem> {
        let channel = self.channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match channel.queue_declare(short(name)?, passive, FieldTable::default()).await {
            Ok(_) => {
                let _ = channel.close(200, "done".into()).await;
                Ok(true)
            }
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(lost(&error)),
        }
    }
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
