//! Tells what a look makes from what it finds. All that is wanted is asked for at once, on the channel that the look goes on with: where
//! all is there, that costs one answer more. Only where something is missing, each thing is asked for on a channel of its own.

use std::collections::HashSet;

use futures::future::join_all;
use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::FieldTable,
};

use super::{
    pool::Hub,
    reply::{is_missing, short},
    topology::Bind,
};
use crate::{
    audit::{Cause, Effect, Outcome, Verb},
    problem::Problem,
};

/// A queue or an exchange, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Thing<'a> {
    Queue(&'a str),
    Stream(&'a str),
    Exchange(&'a str),
}

impl<'a> Thing<'a> {
    pub(super) fn resource(self) -> &'static str {
        match self {
            Self::Queue(_) => "queue",
            Self::Stream(_) => "stream",
            Self::Exchange(_) => "exchange",
        }
    }

    pub(super) fn name(self) -> &'a str {
        let (Self::Queue(name) | Self::Stream(name) | Self::Exchange(name)) = self;
        name
    }

    /// An answer if it is there; the channel ends if not.
    async fn seen(self, channel: &Channel) -> Result<Result<(), lapin::Error>, Problem> {
        let name = short(self.name())?;
        Ok(match self {
            Self::Queue(_) | Self::Stream(_) => {
                let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
                channel.queue_declare(name, passive, FieldTable::default()).await.map(drop)
            }
            Self::Exchange(_) => {
                let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
                channel.exchange_declare(name, ExchangeKind::Direct, passive, FieldTable::default()).await
            }
        })
    }
}

/// What a look has to make.
#[derive(Debug)]
pub(super) struct Look<'a> {
    hub: &'a Hub,
    cause: &'a Cause,
    missing: HashSet<Thing<'a>>,
}

impl Hub {
    /// Looks which of some things are missing; gives also the channel to go on with.
    pub(super) async fn look<'a>(
        &'a self,
        things: &[Thing<'a>],
        cause: &'a Cause,
    ) -> Result<(Channel, Look<'a>), Problem> {
        let channel = self.channel().await?;
        let mut look = Look { hub: self, cause, missing: HashSet::new() };
        let seen = join_all(things.iter().map(|thing| thing.seen(&channel))).await;
        if seen.into_iter().all(|seen| matches!(seen, Ok(Ok(())))) {
            return Ok((channel, look));
        }
        for thing in things {
            if self.lacks(*thing).await? {
                look.missing.insert(*thing);
            }
        }
        Ok((self.channel().await?, look))
    }

    /// True if the hub says that something is not there. What may not be looked at is not taken for missing.
    pub(super) async fn lacks(&self, thing: Thing<'_>) -> Result<bool, Problem> {
        let channel = self.channel().await?;
        match thing.seen(&channel).await? {
            Ok(()) => {
                let _ = channel.close(200, "done".into()).await;
                Ok(false)
            }
            Err(error) => Ok(is_missing(&error)),
        }
    }
}

impl<'a> Look<'a> {
    /// Where the missing is known already.
    pub(super) fn of(hub: &'a Hub, cause: &'a Cause, missing: Vec<Thing<'a>>) -> Self {
        Self { hub, cause, missing: missing.into_iter().collect() }
    }

    /// Bindings that cannot be there, since one of their ends is missing.
    pub(super) fn expect<'b>(&self, bindings: impl IntoIterator<Item = &'b Bind>) {
        let lost = |b: &Bind| {
            let ends = [Thing::Queue(&b.queue), Thing::Stream(&b.queue), Thing::Exchange(&b.queue)];
            ends.iter().any(|end| self.missing.contains(end)) || self.missing.contains(&Thing::Exchange(&b.exchange))
        };
        bindings.into_iter().filter(|b| lost(b)).for_each(|b| self.hub.bindings.lacks(b));
    }

    /// A thing was declared: that is told where it was missing.
    pub(super) fn declared<T>(&self, thing: Thing<'a>, declared: Result<T, Problem>) -> Result<T, Problem> {
        if self.missing.contains(&thing) {
            tell(self.cause, Verb::Create, thing.resource(), thing.name(), &declared);
        }
        declared
    }

    /// A binding was made: that is told where it was missing.
    pub(super) fn bound(&self, binding: &Bind, bound: Result<(), Problem>) -> Result<(), Problem> {
        if self.hub.bindings.is_missing(binding) {
            tell(self.cause, Verb::Bind, "binding", &path(binding), &bound);
        }
        if bound.is_ok() {
            self.hub.bindings.bound(binding);
        }
        bound
    }
}

/// A binding was taken away: that is told once.
pub(super) fn unbound(hub: &Hub, cause: &Cause, binding: &Bind) {
    if hub.bindings.unbound(binding) {
        cause.done(Verb::Unbind, "binding", &path(binding));
    }
}

fn tell<T>(cause: &Cause, verb: Verb, resource: &str, name: &str, result: &Result<T, Problem>) {
    let outcome = result.as_ref().map_or_else(|p| Outcome::Failed(&p.reason), |_| Outcome::Done);
    cause.tell(&Effect::new(verb, resource, name), outcome);
}

/// From where to where, and with which key.
fn path(Bind { queue, exchange, routing_key }: &Bind) -> String {
    format!("{exchange} → {queue} ({routing_key})")
}
