//! The streams of a query at its hub: declared, bound and taken away. What they are is data of [`Streams`]; when each step is taken is
//! the caller's, since rows of the store come between them.

use std::time::Duration;

use drover_crds::{api::Binding, resolved_query::Query};
use drover_worker::hub::{channel as channel_of, connect};
use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeBindOptions, ExchangeDeclareOptions, ExchangeUnbindOptions, QueueDeclareOptions},
    types::FieldTable,
};

use super::{
    declare::{bind, declare, exchange, foreign_exchange},
    look::{Look, Thing, unbound},
    pool::Hub,
    remove::{delete, empty},
    reply::{COMMAND_INVALID, NOT_FOUND, PRECONDITION_FAILED, is_missing, lost, refused, short, told},
    topology::{Arg, Bind, Queue, dead_letters},
};
use crate::{audit::Cause, problem::Problem};

/// A hub that is connected and does not answer within this is as good as gone. Streams take longer to make than queues.
const PATIENCE: Duration = Duration::from_secs(20);
/// Spreads messages over the streams by a hash of their routing keys.
const CONSISTENT_HASH: &str = "x-consistent-hash";
/// Share of a stream: all have the same.
const WEIGHT: &str = "1";
/// A stream drops whole segments: so many of them are its size limit, at least.
const SEGMENTS: i64 = 4;
/// Size of segments where the limit is large: the broker's default.
const SEGMENT_BYTES: i64 = 500_000_000;
/// Key of dead letters.
const DEAD: &str = "dead";

/// The streams of a query and what is around them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streams {
    /// The query's own direct exchange: ticks and dead letters go through it.
    pub own: String,
    /// The consistent-hash exchange before the streams.
    pub exchange: String,
    /// One for each partition.
    pub streams: Vec<Queue>,
    /// The dead-letter queue.
    pub dead: Queue,
    /// Exchanges of somebody else, which must exist.
    pub exchanges: Vec<String>,
    /// What is routed into the streams.
    pub bindings: Vec<Binding>,
    /// Those of them that are asked for the first time.
    pub asked: Vec<Binding>,
    /// What was, and is no longer.
    pub stale: Vec<Binding>,
}

impl Streams {
    /// What a query needs, and which of its bindings differ from those made `before`.
    #[must_use]
    pub fn of(query: &Query, before: &[Binding]) -> Self {
        let arguments = vec![
            ("x-queue-type", Arg::Text("stream".to_owned())),
            ("x-max-age", Arg::Text(format!("{}s", query.max_age_seconds))),
            ("x-max-length-bytes", Arg::Number(query.max_stream_bytes)),
            ("x-stream-max-segment-size-bytes", Arg::Number(SEGMENT_BYTES.min(query.max_stream_bytes / SEGMENTS))),
        ];
        let stream = |name| Queue { name, arguments: arguments.clone() };
        Self {
            own: query.exchange(),
            exchange: query.stream.clone(),
            streams: query.streams().into_iter().map(stream).collect(),
            dead: dead_letters(&query.dead_letter_queue, query.max_dead_letters, query.retention_seconds),
            exchanges: query.hub_outputs().map(|h| h.exchange.clone()).collect(),
            bindings: query.bindings.clone(),
            asked: query.bindings.iter().filter(|b| !before.contains(b)).cloned().collect(),
            stale: before.iter().filter(|b| !query.bindings.contains(b)).cloned().collect(),
        }
    }

    /// Ticks reach a stream by it.
    fn tick(&self, part: usize, stream: &Queue) -> Bind {
        to(&stream.name, &self.own, &format!("tick-{part}"))
    }

    /// Messages reach a stream by it.
    fn share(&self, stream: &Queue) -> Bind {
        to(&stream.name, &self.exchange, WEIGHT)
    }

    /// What is routed into the streams, to the exchange before them.
    fn inflow(&self, binding: &Binding) -> Bind {
        to(&self.exchange, &binding.exchange, &binding.routing_key)
    }

    /// The streams of some partitions.
    fn parts(&self, parts: &[u16]) -> Vec<Thing<'_>> {
        parts.iter().filter_map(|part| self.streams.get(usize::from(*part))).map(|s| Thing::Stream(&s.name)).collect()
    }

    /// All bindings.
    fn all(&self) -> Vec<Bind> {
        let ticks = self.streams.iter().enumerate().map(|(part, stream)| self.tick(part, stream));
        let shares = self.streams.iter().map(|stream| self.share(stream));
        let dead = to(&self.dead.name, &self.own, DEAD);
        ticks.chain(shares).chain(self.bindings.iter().map(|b| self.inflow(b))).chain([dead]).collect()
    }
}

