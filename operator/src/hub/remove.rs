//! Takes a topology away: bindings first, queues only when nothing is lost by it, or when that is asked for. What is taken away is told;
//! what was not there is not.

use lapin::{
    options::{BasicGetOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};

use super::{
    look::{Thing, unbound},
    pool::Hub,
    reply::{is_missing, lost, short},
    topology::{Bind, Topology},
};
use crate::{
    audit::{Cause, Effect, Outcome, Verb},
    problem::Problem,
};

/// What a look at a queue that is to go has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emptied {
    /// It is gone, or was not there.
    Gone,
    /// Messages are in it, or may be.
    NotYet,
}

/// Takes away what brings new messages.
///
/// # Errors
/// If the hub does not answer.
pub async fn unbind(hub: &Hub, topology: &Topology, cause: &Cause) -> Result<(), Problem> {
    for binding in topology.bindings.iter().filter(|b| b.exchange != topology.exchange) {
        remove(hub, binding, cause).await?;
    }
    Ok(())
}

/// Removes a binding. What does not exist is not bound.
pub(super) async fn remove(hub: &Hub, binding: &Bind, cause: &Cause) -> Result<(), Problem> {
    let channel = hub.channel().await?;
    let (queue, exchange, key) = (short(&binding.queue)?, short(&binding.exchange)?, short(&binding.routing_key)?);
    match channel.queue_unbind(queue, exchange, key, FieldTable::default()).await {
        Ok(()) => unbound(hub, cause, binding),
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) => return Err(lost(&error)),
    }
    let _ = channel.close(200, "done".into()).await;
    Ok(())
}

/// True if no message waits in the sources. What workers hold is not counted.
///
/// # Errors
/// If the hub does not answer.
pub async fn sources_empty(hub: &Hub, topology: &Topology) -> Result<bool, Problem> {
    for queue in topology.queues.iter().filter(|q| q.name != topology.dead) {
        if !empty(hub, &queue.name).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Deletes the sources if they are empty, then the dead-letter queue if it is too, and then the exchange. A dead-letter queue with
/// messages stays, with its exchange.
///
/// # Errors
/// If the hub does not answer.
pub async fn delete_when_empty(hub: &Hub, topology: &Topology, cause: &Cause) -> Result<Emptied, Problem> {
    if !sources_empty(hub, topology).await? {
        return Ok(Emptied::NotYet);
    }
    for queue in topology.queues.iter().filter(|q| q.name != topology.dead) {
        delete(hub, Thing::Queue(&queue.name), cause).await?;
    }
    if empty(hub, &topology.dead).await? {
        delete(hub, Thing::Queue(&topology.dead), cause).await?;
        delete(hub, Thing::Exchange(&topology.exchange), cause).await?;
    }
    Ok(Emptied::Gone)
}

/// Deletes queues with what is in them, and the exchange. Adopted queues stay.
///
/// # Errors
/// If the hub does not answer.
pub async fn delete_all(hub: &Hub, topology: &Topology, cause: &Cause) -> Result<(), Problem> {
    for queue in &topology.queues {
        delete(hub, Thing::Queue(&queue.name), cause).await?;
    }
    delete(hub, Thing::Exchange(&topology.exchange), cause).await
}

/// A count of 0 may be of a queue whose leader is gone: only a get, which goes through the leader, tells. A get of a message that is
/// there would count as a delivery, so the count comes first. A queue that does not exist is empty.
pub(super) async fn empty(hub: &Hub, queue: &str) -> Result<bool, Problem> {
    let channel = hub.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match channel.queue_declare(short(queue)?, options, FieldTable::default()).await {
        Ok(found) if found.message_count() > 0 => return Ok(false),
        Ok(_) => {}
        Err(error) if is_missing(&error) => return Ok(true),
        Err(error) => return Err(lost(&error)),
    }
    let got = channel.basic_get(short(queue)?, BasicGetOptions { no_ack: false }).await.map_err(|e| lost(&e))?;
    // With the channel a message that was got goes back.
    let _ = channel.close(200, "done".into()).await;
    Ok(got.is_none())
}

/// Deletes a thing with what is in it; one that is not there is deleted.
pub(super) async fn delete(hub: &Hub, thing: Thing<'_>, cause: &Cause) -> Result<(), Problem> {
    if hub.lacks(thing).await? {
        return Ok(());
    }
    let channel = hub.channel().await?;
    let name = short(thing.name())?;
    let deleted = match thing {
        Thing::Queue(_) | Thing::Stream(_) => {
            channel.queue_delete(name, QueueDeleteOptions::default()).await.map(|messages| Some(i64::from(messages)))
        }
        Thing::Exchange(_) => channel.exchange_delete(name, ExchangeDeleteOptions::default()).await.map(|()| None),
    };
    let deleted = deleted.map_err(|e| lost(&e));
    let effect = Effect::new(Verb::Delete, thing.resource(), thing.name());
    match &deleted {
        Ok(messages) => cause.tell(&Effect { messages: *messages, ..effect }, Outcome::Done),
        Err(problem) => cause.tell(&effect, Outcome::Failed(&problem.reason)),
    }
    deleted?;
    hub.bindings.forget(thing.name());
    let _ = channel.close(200, "done".into()).await;
    Ok(())
}
