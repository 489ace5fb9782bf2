//! Takes a topology away: bindings first, queues only when nothing is lost by it, or when that is asked for.

use lapin::{
    options::{BasicGetOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};

use super::{
    pool::Hub,
    reply::{is_missing, lost, short},
    topology::{Bind, Topology},
};
use crate::problem::Problem;

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
pub async fn unbind(hub: &Hub, topology: &Topology) -> Result<(), Problem> {
    for binding in topology.bindings.iter().filter(|b| b.exchange != topology.exchange) {
        remove(hub, binding).await?;
    }
    Ok(())
}

/// Removes a binding. What does not exist is not bound.
pub(super) async fn remove(hub: &Hub, binding: &Bind) -> Result<(), Problem> {
    let channel = hub.channel().await?;
    let (queue, exchange, key) = (short(&binding.queue)?, short(&binding.exchange)?, short(&binding.routing_key)?);
    let done = channel.queue_unbind(queue, exchange, key, FieldTable::default()).await;
    if let Err(error) = done.or_else(|e| if is_missing(&e) { Ok(()) } else { Err(e) }) {
        return Err(lost(&error));
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
pub async fn delete_when_empty(hub: &Hub, topology: &Topology) -> Result<Emptied, Problem> {
    if !sources_empty(hub, topology).await? {
        return Ok(Emptied::NotYet);
    }
    for queue in topology.queues.iter().filter(|q| q.name != topology.dead) {
        delete(hub, &queue.name).await?;
    }
    if empty(hub, &topology.dead).await? {
        delete(hub, &topology.dead).await?;
        delete_exchange(hub, &topology.exchange).await?;
    }
    Ok(Emptied::Gone)
}

/// Deletes queues with what is in them, and the exchange. Adopted queues stay.
///
/// # Errors
/// If the hub does not answer.
pub async fn delete_all(hub: &Hub, topology: &Topology) -> Result<(), Problem> {
    for queue in &topology.queues {
        delete(hub, &queue.name).await?;
    }
    delete_exchange(hub, &topology.exchange).await
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

pub(super) async fn delete(hub: &Hub, queue: &str) -> Result<(), Problem> {
    let channel = hub.channel().await?;
    channel.queue_delete(short(queue)?, QueueDeleteOptions::default()).await.map_err(|e| lost(&e))?;
    let _ = channel.close(200, "done".into()).await;
    Ok(())
}

pub(super) async fn delete_exchange(hub: &Hub, exchange: &str) -> Result<(), Problem> {
    let channel = hub.channel().await?;
    channel.exchange_delete(short(exchange)?, ExchangeDeleteOptions::default()).await.map_err(|e| lost(&e))?;
    let _ = channel.close(200, "done".into()).await;
    Ok(())
}