/// What the first step has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Messages in the dead-letter queue.
    pub dead: u32,
    /// Partitions whose streams are not there.
    pub missing: Vec<u16>,
}

impl Hub {
    /// First: exchanges and the dead-letter queue are made sure of; which streams are missing is told.
    ///
    /// # Errors
    /// The first thing that is not as it should be and cannot be made so.
    pub async fn survey(&self, wanted: &Streams, cause: &Cause) -> Result<Found, Problem> {
        in_time(async {
            let all = wanted.all();
            let (own, letters) = (Thing::Exchange(&wanted.own), Thing::Queue(&wanted.dead.name));
            let (channel, look) = self.look(&[own, letters], cause).await?;
            look.expect(&all);
            wanted.asked.iter().for_each(|b| self.bindings.asked(&wanted.inflow(b)));
            look.declared(own, exchange(&channel, &wanted.own, "input.stream").await)?;
            for name in &wanted.exchanges {
                foreign_exchange(&channel, name).await?;
            }
            let dead = look.declared(letters, declare(&channel, &wanted.dead, true).await)?;
            let binding = to(&wanted.dead.name, &wanted.own, DEAD);
            look.bound(&binding, bind(&channel, &binding, "deadLetter").await)?;
            done(&channel).await;
            self.hash_exchange(wanted, &all, cause).await?;
            let mut missing = Vec::new();
            for (part, stream) in (0..).zip(&wanted.streams) {
                if self.is_missing(&stream.name).await? {
                    missing.push(part);
                }
            }
            Look::of(self, cause, wanted.parts(&missing)).expect(&all);
            Ok(Found { dead, missing })
        })
        .await
    }

    /// Second: streams are made sure of, and ticks find their way to them. Nothing else is routed into them by this.
    ///
    /// # Errors
    /// As [`Hub::survey`].
    pub async fn make_streams(&self, wanted: &Streams, found: &Found, cause: &Cause) -> Result<(), Problem> {
        in_time(async {
            let channel = self.channel().await?;
            let look = Look::of(self, cause, wanted.parts(&found.missing));
            for (part, stream) in wanted.streams.iter().enumerate() {
                look.declared(Thing::Stream(&stream.name), declare_stream(&channel, stream).await)?;
                let tick = wanted.tick(part, stream);
                look.bound(&tick, bind(&channel, &tick, "input.stream").await)?;
            }
            done(&channel).await;
            Ok(())
        })
        .await
    }

    /// Third, once the partitions have their rows: messages are routed into the first so many streams.
    ///
    /// # Errors
    /// As [`Hub::survey`].
    pub async fn route(&self, wanted: &Streams, streams: usize, cause: &Cause) -> Result<(), Problem> {
        in_time(async {
            let channel = self.channel().await?;
            let look = Look::of(self, cause, Vec::new());
            for share in wanted.streams.iter().take(streams).map(|stream| wanted.share(stream)) {
                look.bound(&share, bind(&channel, &share, "input.stream").await)?;
            }
            for binding in &wanted.bindings {
                look.bound(&wanted.inflow(binding), bind_exchange(&channel, &wanted.exchange, binding).await)?;
            }
            done(&channel).await;
            let stale = cause.because("the object no longer asks for it");
            for binding in wanted.stale.iter().map(|b| wanted.inflow(b)) {
                self.unbind_exchange(&binding, &stale).await?;
            }
            Ok(())
        })
        .await
    }

    /// Takes everything away: what brings messages first. A dead-letter queue with messages stays.
    ///
    /// # Errors
    /// If the hub does not answer.
    pub async fn delete_streams(&self, streams: &Streams, cause: &Cause) -> Result<(), Problem> {
        in_time(async {
            delete(self, Thing::Exchange(&streams.exchange), cause).await?;
            for stream in &streams.streams {
                delete(self, Thing::Stream(&stream.name), cause).await?;
            }
            if empty(self, &streams.dead.name).await? {
                delete(self, Thing::Queue(&streams.dead.name), cause).await?;
            }
            delete(self, Thing::Exchange(&streams.own), cause).await
        })
        .await
    }

    async fn is_missing(&self, stream: &str) -> Result<bool, Problem> {
        let channel = self.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        match channel.queue_declare(short(stream)?, options, FieldTable::default()).await {
            Ok(_) => {
                done(&channel).await;
                Ok(false)
            }
            Err(error) if is_missing(&error) => Ok(true),
            Err(error) => Err(refused(&error, &format!("look at stream {stream}"))),
        }
    }

