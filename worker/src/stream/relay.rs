//! Dead letters and result rows on their way to the hub: published with confirms, then deleted. A crash between the two publishes
//! once more, under the same message id.

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use tokio_postgres::{Client, Error, Row};

use super::{job::Job, settings::Output};
use crate::ingest::{
    envelope::{LAST_FAILURE, MAX_ERROR, ORIGINAL_QUEUE, PERSISTENT, cut, text},
    publisher::{Outgoing, PublishError, Publisher, Receipt},
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

/// Relays what waits; `true` if there may be more.
pub(crate) async fn relay(client: &Client, job: &Job, publisher: &mut Publisher) -> Result<bool, RelayError> {
    let dead = table(client, job, publisher, "dead_letter", DEAD_LETTERS, |row| Some(dead_letter(job, row)));
    let more = dead.await?;
    Ok(table(client, job, publisher, "outbox", OUTBOX, |row| result(job, row)).await? || more)
}

const DEAD_LETTERS: &str = "SELECT id, part, stream_offset, message_id, stage, reason, error, body, failed_at::text
    FROM @.dead_letter WHERE query = $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED";
const OUTBOX: &str = "SELECT id, output, message_id, routing_key, body
    FROM @.outbox WHERE query = $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED";

async fn table(
    client: &Client,
    job: &Job,
    publisher: &mut Publisher,
    table: &str,
    select: &str,
    message: impl Fn(&Row) -> Option<Waiting>,
) -> Result<bool, RelayError> {
    let store = RelayError::Store;
    let there = job.sql(&format!("SELECT EXISTS (SELECT FROM @.{table} WHERE query = $1)"));
    if !client.query_one(&there, &[&job.query]).await.map_err(store)?.get::<_, bool>(0) {
        return Ok(false);
    }
    client.batch_execute("BEGIN").await.map_err(store)?;
    let rows = client.query(&job.sql(select), &[&job.query, &MOST]).await.map_err(store)?;
    let waiting: Vec<Waiting> = rows.iter().filter_map(message).collect();
    let outgoing: Vec<Outgoing<'_>> = waiting
        .iter()
        .map(|w| Outgoing {
            exchange: &w.exchange,
            routing_key: w.routing_key.clone(),
            properties: w.properties.clone(),
            body: &w.body,
        })
        .collect();
    let receipts = publisher.publish(&outgoing).await;
    let (receipts, failed) = match receipts {
        Ok(receipts) => (receipts, None),
        Err(error) => (Vec::new(), Some(RelayError::Publish(error))),
    };
    let confirmed = waiting.iter().zip(&receipts).filter(|(_, r)| **r == Receipt::Confirmed);
    let ids: Vec<i64> = confirmed.map(|(w, _)| w.id).collect();
    let delete = job.sql(&format!("DELETE FROM @.{table} WHERE id = ANY ($1)"));
    client.execute(&delete, &[&ids]).await.map_err(store)?;
    client.batch_execute("COMMIT").await.map_err(store)?;
    if let Some(error) = failed.or_else(|| refused(&waiting, &receipts)) {
        return Err(error);
    }
    Ok(rows.len() as u64 == MOST.unsigned_abs())
}

fn refused(waiting: &[Waiting], receipts: &[Receipt]) -> Option<RelayError> {
    let (w, receipt) = waiting.iter().zip(receipts).find(|(_, r)| **r != Receipt::Confirmed)?;
    let (exchange, key) = (w.exchange.clone(), w.routing_key.clone());
    Some(match receipt {
        Receipt::Nacked => RelayError::Refused { exchange, key },
        _ => RelayError::Unroutable { exchange, key },
    })
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
    set("x-drover-revision", text(&job.revision));
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

/// A result row; none where its output is not at the hub any more.
fn result(job: &Job, row: &Row) -> Option<Waiting> {
    let (id, output, message_id): (i64, String, String) = (row.get(0), row.get(1), row.get(2));
    let Some(Output::Hub { exchange, .. }) = job.settings.outputs.get(&output) else { return None };
    let properties = BasicProperties::default()
        .with_message_id(message_id.as_str().into())
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT);
    let body: String = row.get(4);
    Some(Waiting { id, exchange: exchange.clone(), routing_key: row.get(3), properties, body: body.into_bytes() })
}
