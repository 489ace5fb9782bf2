//! Declares a topology. Declaring what is there already, with the same arguments, changes nothing and is how AMQP lets one see
//! that it is as it should be.

use std::time::Duration;

use lapin::{
    Channel, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use super::{
    pool::{Hub, lost, short},
    remove::remove,
    topology::{Arg, Bind, Queue, Topology},
};
use crate::problem::Problem;

/// AMQP's code for what does not exist.
const NOT_FOUND: u16 = 404;
/// AMQP's code for what the user may not do.
const ACCESS_REFUSED: u16 = 403;
/// AMQP's code for what exists with other arguments.
const PRECONDITION_FAILED: u16 = 406;

/// A hub that is connected and does not answer within this is as good as gone.
const PATIENCE: Duration = Duration::from_secs(3);

impl Hub {
    /// Makes sure of a topology, and counts the dead letters.
    ///
    /// # Errors
    /// The first thing that is not as it should be and cannot be made so.
    pub async fn ensure(&self, topology: &Topology) -> Result<u32, Problem> {
        let silent = |_| Err(Problem::new("Timeout", format!("hub: no answer within {} s", PATIENCE.as_secs())));
        tokio::time::timeout(PATIENCE, self.declare_all(topology)).await.unwrap_or_else(silent)
    }

    async fn declare_all(&self, topology: &Topology) -> Result<u32, Problem> {
        let channel = self.channel().await?;
        exchange(&channel, &topology.exchange).await?;
        for name in &topology.adopted {
            passive(&channel, name).await?;
        }
        for name in &topology.exchanges {
            foreign_exchange(&channel, name).await?;
        }
        let mut dead = 0;
        for queue in &topology.queues {
            let is_dead = queue.name == topology.dead;
            let count = declare(&channel, queue, is_dead).await?;
            if is_dead {
                dead = count;
            }
        }
        for binding in &topology.bindings {
            bind(&channel, binding).await?;
        }
        for binding in &topology.stale {
            remove(self, binding).await?;
        }
        // A channel that the hub has closed meanwhile needs no closing.
        let _ = channel.close(200, "done".into()).await;
        Ok(dead)
    }
}

async fn declare(channel: &Channel, queue: &Queue, dead: bool) -> Result<u32, Problem> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(short(&queue.name)?, options, table(&queue.arguments)).await;
    declared.map(|q| q.message_count()).map_err(|e| match reply(&e) {
        None => lost(&e),
        Some((PRECONDITION_FAILED, text)) => differs(&queue.name, dead, &text),
        Some((code, text)) => denied(code, &text, &format!("declare queue {}", queue.name)),
    })
}

async fn exchange(channel: &Channel, name: &str) -> Result<(), Problem> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(short(name)?, ExchangeKind::Direct, options, FieldTable::default()).await.map_err(|e| {
        match reply(&e) {
            None => lost(&e),
            Some((PRECONDITION_FAILED, text)) => Problem::new(
                "ExchangeDiffers",
                format!("exchange {name} exists and is not a durable direct exchange: delete it, or name another source.queue ({text})"),
            ),
            Some((code, text)) => denied(code, &text, &format!("declare exchange {name}")),
        }
    })
}

async fn foreign_exchange(channel: &Channel, name: &str) -> Result<(), Problem> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let found = channel.exchange_declare(short(name)?, ExchangeKind::Direct, options, FieldTable::default()).await;
    found.map_err(|e| match reply(&e) {
        None => lost(&e),
        Some((NOT_FOUND, _)) => Problem::new(
            "ExchangeMissing",
            format!("sink.hub.exchange: there is no exchange {name}: make it, or name another"),
        ),
        Some((code, text)) => denied(code, &text, &format!("look at exchange {name}")),
    })
}

async fn passive(channel: &Channel, name: &str) -> Result<(), Problem> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    match channel.queue_declare(short(name)?, options, FieldTable::default()).await {
        Ok(_) => Ok(()),
        Err(e) => Err(match reply(&e) {
            None => lost(&e),
            Some((NOT_FOUND, _)) => Problem::new(
                "QueueMissing",
                format!(
                    "queue {name} is adopted and does not exist: make it, or set source.adopt: false in a new pipeline"
                ),
            ),
            Some((code, text)) => denied(code, &text, &format!("look at queue {name}")),
        }),
    }
}

async fn bind(channel: &Channel, binding: &Bind) -> Result<(), Problem> {
    let Bind { queue, exchange, routing_key } = binding;
    channel
        .queue_bind(
            short(queue)?,
            short(exchange)?,
            short(routing_key)?,
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await
        .map_err(|e| match reply(&e) {
            None => lost(&e),
            Some((NOT_FOUND, _)) => Problem::new(
                "ExchangeMissing",
                format!("source.bindings: there is no exchange {exchange} to bind queue {queue} to: make it, or name another"),
            ),
            Some((code, text)) => denied(code, &text, &format!("bind queue {queue} to exchange {exchange}")),
        })
}

fn denied(code: u16, text: &str, what: &str) -> Problem {
    if code == ACCESS_REFUSED {
        Problem::new(
            "PermissionMissing",
            format!("the hub's user may not {what}: {text}. Grant it configure, write and read there"),
        )
    } else {
        Problem::new("HubRefuses", format!("the hub refuses to {what}: {text}"))
    }
}

fn differs(queue: &str, dead: bool, text: &str) -> Problem {
    let limits = ["x-message-ttl", "x-max-length"].iter().any(|a| text.contains(&format!("inequivalent arg '{a}'")));
    if limits {
        Problem::new(
            "NeedsManagementApi",
            format!(
                "deadLetter: the limits of queue {queue} are arguments for its life and cannot be edited: put the values back ({text})"
            ),
        )
    } else {
        let way = if dead {
            "delete it when it is empty, or name another deadLetter.queue in a new pipeline"
        } else {
            "use it as it is with source.adopt in a new pipeline, or delete it when it is empty"
        };
        Problem::new("QueueArgumentsDiffer", format!("queue {queue} exists with other arguments: {way} ({text})"))
    }
}

/// The hub's own answer; `None` if there was none.
fn reply(error: &lapin::Error) -> Option<(u16, String)> {
    match error.kind() {
        ErrorKind::ProtocolError(e) => Some((e.get_id(), e.get_message().to_string())),
        _ => None,
    }
}

fn table(arguments: &[(&'static str, Arg)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        let value = match value {
            Arg::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Arg::Number(number) => AMQPValue::LongLongInt(*number),
        };
        table.insert((*name).into(), value);
    }
    table
}
