//! The tables of state: made by migrations that are safe to run twice and by several at once, and the rows that a query begins with.
//! Which revision emits which window ends is in [`stage`] and [`hand_over`].
//!
//! Shared with the operator. Knows nothing of streams.

mod revisions;
mod state;

use tokio_postgres::Client;

pub use revisions::{Boundary, hand_over, stage};
pub use state::{Emission, Partition, State, finish, look};

use crate::store::{table::quoted, typed::typed};

/// The version of the tables that this build makes.
pub const VERSION: i32 = 1;
/// The offset of a partition that is to be read from wherever its stream begins: what is not there was not lost.
pub(crate) const UNREAD: i64 = -1;
const TABLES: &str = include_str!("schema.sql");
/// The advisory lock of migrations and of result tables, one in a database: "drover" in ASCII.
const LOCK: i64 = 0x6472_6f76_6572;

/// The tables cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A statement failed.
    #[error("the tables of state cannot be made: {message}")]
    Store {
        /// What the database says.
        message: String,
        /// The cause.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A newer version made the tables.
    #[error("the tables of state have version {0}, this build knows {VERSION}: use a newer build")]
    Newer(i32),
    /// They are those of another cluster.
    #[error("schema {schema} belongs to cluster {owner}: use a schema of this cluster's own")]
    OtherCluster {
        /// The schema.
        schema: String,
        /// The cluster that it belongs to.
        owner: String,
    },
    /// Partitions were taken away.
    #[error("the query has {found} partitions and is told {wanted}: they may grow, never shrink")]
    Shrunk {
        /// In the table.
        found: i32,
        /// In the settings.
        wanted: i32,
    },
}

impl SchemaError {
    /// The reason in `CamelCase`.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Store { source, .. } => crate::store::StoreReason::of(source).as_str(),
            Self::Newer(_) => "SchemaTooNew",
            Self::OtherCluster { .. } => "OtherCluster",
            Self::Shrunk { .. } => "PartitionsShrunk",
        }
    }
}

pub(crate) fn failed(source: tokio_postgres::Error) -> SchemaError {
    let message = source.as_db_error().map_or_else(|| source.to_string(), |db| db.message().to_owned());
    SchemaError::Store { message, source }
}

/// A statement with the schema's name in place of each `@`.
pub(crate) fn sql(schema: &str, text: &str) -> String {
    text.replace('@', &quoted(schema))
}

/// Makes the schema and its tables where they are missing. A cluster that names itself takes a schema that has no owner.
///
/// # Errors
/// If a statement fails, a newer build made the tables, or they are another cluster's.
pub async fn migrate(client: &Client, schema: &str, cluster: Option<&str>) -> Result<(), SchemaError> {
    lock(client).await?;
    let made = tables(client, schema, cluster).await;
    unlock(client, made).await
}

/// Takes the lock that makes one statement at a time create anything.
pub(crate) async fn lock(client: &Client) -> Result<(), SchemaError> {
    client.batch_execute(&format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK})")).await.map_err(failed)
}

/// Ends what [`lock`] began.
pub(crate) async fn unlock<E: From<SchemaError>>(client: &Client, result: Result<(), E>) -> Result<(), E> {
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = client.batch_execute(end).await.map_err(failed);
    result.and(ended.map_err(E::from))
}

async fn tables(client: &Client, schema: &str, cluster: Option<&str>) -> Result<(), SchemaError> {
    if version(client, schema).await? != Some(VERSION) {
        let present = client
            .query_typed("SELECT 1 FROM pg_namespace WHERE nspname = $1", &typed(&[&schema]))
            .await
            .map_err(failed)?;
        if present.is_empty() {
            client.batch_execute(&sql(schema, "CREATE SCHEMA @")).await.map_err(failed)?;
        }
        client.batch_execute(&sql(schema, TABLES)).await.map_err(failed)?;
    }
    let Some(cluster) = cluster else { return Ok(()) };
    let take = sql(schema, "UPDATE @.meta SET cluster_id = COALESCE(cluster_id, $1) RETURNING cluster_id");
    let owner: String = client.query_typed_one(&take, &typed(&[&cluster])).await.map_err(failed)?.get(0);
    if owner == cluster { Ok(()) } else { Err(SchemaError::OtherCluster { schema: schema.to_owned(), owner }) }
}

/// The version of the tables; none where there are none.
async fn version(client: &Client, schema: &str) -> Result<Option<i32>, SchemaError> {
    let there = "SELECT to_regclass($1) IS NOT NULL";
    let name = format!("{}.meta", quoted(schema));
    if !client.query_typed_one(there, &typed(&[&name])).await.map_err(failed)?.get::<_, bool>(0) {
        return Ok(None);
    }
    let rows = client.query_typed(&sql(schema, "SELECT schema_version FROM @.meta"), &[]).await.map_err(failed)?;
    match rows.first().map(|row| row.get(0)) {
        Some(version) if version > VERSION => Err(SchemaError::Newer(version)),
        version => Ok(version),
    }
}

/// Makes the rows of a query's revision: its partitions at once, each with a watermark, and a row to close by for each of `windows`.
/// Partitions that are added begin where closing has come to. They are read from offset 0, as nothing was routed to them before, and so are
/// those in `fresh`, whose streams were made just now; the others from wherever their streams begin.
///
/// # Errors
/// If a statement fails, or there were more partitions.
pub async fn begin(
    client: &Client,
    schema: &str,
    (query, revision): (&str, &str),
    partitions: i32,
    fresh: &[i32],
    windows: &[(i32, i32)],
) -> Result<(), SchemaError> {
    lock(client).await?;
    let begun = rows(client, schema, (query, revision), (partitions, fresh), windows).await;
    unlock(client, begun).await
}

