//! Rows on their way out, inside a transaction: into a table of the same database, or into the outbox for the hub.
//!
//! A row that the table refuses for what it is, is found by halving; it becomes a dead letter and the others are written.

use std::collections::BTreeMap;

use drover_crds::resolved::RoutingKey;
use serde_json::Map;
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, Error};

use super::{
    intake::{DeadLetter, Made},
    job::Job,
    settings::Output,
    table::{self, TableError},
};
use crate::{
    ingest::{sink::refusal, template},
    query::Value,
    store::{
        Fault,
        table::{Column, TableShape, quoted},
        typed::typed,
    },
};

/// Where rows go, looked up.
#[derive(Debug)]
pub(crate) struct Targets(BTreeMap<String, Target>);

#[derive(Debug)]
enum Target {
    Table(TableShape),
    Hub { exchange: String, key: RoutingKey },
}

impl Targets {
    /// Looks up the tables of all outputs, and makes those that are absent.
    pub(crate) async fn ready(client: &Client, job: &Job) -> Result<Self, TableError> {
        let mut targets = BTreeMap::new();
        for (name, output) in &job.settings.outputs {
            let target = match output {
                Output::Table(table) => Target::Table(table::ready(client, &job.settings.plan, name, table).await?),
                Output::Hub { exchange, routing_key } => {
                    Target::Hub { exchange: exchange.clone(), key: routing_key.clone() }
                }
            };
            targets.insert(name.clone(), target);
        }
        Ok(Self(targets))
    }
}

/// Writes rows; those that are refused for what they are come back. Runs inside the caller's transaction.
pub(crate) async fn write(client: &Client, job: &Job, rows: Vec<Made>) -> Result<Vec<DeadLetter>, Error> {
    let mut refused = Vec::new();
    if rows.is_empty() {
        return Ok(refused);
    }
    let Some(targets) = job.targets() else { return in_doubt(client).await };
    let mut by_output: BTreeMap<&str, Vec<&Made>> = BTreeMap::new();
    for made in &rows {
        by_output.entry(&made.row.output).or_default().push(made);
    }
    for (output, rows) in by_output {
        match targets.0.get(output) {
            Some(Target::Table(shape)) => insert(client, shape, &rows, &mut refused).await?,
            Some(Target::Hub { exchange, key }) => {
                leave(client, job, (output, exchange), key, &rows, &mut refused).await?;
            }
            None => return in_doubt(client).await,
        }
    }
    Ok(refused)
}

/// Tables are being looked up again: rows that nobody can write must not be committed as written, so the transaction ends here.
async fn in_doubt(client: &Client) -> Result<Vec<DeadLetter>, Error> {
    let raise =
        "DO $$ BEGIN RAISE EXCEPTION 'the tables of results are looked up again' USING ERRCODE = '55000'; END $$";
    client.batch_execute(raise).await.map(|()| Vec::new())
}

/// Inserts rows; halves what is refused until one row is left, which is to blame.
async fn insert(
    client: &Client,
    shape: &TableShape,
    rows: &[&Made],
    refused: &mut Vec<DeadLetter>,
) -> Result<(), Error> {
    let mut todo = vec![rows];
    while let Some(some) = todo.pop() {
        client.batch_execute("SAVEPOINT rows").await?;
        let Err(error) = statement(client, shape, some).await else {
            client.batch_execute("RELEASE SAVEPOINT rows").await?;
            continue;
        };
        let Some(db) = error.as_db_error().filter(|_| Fault::of(&error) == Fault::Content) else {
            return Err(error);
        };
        client.batch_execute("ROLLBACK TO SAVEPOINT rows; RELEASE SAVEPOINT rows").await?;
        if let [one] = some {
            let (rejection, _) = refusal::of(db);
            refused.push(dead_letter(one, rejection.reason, rejection.error.into_owned()));
        } else {
            let (first, second) = some.split_at(some.len() / 2);
            todo.extend([second, first]);
        }
    }
    Ok(())
}

