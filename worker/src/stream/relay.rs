//! Dead letters and result rows on their way to the hub: published with confirms, then deleted. A crash between the two publishes
//! once more, under the same message id.

use std::collections::BTreeSet;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use tokio_postgres::{Client, Error, Row};

use super::job::Job;
use crate::{
    ingest::{
        envelope::{LAST_FAILURE, MAX_ERROR, ORIGINAL_QUEUE, PERSISTENT, cut, text},
        publisher::{Outgoing, PublishError, Publisher, Receipt},
    },
    store::typed::{Value, typed},
};

/// Most messages of a transaction.
const MOST: i64 = 200;
/// Key of dead letters on the query's exchange.
pub const DEAD: &str = "dead";

/// Nothing goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("the store refused a statement")]
    Store(#[source] Error),
    #[error("{0}")]
    Publish(#[source] PublishError),
    /// No queue takes it; it stays where it is.
    #[error("exchange {exchange} routes key {key} nowhere: bind a queue")]
    Unroutable { exchange: String, key: String },
    #[error("a queue behind exchange {exchange}, key {key}, refuses messages: it is full")]
    Refused { exchange: String, key: String },
}

impl RelayError {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Store(error) => crate::store::StoreReason::of(error).as_str(),
            Self::Publish(error) => error.reason(),
            Self::Unroutable { .. } => "Unroutable",
            Self::Refused { .. } => "QueueFull",
        }
    }
}

/// A message that waits in a table.
#[derive(Debug)]
struct Waiting {
    id: i64,
    exchange: String,
    routing_key: String,
    properties: BasicProperties,
    body: Vec<u8>,
}

/// Exchanges and keys that the hub has taken nothing for: one message of each is tried until it takes that. Others of the exchange's queues
/// may have taken it, and get a copy each time.
pub(crate) type Stuck = BTreeSet<(String, String)>;

/// A table that messages wait in.
struct Table {
    name: &'static str,
    /// What a message is made of.
    columns: &'static str,
    message: fn(&Job, &Row) -> Waiting,
}

const DEAD_LETTERS: Table = Table {
    name: "dead_letter",
    columns: "id, part, stream_offset, message_id, stage, reason, error, body, failed_at::text, revision",
    message: dead_letter,
};
const OUTBOX: Table =
    Table { name: "outbox", columns: "id, exchange, message_id, routing_key, body", message: |_, row| result(row) };

/// One pass over all that waits.
struct Sweep<'a> {
    client: &'a Client,
    job: &'a Job,
    publisher: &'a mut Publisher,
    stuck: &'a mut Stuck,
    /// The first of all.
    trouble: Option<RelayError>,
}

/// Relays what waits. What no queue takes stays, and holds up nothing that is for another exchange or key, or comes after it; the first
/// such trouble is told at the end.
pub(crate) async fn relay(
    client: &Client,
    job: &Job,
    publisher: &mut Publisher,
    stuck: &mut Stuck,
) -> Result<(), RelayError> {
    let mut sweep = Sweep { client, job, publisher, stuck, trouble: None };
    sweep.dead_letters().await?;
    sweep.outbox().await?;
    sweep.trouble.map_or(Ok(()), Err)
}

