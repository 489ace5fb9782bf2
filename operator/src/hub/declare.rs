//! Declares a topology. Declaring what is there already, with the same arguments, changes nothing and is how AMQP lets one see
//! that it is as it should be. What is made is told, what is found is not.

use std::time::Duration;

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};

use super::{
    look::Thing,
    pool::Hub,
    remove::remove,
    reply::{NOT_FOUND, PRECONDITION_FAILED, short, told},
    topology::{Arg, Bind, Queue, Topology},
};
use crate::{audit::Cause, problem::Problem};

/// A hub that is connected and does not answer within this is as good as gone.
const PATIENCE: Duration = Duration::from_secs(3);

impl Hub {
    /// Makes sure of a topology, and counts the dead letters.
    ///
    /// # Errors
    /// The first thing that is not as it should be and cannot be made so.
    pub async fn ensure(&self, topology: &Topology, cause: &Cause) -> Result<u32, Problem> {
        let silent = |_| Err(Problem::new("Timeout", format!("hub: no answer within {} s", PATIENCE.as_secs())));
        tokio::time::timeout(PATIENCE, self.declare_all(topology, cause)).await.unwrap_or_else(silent)
    }

    async fn declare_all(&self, topology: &Topology, cause: &Cause) -> Result<u32, Problem> {
        let (channel, look) = self.look(&topology.things(), cause).await?;
        look.expect(&topology.bindings);
        topology.asked.iter().for_each(|binding| self.bindings.asked(binding));
        let name = &topology.exchange;
        look.declared(Thing::Exchange(name), exchange(&channel, name, "source.queue").await)?;
        for name in &topology.adopted {
            passive(&channel, name).await?;
        }
        for name in &topology.exchanges {
            foreign_exchange(&channel, name).await?;
        }
        let mut dead = 0;
        for queue in &topology.queues {
            let is_dead = queue.name == topology.dead;
            let count = look.declared(Thing::Queue(&queue.name), declare(&channel, queue, is_dead).await)?;
            if is_dead {
                dead = count;
            }
        }
        for binding in &topology.bindings {
            look.bound(binding, bind(&channel, binding, "source.bindings").await)?;
        }
        for binding in &topology.stale {
            remove(self, binding, &cause.because("the object no longer asks for it")).await?;
        }
        // A channel that the hub has closed meanwhile needs no closing.
        let _ = channel.close(200, "done".into()).await;
        Ok(dead)
    }
}

pub(super) async fn declare(channel: &Channel, queue: &Queue, dead: bool) -> Result<u32, Problem> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(short(&queue.name)?, options, table(&queue.arguments)).await;
    let what = format!("declare queue {}", queue.name);
    let differs = |text: &str| differs(&queue.name, dead, text);
    declared.map(|q| q.message_count()).map_err(|e| told(&e, &what, PRECONDITION_FAILED, differs))
}

pub(super) async fn exchange(channel: &Channel, name: &str, field: &str) -> Result<(), Problem> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(short(name)?, ExchangeKind::Direct, options, FieldTable::default()).await;
    let differs = |text: &str| {
        let message = format!(
            "exchange {name} exists and is not a durable direct exchange: delete it, or name another {field} ({text})"
        );
        Problem::new("ExchangeDiffers", message)
    };
    declared.map_err(|e| told(&e, &format!("declare exchange {name}"), PRECONDITION_FAILED, differs))
}

pub(super) async fn foreign_exchange(channel: &Channel, name: &str) -> Result<(), Problem> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let found = channel.exchange_declare(short(name)?, ExchangeKind::Direct, options, FieldTable::default()).await;
    let missing = |_: &str| {
        let message = format!("sink.hub.exchange: there is no exchange {name}: make it, or name another");
        Problem::new("ExchangeMissing", message)
    };
    found.map_err(|e| told(&e, &format!("look at exchange {name}"), NOT_FOUND, missing))
}

async fn passive(channel: &Channel, name: &str) -> Result<(), Problem> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let found = channel.queue_declare(short(name)?, options, FieldTable::default()).await;
    let missing = |_: &str| {
        let message = format!(
            "queue {name} is adopted and does not exist: make it, or set source.adopt: false in a new pipeline"
        );
        Problem::new("QueueMissing", message)
    };
    found.map(drop).map_err(|e| told(&e, &format!("look at queue {name}"), NOT_FOUND, missing))
}

pub(super) async fn bind(channel: &Channel, binding: &Bind, field: &str) -> Result<(), Problem> {
    let Bind { queue, exchange, routing_key } = binding;
    let options = QueueBindOptions::default();
    let (to, from, key) = (short(queue)?, short(exchange)?, short(routing_key)?);
    let bound = channel.queue_bind(to, from, key, options, FieldTable::default()).await;
    let missing = |_: &str| {
        let message =
            format!("{field}: there is no exchange {exchange} to bind queue {queue} to: make it, or name another");
        Problem::new("ExchangeMissing", message)
    };
    bound.map_err(|e| told(&e, &format!("bind queue {queue} to exchange {exchange}"), NOT_FOUND, missing))
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

pub(super) fn table(arguments: &[(&'static str, Arg)]) -> FieldTable {
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