async fn rows(
    client: &Client,
    schema: &str,
    (query, revision): (&str, &str),
    (partitions, fresh): (i32, &[i32]),
    windows: &[(i32, i32)],
) -> Result<(), SchemaError> {
    let close = sql(
        schema,
        "INSERT INTO @.close (query, revision, step, win, upto)
         SELECT $1, $2, s, w, $5 FROM unnest($3::int[], $4::int[]) AS u (s, w) ON CONFLICT DO NOTHING",
    );
    let (steps, wins): (Vec<i32>, Vec<i32>) = windows.iter().copied().unzip();
    client.execute_typed(&close, &typed(&[&query, &revision, &steps, &wins, &i64::MIN])).await.map_err(failed)?;
    let closed = sql(
        schema,
        "SELECT GREATEST(upto, target) FROM @.close WHERE query = $1 AND revision = $2 ORDER BY step, win FOR UPDATE",
    );
    let closed = client.query_typed(&closed, &typed(&[&query, &revision])).await.map_err(failed)?;
    let upto: i64 = closed.iter().map(|row| row.get(0)).max().unwrap_or(i64::MIN);
    let known = sql(
        schema,
        "INSERT INTO @.revision (query, revision, partitions) VALUES ($1, $2, $3)
         ON CONFLICT (query, revision) DO UPDATE SET partitions = GREATEST(revision.partitions, excluded.partitions)
         RETURNING partitions",
    );
    let found: i32 =
        client.query_typed_one(&known, &typed(&[&query, &revision, &partitions])).await.map_err(failed)?.get(0);
    if found > partitions {
        return Err(SchemaError::Shrunk { found, wanted: partitions });
    }
    let parts = sql(
        schema,
        "INSERT INTO @.partition (query, revision, part, watermark, next_offset)
         SELECT $1, $2, p, $4, CASE WHEN p = ANY ($5::int[]) OR EXISTS (SELECT FROM @.partition WHERE query = $1 AND revision = $2)
             THEN 0 ELSE $6::bigint END
         FROM generate_series(0, $3::int - 1) AS p ON CONFLICT DO NOTHING",
    );
    let values = typed(&[&query, &revision, &partitions, &upto, &fresh, &UNREAD]);
    client.execute_typed(&parts, &values).await.map_err(failed)?;
    Ok(())
}

/// Says that the stream of a partition, as it was seen before the stream was looked for, is gone: the loss is kept, once however often
/// this is said, and nobody claims the partition until its stream [is there again](restored). It is then read from its beginning. Where
/// the stream has been another one since, that is known already.
///
/// # Errors
/// If a statement fails.
pub async fn gone(client: &Client, schema: &str, query: &str, seen: &Partition) -> Result<(), SchemaError> {
    let anew = sql(
        schema,
        "UPDATE @.partition SET generation = generation + 1, epoch = epoch + 1, next_offset = 0, owner = NULL,
             lease_until = 'infinity', stalled_claims = 0, lost = lost + 1, lost_at = clock_timestamp(),
             letters_from = NULL, letters_to = NULL
         WHERE query = $1 AND revision = $2 AND part = $3 AND generation = $4 AND lease_until < 'infinity'",
    );
    let Partition { revision, part, generation, .. } = seen;
    client.execute_typed(&anew, &typed(&[&query, revision, part, generation])).await.map(drop).map_err(failed)
}

/// The streams that were gone are there again.
///
/// # Errors
/// If a statement fails.
pub async fn restored(client: &Client, schema: &str, query: &str) -> Result<(), SchemaError> {
    let free = "UPDATE @.partition SET lease_until = '-infinity' WHERE query = $1 AND lease_until = 'infinity'";
    client.execute_typed(&sql(schema, free), &typed(&[&query])).await.map(drop).map_err(failed)
}

/// What waits to be published to the hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Dead letters.
    pub dead_letters: i64,
    /// Rows of results.
    pub rows: i64,
}

/// What waits of a query.
///
/// # Errors
/// If a statement fails.
pub async fn waiting(client: &Client, schema: &str, query: &str) -> Result<Waiting, SchemaError> {
    let count = sql(
        schema,
        "SELECT (SELECT count(*) FROM @.dead_letter WHERE query = $1), (SELECT count(*) FROM @.outbox WHERE query = $1)",
    );
    let row = client.query_typed_one(&count, &typed(&[&query])).await.map_err(failed)?;
    Ok(Waiting { dead_letters: row.get(0), rows: row.get(1) })
}

/// Takes away everything that is kept of a query.
///
/// # Errors
/// If a statement fails.
pub async fn forget(client: &Client, schema: &str, query: &str) -> Result<(), SchemaError> {
    lock(client).await?;
    let mut gone = Ok(());
    for table in
        ["partial", "substream", "close", "partition", "revision", "boundary", "worker", "dead_letter", "outbox"]
    {
        let delete = sql(schema, &format!("DELETE FROM @.{table} WHERE query = $1"));
        gone = gone.and(client.execute_typed(&delete, &typed(&[&query])).await.map(drop).map_err(failed));
    }
    unlock(client, gone).await
}