impl Sweep<'_> {
    /// All of them go one way.
    async fn dead_letters(&mut self) -> Result<(), RelayError> {
        let mut after = Some(i64::MIN);
        while let Some(from) = after {
            let is_stuck = |(exchange, key): &(String, String)| *exchange == self.job.settings.exchange && key == DEAD;
            let most = if self.stuck.iter().any(is_stuck) { 1 } else { MOST };
            let passed = self.portion(&DEAD_LETTERS, "id > $2", &[&from], most).await?;
            after = passed.filter(|_| !self.stuck.iter().any(is_stuck));
        }
        Ok(())
    }

    /// One of each way that is stuck, then all that go another.
    async fn outbox(&mut self) -> Result<(), RelayError> {
        for (exchange, key) in self.stuck.clone() {
            self.portion(&OUTBOX, "exchange = $2 AND routing_key = $3", &[&exchange, &key], 1).await?;
        }
        let free = "id > $2 AND (exchange, routing_key) NOT IN (SELECT * FROM unnest($3::text[], $4::text[]))";
        let mut after = Some(i64::MIN);
        while let Some(from) = after {
            let (exchanges, keys): (Vec<String>, Vec<String>) = self.stuck.iter().cloned().unzip();
            after = self.portion(&OUTBOX, free, &[&from, &exchanges, &keys], MOST).await?;
        }
        Ok(())
    }

    /// Publishes so many and deletes those that were taken. Answers the last, where there may be more. An error is the store's or the
    /// connection's: nothing goes on.
    async fn portion(
        &mut self,
        table: &Table,
        which: &str,
        of: &[&dyn Value],
        most: i64,
    ) -> Result<Option<i64>, RelayError> {
        let (client, job, store) = (self.client, self.job, RelayError::Store);
        let Table { name, columns, message } = table;
        let select = job.sql(&format!(
            "SELECT {columns} FROM @.{name} WHERE query = $1 AND {which} ORDER BY id LIMIT {most} FOR UPDATE SKIP LOCKED"
        ));
        let delete = job.sql(&format!("DELETE FROM @.{name} WHERE id = ANY ($1)"));
        let mut parameters = typed(&[&job.query]);
        parameters.extend(typed(of));
        client.batch_execute(&job.begin()).await.map_err(store)?;
        let rows = client.query_typed(&select, &parameters).await.map_err(store)?;
        let waiting: Vec<Waiting> = rows.iter().map(|row| message(job, row)).collect();
        let mut confirmed = Vec::new();
        let sent = self.publish(&waiting, &mut confirmed).await;
        if !confirmed.is_empty() {
            client.execute_typed(&delete, &typed(&[&confirmed])).await.map_err(store)?;
        }
        client.batch_execute("COMMIT").await.map_err(store)?;
        sent?;
        let is_full = waiting.len() as u64 == most.unsigned_abs();
        Ok(waiting.last().filter(|_| is_full).map(|last| last.id))
    }

    /// Publishes by exchange, so that one which is not there takes none of the others' along.
    async fn publish(&mut self, waiting: &[Waiting], confirmed: &mut Vec<i64>) -> Result<(), RelayError> {
        let exchanges: BTreeSet<&str> = waiting.iter().map(|w| w.exchange.as_str()).collect();
        for exchange in exchanges {
            let some: Vec<&Waiting> = waiting.iter().filter(|w| w.exchange == exchange).collect();
            let outgoing: Vec<Outgoing<'_>> = some.iter().map(|w| w.outgoing()).collect();
            match self.publisher.publish(&outgoing).await {
                Ok(receipts) => {
                    for (w, receipt) in some.into_iter().zip(receipts) {
                        match w.refusal(receipt) {
                            None => {
                                confirmed.push(w.id);
                                self.stuck.remove(&w.way());
                            }
                            Some(refusal) => {
                                self.stuck.insert(w.way());
                                self.trouble.get_or_insert(refusal);
                            }
                        }
                    }
                }
                Err(error) if error.is_of_exchange() => {
                    self.stuck.extend(some.into_iter().map(Waiting::way));
                    self.trouble.get_or_insert(RelayError::Publish(error));
                }
                Err(error) => return Err(RelayError::Publish(error)),
            }
        }
        Ok(())
    }
}

impl Waiting {
    fn way(&self) -> (String, String) {
        (self.exchange.clone(), self.routing_key.clone())
    }

    fn outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            exchange: &self.exchange,
            routing_key: self.routing_key.clone(),
            properties: self.properties.clone(),
            body: &self.body,
        }
    }

    fn refusal(&self, receipt: Receipt) -> Option<RelayError> {
        let (exchange, key) = (self.exchange.clone(), self.routing_key.clone());
        match receipt {
            Receipt::Confirmed => None,
            Receipt::Nacked => Some(RelayError::Refused { exchange, key }),
            Receipt::Returned => Some(RelayError::Unroutable { exchange, key }),
        }
    }
}

fn dead_letter(job: &Job, row: &Row) -> Waiting {
    let (id, part, offset): (i64, Option<i32>, Option<i64>) = (row.get(0), row.get(1), row.get(2));
    let (message_id, stage, reason): (Option<String>, String, String) = (row.get(3), row.get(4), row.get(5));
    let (error, failed): (String, String) = (row.get(6), row.get(8));
    let mut headers = FieldTable::default();
    let mut set = |name: &str, value: AMQPValue| {
        headers.insert(name.into(), value);
    };
    set("x-drover-stage", text(&stage));
    set("x-drover-reason", text(&reason));
    set("x-drover-error", text(cut(&error, MAX_ERROR)));
    set("x-drover-class", text("content"));
    set("x-drover-revision", text(row.get(9)));
    set("x-drover-query", text(&job.query));
    set(LAST_FAILURE, text(&failed));
    // Equal in a copy that is published once more.
    set("x-drover-dead-letter", AMQPValue::LongLongInt(id));
    if let (Some(part), Some(offset)) = (part, offset) {
        set(ORIGINAL_QUEUE, text(&job.settings.stream_of(part)));
        set("x-drover-original-offset", AMQPValue::LongLongInt(offset));
    }
    let mut properties = BasicProperties::default().with_headers(headers).with_delivery_mode(PERSISTENT);
    if let Some(id) = message_id.and_then(|id| lapin::types::ShortString::try_new(id).ok()) {
        properties = properties.with_message_id(id);
    }
    Waiting { id, exchange: job.settings.exchange.clone(), routing_key: DEAD.to_owned(), properties, body: row.get(7) }
}

/// A result row: it says itself where it goes, whatever the outputs are by now.
fn result(row: &Row) -> Waiting {
    let (id, exchange, message_id): (i64, String, String) = (row.get(0), row.get(1), row.get(2));
    let properties = BasicProperties::default()
        .with_message_id(message_id.as_str().into())
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT);
    let body: String = row.get(4);
    Waiting { id, exchange, routing_key: row.get(3), properties, body: body.into_bytes() }
}
