//! The topology of a pipeline, as data. Pure.
//!
//! Arguments of a queue are for life; what they are and why is decided here.

use drover_crds::{
    api::Binding,
    resolved::{Pipeline, SUSPECT_STEPS, delay_key, delay_queue, suspects_key, suspects_queue},
};

use super::look::Thing;

/// Deliveries after which the broker itself dead-letters a message: a backstop, far above what lost workers and restarts cost an
/// innocent one.
const DELIVERY_LIMIT: i64 = 1_000;
/// As good as none. Where none is given, RabbitMQ 4 takes 20, and there each look at a queue counts. The -1 that it knows for
/// none drops a message at its second look on 3.10, which takes it for a limit.
const UNLIMITED: i64 = 1_000_000_000;

/// An exchange, queues and bindings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The pipeline's own direct exchange.
    pub exchange: String,
    /// Queues to declare.
    pub queues: Vec<Queue>,
    /// Queues of somebody else, which must exist.
    pub adopted: Vec<String>,
    /// Exchanges of somebody else, which must exist.
    pub exchanges: Vec<String>,
    /// Bindings to make.
    pub bindings: Vec<Bind>,
    /// Those of them that are asked for the first time.
    pub asked: Vec<Bind>,
    /// Bindings to remove: they were asked for once, and are no longer.
    pub stale: Vec<Bind>,
    /// The dead-letter queue, one of `queues`.
    pub dead: String,
}

/// A durable queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<(&'static str, Arg)>,
}

/// A value of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arg {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
}

/// A binding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bind {
    /// To which queue.
    pub queue: String,
    /// From which exchange.
    pub exchange: String,
    /// With which key.
    pub routing_key: String,
}

impl Topology {
    /// What a pipeline needs.
    #[must_use]
    pub fn of(pipeline: &Pipeline) -> Self {
        let exchange = pipeline.exchange();
        let bind = |queue: &str, exchange: &str, routing_key: &str| Bind {
            queue: queue.to_owned(),
            exchange: exchange.to_owned(),
            routing_key: routing_key.to_owned(),
        };
        let mut bindings = vec![bind(&pipeline.dead_letter_queue, &exchange, "dead")];
        let mut queues =
            vec![dead_letters(&pipeline.dead_letter_queue, pipeline.max_dead_letters, pipeline.retention_seconds)];
        let mut adopted = Vec::new();
        if pipeline.adopt {
            adopted.push(pipeline.queue.clone());
        } else {
            queues.push(source(pipeline, &exchange));
            bindings.push(bind(&pipeline.queue, &exchange, "return"));
            bindings.extend(pipeline.bindings.iter().map(|b| bind(&pipeline.queue, &b.exchange, &b.routing_key)));
        }
        for seconds in pipeline.delays() {
            queues.push(delay(pipeline, &exchange, seconds));
            bindings.push(bind(&delay_queue(&pipeline.queue, seconds), &exchange, &delay_key(seconds)));
        }
        let topology = Self {
            exchange,
            queues,
            adopted,
            exchanges: pipeline.sink.hub.iter().map(|h| h.exchange.clone()).collect(),
            bindings,
            asked: Vec::new(),
            stale: Vec::new(),
            dead: pipeline.dead_letter_queue.clone(),
        };
        // The user's own code is what kills; all else makes them when they are needed.
        if pipeline.handler.is_some() { topology.with_suspects(pipeline) } else { topology }
    }

    /// Also the queues of suspects.
    #[must_use]
    pub fn with_suspects(mut self, pipeline: &Pipeline) -> Self {
        for step in 1..=SUSPECT_STEPS {
            let name = suspects_queue(&pipeline.queue, step);
            if self.queues.iter().any(|queue| queue.name == name) {
                continue;
            }
            let (exchange, routing_key) = (self.exchange.clone(), suspects_key(step));
            self.queues.push(Queue { name: name.clone(), arguments: kept(&self.exchange, "dead") });
            self.bindings.push(Bind { queue: name, exchange, routing_key });
        }
        self
    }

    /// Also removes those of the bindings made `before` that are no longer asked for, and knows which are asked for since.
    #[must_use]
    pub fn instead_of(mut self, pipeline: &Pipeline, before: &[Binding]) -> Self {
        let of = |b: &Binding| Bind {
            queue: pipeline.queue.clone(),
            exchange: b.exchange.clone(),
            routing_key: b.routing_key.clone(),
        };
        let gone = before.iter().filter(|b| !pipeline.adopt && !pipeline.bindings.contains(b));
        self.stale = gone.map(of).collect();
        let new = pipeline.bindings.iter().filter(|b| !pipeline.adopt && !before.contains(b));
        self.asked = new.map(of).collect();
        self
    }

    /// All that it declares and that may be missing.
    pub(super) fn things(&self) -> Vec<Thing<'_>> {
        let queues = self.queues.iter().map(|q| Thing::Queue(&q.name));
        std::iter::once(Thing::Exchange(&self.exchange)).chain(queues).collect()
    }
}

fn text(value: &str) -> Arg {
    Arg::Text(value.to_owned())
}

/// Dead-lettered by the broker at least once, which needs reject-publish.
fn kept(exchange: &str, next: &str) -> Vec<(&'static str, Arg)> {
    vec![
        ("x-queue-type", text("quorum")),
        ("x-dead-letter-exchange", text(exchange)),
        ("x-dead-letter-routing-key", text(next)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
        ("x-delivery-limit", Arg::Number(DELIVERY_LIMIT)),
    ]
}

fn source(pipeline: &Pipeline, exchange: &str) -> Queue {
    Queue { name: pipeline.queue.clone(), arguments: kept(exchange, "dead") }
}

/// All messages of it wait the same time, or a long wait would block the short ones behind it. Nothing of ours is bound to an
/// adopted source, so what has waited comes back to it by the broker's own exchange.
fn delay(pipeline: &Pipeline, exchange: &str, seconds: u32) -> Queue {
    let (exchange, next) = if pipeline.adopt { ("", pipeline.queue.as_str()) } else { (exchange, "return") };
    let mut arguments = kept(exchange, next);
    arguments.push(("x-message-ttl", Arg::Number(i64::from(seconds) * 1_000)));
    Queue { name: delay_queue(&pipeline.queue, seconds), arguments }
}

/// Refuses when full, so that the source stops rather than loses; a look at it costs nothing.
pub(super) fn dead_letters(queue: &str, most: u32, retention_seconds: u32) -> Queue {
    let arguments = vec![
        ("x-queue-type", text("quorum")),
        ("x-overflow", text("reject-publish")),
        ("x-max-length", Arg::Number(i64::from(most))),
        ("x-message-ttl", Arg::Number(i64::from(retention_seconds) * 1_000)),
        ("x-delivery-limit", Arg::Number(UNLIMITED)),
    ];
    Queue { name: queue.to_owned(), arguments }
}
