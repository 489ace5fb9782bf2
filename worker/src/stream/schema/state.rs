//! What the operator goes by: the rows of a query as it reads them, and the end of a revision.

use tokio_postgres::{Client, Row};

use super::{SchemaError, failed, lock, sql, unlock};
use crate::store::typed::typed;

/// The rows of a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The revisions that have rows.
    pub revisions: Vec<String>,
    /// Which revision emits up to where; none while there has been one only.
    pub emission: Option<Emission>,
    /// The partitions of all revisions, by revision and number.
    pub partitions: Vec<Partition>,
    /// Windows are open, or rows or dead letters wait for the hub.
    pub open: bool,
}

/// Which revision emits up to where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emission {
    /// It emits ends up to the boundary; empty once it has gone.
    pub old: String,
    /// It emits the ends after it.
    pub new: String,
    /// The boundary, in ticks of 100 ns since 1970; none while it is not drawn, and the old revision emits all.
    pub at: Option<i64>,
    /// The old revision has closed past the boundary: it has nothing left to emit.
    pub passed: bool,
}

/// A partition of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The revision.
    pub revision: String,
    /// Its number.
    pub part: i32,
    /// How often its stream has been another one.
    pub generation: i64,
    /// The offset that is read next.
    pub next_offset: i64,
    /// Its stream was gone when it was looked for last, and is not known to be there again.
    pub gone: bool,
    /// Arrival of the newest message that was read, or the clock of the newest tick, in ticks of 100 ns since 1970.
    pub read_at: Option<i64>,
    /// Messages that were gone before they were read, and 1 for each stream that was declared anew.
    pub lost: i64,
    /// When that was noticed last, in seconds since 1970.
    pub lost_at: Option<i64>,
    /// Messages that said nothing of their arrival.
    pub without_arrival: i64,
    /// Messages that were passed over because they end workers.
    pub skipped: i64,
    /// Events that were on time, adjusted or dropped.
    pub taken: i64,
    /// Events that were not, and are kept for a person where the revision emits.
    pub dead_lettered: i64,
}

impl State {
    /// The revision that emits the newest ends.
    #[must_use]
    pub fn emitter(&self) -> Option<&str> {
        match &self.emission {
            None => self.revisions.first().map(String::as_str),
            Some(Emission { old, at: None, .. }) => Some(old),
            Some(Emission { new, .. }) => Some(new),
        }
    }
}

/// Reads the rows of a query.
///
/// # Errors
/// If a statement fails.
pub async fn look(client: &Client, schema: &str, query: &str) -> Result<State, SchemaError> {
    let revisions = sql(schema, "SELECT revision FROM @.revision WHERE query = $1 ORDER BY revision");
    let revisions = client.query_typed(&revisions, &typed(&[&query])).await.map_err(failed)?;
    let partitions = sql(
        schema,
        "SELECT revision, part, GREATEST(next_offset, 0), read_at, lost, extract(epoch FROM lost_at)::bigint, without_arrival, skipped,
             lease_until = 'infinity', on_time + adjusted + dropped, dead_lettered, generation
         FROM @.partition WHERE query = $1 ORDER BY revision, part",
    );
    let partitions = client.query_typed(&partitions, &typed(&[&query])).await.map_err(failed)?;
    let open = sql(
        schema,
        "SELECT EXISTS (SELECT FROM @.partial WHERE query = $1) OR EXISTS (SELECT FROM @.outbox WHERE query = $1)
            OR EXISTS (SELECT FROM @.dead_letter WHERE query = $1)",
    );
    let open = client.query_typed_one(&open, &typed(&[&query])).await.map_err(failed)?.get(0);
    let partition = |row: &Row| Partition {
        revision: row.get(0),
        part: row.get(1),
        next_offset: row.get(2),
        read_at: row.get(3),
        lost: row.get(4),
        lost_at: row.get(5),
        without_arrival: row.get(6),
        skipped: row.get(7),
        gone: row.get(8),
        taken: row.get(9),
        dead_lettered: row.get(10),
        generation: row.get(11),
    };
    Ok(State {
        revisions: revisions.iter().map(|row| row.get(0)).collect(),
        emission: emission(client, schema, query).await?,
        partitions: partitions.iter().map(partition).collect(),
        open,
    })
}

async fn emission(client: &Client, schema: &str, query: &str) -> Result<Option<Emission>, SchemaError> {
    let find = sql(
        schema,
        "SELECT b.old_revision, b.new_revision, NULLIF(b.at, $2), b.at < $2
            AND NOT EXISTS (SELECT FROM @.partition p WHERE p.query = b.query AND p.revision = b.old_revision
                AND p.watermark <= b.at)
            AND NOT EXISTS (SELECT FROM @.close c WHERE c.query = b.query AND c.revision = b.old_revision
                AND c.upto <= b.at)
         FROM @.boundary b WHERE b.query = $1",
    );
    let rows = client.query_typed(&find, &typed(&[&query, &i64::MAX])).await.map_err(failed)?;
    let found = |row: &Row| Emission { old: row.get(0), new: row.get(1), at: row.get(2), passed: row.get(3) };
    Ok(rows.first().map(found))
}

/// Takes away the rows of a revision that has nothing left to do, once no worker of it is left. A worker that nobody knows of and
/// that makes them anew emits nothing. Dead letters and rows for the hub stay: whoever works on the query relays them.
///
/// # Errors
/// If a statement fails.
pub async fn finish(client: &Client, schema: &str, query: &str, revision: &str) -> Result<(), SchemaError> {
    lock(client).await?;
    let finished = remove(client, schema, query, revision).await;
    unlock(client, finished).await
}

async fn remove(client: &Client, schema: &str, query: &str, revision: &str) -> Result<(), SchemaError> {
    for table in ["partial", "substream", "close", "partition", "worker", "revision"] {
        let delete = sql(schema, &format!("DELETE FROM @.{table} WHERE query = $1 AND revision = $2"));
        client.execute_typed(&delete, &typed(&[&query, &revision])).await.map_err(failed)?;
    }
    let nobody =
        sql(schema, "UPDATE @.boundary SET old_revision = '' WHERE query = $1 AND old_revision = $2 AND at < $3");
    client.execute_typed(&nobody, &typed(&[&query, &revision, &i64::MAX])).await.map(drop).map_err(failed)
}