    /// A hub that does not know the type ends the connection: it is made on one of its own.
    async fn hash_exchange(&self, wanted: &Streams, bindings: &[Bind], cause: &Cause) -> Result<(), Problem> {
        let name = wanted.exchange.as_str();
        let channel = self.channel().await?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let kind = ExchangeKind::Custom(CONSISTENT_HASH.to_owned());
        let there = channel.exchange_declare(short(name)?, kind.clone(), passive, FieldTable::default()).await;
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let what = format!("declare exchange {name}");
        match there {
            Ok(()) => {
                let made = channel.exchange_declare(short(name)?, kind, options, FieldTable::default()).await;
                made.map_err(|e| told(&e, &what, PRECONDITION_FAILED, |text| differs(name, text)))?;
                done(&channel).await;
                Ok(())
            }
            Err(error) if is_missing(&error) => {
                let look = Look::of(self, cause, vec![Thing::Exchange(name)]);
                look.expect(bindings);
                let connection = connect(self.address(), "drover-operator").await;
                let connection =
                    connection.map_err(|e| Problem::new(e.reason.as_str(), format!("hub: {}", e.message)))?;
                let own = channel_of(&connection).await.map_err(|e| lost(&e))?;
                let made = own.exchange_declare(short(name)?, kind, options, FieldTable::default()).await;
                let made = made.map_err(|e| told(&e, &what, COMMAND_INVALID, no_plugin));
                look.declared(Thing::Exchange(name), made)?;
                let _ = connection.close(200, "done".into()).await;
                Ok(())
            }
            Err(error) => Err(refused(&error, &what)),
        }
    }

    async fn unbind_exchange(&self, binding: &Bind, cause: &Cause) -> Result<(), Problem> {
        let channel = self.channel().await?;
        let options = ExchangeUnbindOptions::default();
        let (to, from, key) = (short(&binding.queue)?, short(&binding.exchange)?, short(&binding.routing_key)?);
        match channel.exchange_unbind(to, from, key, options, FieldTable::default()).await {
            Ok(()) => unbound(self, cause, binding),
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(lost(&error)),
        }
        done(&channel).await;
        Ok(())
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    let silent = |_| Err(Problem::new("Timeout", format!("hub: no answer within {} s", PATIENCE.as_secs())));
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(silent)
}

/// A channel that the hub has closed meanwhile needs no closing.
async fn done(channel: &Channel) {
    let _ = channel.close(200, "done".into()).await;
}

fn to(queue: &str, exchange: &str, key: &str) -> Bind {
    let [queue, exchange, routing_key] = [queue, exchange, key].map(str::to_owned);
    Bind { queue, exchange, routing_key }
}

async fn declare_stream(channel: &Channel, stream: &Queue) -> Result<(), Problem> {
    let name = &stream.name;
    let limits = ["x-max-age", "x-max-length-bytes", "x-stream-max-segment-size-bytes"];
    let differs = |text: &str| {
        // A queue that has none of them is no stream of ours.
        let other = limits.iter().any(|a| text.contains(&format!("inequivalent arg '{a}'")));
        if other && !text.contains("but current is none") {
            let message = format!(
                "input.retention: the limits of stream {name} are arguments for its life and cannot be edited: put the values back ({text})"
            );
            Problem::new("NeedsManagementApi", message)
        } else {
            let message = format!(
                "queue {name} exists and is not the stream that the query needs: delete it, or name another input.stream in a new query ({text})"
            );
            Problem::new("QueueArgumentsDiffer", message)
        }
    };
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(short(name)?, options, super::declare::table(&stream.arguments)).await;
    declared.map(drop).map_err(|e| told(&e, &format!("declare stream {name}"), PRECONDITION_FAILED, differs))
}

async fn bind_exchange(channel: &Channel, to: &str, binding: &Binding) -> Result<(), Problem> {
    let Binding { exchange, routing_key } = binding;
    let (dest, from, key) = (short(to)?, short(exchange)?, short(routing_key)?);
    let bound = channel.exchange_bind(dest, from, key, ExchangeBindOptions::default(), FieldTable::default()).await;
    let missing = |_: &str| {
        let message = format!("input.bindings: there is no exchange {exchange} to bind to: make it, or name another");
        Problem::new("ExchangeMissing", message)
    };
    bound.map_err(|e| told(&e, &format!("bind exchange {to} to exchange {exchange}"), NOT_FOUND, missing))
}

fn differs(name: &str, text: &str) -> Problem {
    let message = format!(
        "exchange {name} exists and is not a durable {CONSISTENT_HASH} exchange: delete it, or name another input.stream in a new query ({text})"
    );
    Problem::new("ExchangeDiffers", message)
}

fn no_plugin(text: &str) -> Problem {
    let message = format!(
        "the hub has no exchanges of type {CONSISTENT_HASH}: enable its plugin, rabbitmq-plugins enable rabbitmq_consistent_hash_exchange ({text})"
    );
    Problem::new("PluginMissing", message)
}