async fn statement(client: &Client, shape: &TableShape, rows: &[&Made]) -> Result<u64, Error> {
    let mut used = vec![false; shape.columns.len()];
    let objects: Vec<Map<String, serde_json::Value>> =
        rows.iter().map(|made| object(shape, &made.row.row, &mut used)).collect();
    let columns: Vec<&Column> = shape.columns.iter().zip(&used).filter(|(_, used)| **used).map(|(c, _)| c).collect();
    if columns.is_empty() {
        return Ok(0);
    }
    let names: Vec<String> = columns.iter().map(|c| quoted(&c.name)).collect();
    let types: Vec<String> = columns.iter().map(|c| format!("{} {}", quoted(&c.name), c.base_type)).collect();
    let (names, types) = (names.join(", "), types.join(", "));
    let text = serde_json::to_string(&objects).expect("values of a row are JSON");
    let insert = format!(
        "INSERT INTO {} ({names}) SELECT {names} FROM json_to_recordset($1::text::json) AS r ({types})",
        shape.name
    );
    client.execute_typed(&insert, &typed(&[&text])).await
}

/// A row by the names of the table's columns; what no column takes is left out, as a star brings whatever there is.
fn object(shape: &TableShape, row: &Value, used: &mut [bool]) -> Map<String, serde_json::Value> {
    let mut object = Map::new();
    let Value::Record(fields) = row else { return object };
    for (name, value) in fields.iter() {
        let Some(column) = shape.column(name).filter(|c| !c.generated) else { continue };
        if let Some(at) = shape.columns.iter().position(|c| c.name == column.name) {
            used[at] = true;
        }
        object.insert(column.name.clone(), json(value));
    }
    object
}

fn json(value: &Value) -> serde_json::Value {
    serde_json::to_value(value).expect("a value is JSON")
}

fn dead_letter(made: &Made, reason: &'static str, error: String) -> DeadLetter {
    let body = serde_json::to_vec(&made.row.row).expect("a row is JSON");
    DeadLetter { at: None, message_id: None, stage: "sink", reason, error, body }
}

/// Leaves rows for the relay.
async fn leave(
    client: &Client,
    job: &Job,
    (output, exchange): (&str, &str),
    key: &RoutingKey,
    rows: &[&Made],
    refused: &mut Vec<DeadLetter>,
) -> Result<(), Error> {
    let mut seen: BTreeMap<(&str, usize), u32> = BTreeMap::new();
    let (mut ids, mut keys, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
    for made in rows {
        let nth = seen.entry((&made.origin, made.row.step)).and_modify(|n| *n += 1).or_default();
        let body = serde_json::to_string(&made.row.row).expect("a row is JSON");
        let fields = serde_json::from_str(&body).expect("a row is an object");
        match template::render(key, &fields) {
            Ok(routing_key) => {
                ids.push(message_id(&job.query, made, *nth));
                keys.push(routing_key);
                bodies.push(body);
            }
            Err(why) => refused.push(dead_letter(made, why.reason, why.error.into_owned())),
        }
    }
    let insert = job.sql(
        "INSERT INTO @.outbox (query, revision, output, exchange, message_id, routing_key, body)
         SELECT $1, $2, $3, $4, u.* FROM unnest($5::text[], $6::text[], $7::text[]) AS u",
    );
    client
        .execute_typed(&insert, &typed(&[&job.query, &job.revision, &output, &exchange, &ids, &keys, &bodies]))
        .await
        .map(drop)
}

/// The same row has the same id whoever makes it, in whichever revision.
fn message_id(query: &str, made: &Made, nth: u32) -> String {
    let row = &made.row;
    let text = [query, &row.output, &row.step.to_string(), &row.time.to_string(), &made.origin, &nth.to_string()];
    let digest = Sha256::digest(text.join("\0").as_bytes());
    digest.iter().take(16).fold(String::new(), |id, byte| format!("{id}{byte:02x}"))
}

/// Forgets a table's shape where the fault may be that it changed.
pub(crate) fn doubt(job: &Job, error: &Error) {
    if Fault::of(error) == Fault::Sink && error.as_db_error().is_some() {
        job.aim(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::query::OutputRow;

    #[test]
    fn ids_of_rows_are_the_same_again_and_different_for_each_row() {
        let made = |step, origin: &str| Made {
            row: OutputRow { output: Arc::from("o"), time: 5, row: Value::Null, step, group: None },
            origin: origin.to_owned(),
        };
        let id = |step, origin, nth| message_id("q", &made(step, origin), nth);
        assert_eq!(id(1, "a", 0), id(1, "a", 0));
        let all = [id(1, "a", 0), id(2, "a", 0), id(1, "b", 0), id(1, "a", 1)];
        assert!((0..4).all(|n| all[n + 1..].iter().all(|other| *other != all[n])));
    }
}
