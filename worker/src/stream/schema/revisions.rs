//! Which of two revisions emits which window ends: one row, under the locks of closers, so that each end is emitted once.

use tokio_postgres::Client;

use super::{SchemaError, failed, lock, sql, unlock};
use crate::store::typed::typed;

/// What came of a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// The old revision emits window ends up to this, the new one those after: ticks of 100 ns since 1970.
    At(i64),
    /// The new revision has not closed yet as far as the last boundary, or has not begun: ask again.
    NotYet,
}

/// Says, before the new revision starts, that the old one goes on emitting and the new one does not. `false` while the revision before
/// has not closed up to the last boundary: ask again.
///
/// # Errors
/// If a statement fails.
pub async fn stage(client: &Client, schema: &str, query: &str, old: &str, new: &str) -> Result<bool, SchemaError> {
    let mut done = false;
    lock(client).await?;
    let staged = put(client, schema, query, old, new, &mut done).await;
    unlock(client, staged).await?;
    Ok(done)
}

async fn put(
    client: &Client,
    schema: &str,
    query: &str,
    old: &str,
    new: &str,
    done: &mut bool,
) -> Result<(), SchemaError> {
    let closed = sql(
        schema,
        "SELECT c.upto > b.at OR b.at = $2 OR (b.old_revision, b.new_revision) = ($3, $4)
         FROM @.boundary b JOIN @.close c ON c.query = b.query AND c.revision = b.old_revision
         WHERE b.query = $1 ORDER BY c.step, c.win FOR UPDATE OF c",
    );
    let read = sql(
        schema,
        "SELECT p.watermark > b.at OR b.at = $2 OR (b.old_revision, b.new_revision) = ($3, $4)
         FROM @.boundary b JOIN @.partition p ON p.query = b.query AND p.revision = b.old_revision
         WHERE b.query = $1 ORDER BY p.part FOR UPDATE OF p",
    );
    let open = i64::MAX;
    let mut closed = client.query_typed(&closed, &typed(&[&query, &open, &old, &new])).await.map_err(failed)?;
    closed.extend(client.query_typed(&read, &typed(&[&query, &open, &old, &new])).await.map_err(failed)?);
    if !closed.iter().all(|row| row.get(0)) {
        return Ok(());
    }
    let insert = sql(
        schema,
        // Who emits now goes on: the new revision of the last boundary from there on, or the one that was old in a staging given up.
        "INSERT INTO @.boundary AS b (query, old_revision, new_revision, since, at) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (query) DO UPDATE SET new_revision = excluded.new_revision, old_revision = excluded.old_revision, at = excluded.at,
             since = CASE WHEN b.new_revision = excluded.old_revision THEN b.at ELSE b.since END
         WHERE (b.old_revision, b.new_revision) <> (excluded.old_revision, excluded.new_revision)",
    );
    client.execute_typed(&insert, &typed(&[&query, &old, &new, &i64::MIN, &open])).await.map_err(failed)?;
    *done = true;
    Ok(())
}

/// Draws the boundary no earlier than either revision has closed, and no earlier than any event that was read. From where both have read
/// on, dead letters are the new revision's.
///
/// # Errors
/// If a statement fails.
pub async fn hand_over(
    client: &Client,
    schema: &str,
    query: &str,
    old: &str,
    new: &str,
) -> Result<Boundary, SchemaError> {
    let mut boundary = Boundary::NotYet;
    lock(client).await?;
    let drawn = draw(client, schema, query, old, new, &mut boundary).await;
    unlock(client, drawn).await?;
    Ok(boundary)
}

async fn draw(
    client: &Client,
    schema: &str,
    query: &str,
    old: &str,
    new: &str,
    boundary: &mut Boundary,
) -> Result<(), SchemaError> {
    // Whoever closes holds these rows: no end is emitted while the boundary moves.
    let closed = sql(
        schema,
        "SELECT upto, GREATEST(upto, target), revision = $3 FROM @.close WHERE query = $1 AND revision IN ($2, $3)
         ORDER BY revision, step, win FOR UPDATE",
    );
    let mut rows = client.query_typed(&closed, &typed(&[&query, &old, &new])).await.map_err(failed)?;
    // And whoever commits a batch holds these: steps without windows emit rows at the times of events.
    let read = sql(
        schema,
        "SELECT watermark, GREATEST(watermark, max_event_time), revision = $3 FROM @.partition WHERE query = $1 AND revision IN ($2, $3)
         ORDER BY revision, part FOR UPDATE",
    );
    rows.extend(client.query_typed(&read, &typed(&[&query, &old, &new])).await.map_err(failed)?);
    let furthest = rows.iter().map(|row| row.get::<_, i64>(1)).max();
    let new_upto = rows.iter().filter(|row| row.get(2)).map(|row| row.get::<_, i64>(0)).min();
    let (Some(at), Some(new_upto)) = (furthest, new_upto) else { return Ok(()) };
    let staged = sql(
        schema,
        "UPDATE @.boundary SET at = $4 WHERE query = $1 AND old_revision = $2 AND new_revision = $3
             AND at = $6 AND since <= $5 AND $5 > $7",
    );
    let (open, never) = (i64::MAX, i64::MIN);
    let drawn = client
        .execute_typed(&staged, &typed(&[&query, &old, &new, &at, &new_upto, &open, &never]))
        .await
        .map_err(failed)?;
    if drawn > 0 {
        let letters = sql(
            schema,
            "WITH seen AS (SELECT part, max(next_offset) AS upto FROM @.partition WHERE query = $1 AND revision IN ($2, $3) GROUP BY part)
             UPDATE @.partition p SET letters_from = CASE WHEN p.revision = $3 THEN seen.upto ELSE p.letters_from END,
                 letters_to = CASE WHEN p.revision = $2 THEN seen.upto END
             FROM seen WHERE p.query = $1 AND p.revision IN ($2, $3) AND p.part = seen.part",
        );
        client.execute_typed(&letters, &typed(&[&query, &old, &new])).await.map_err(failed)?;
        *boundary = Boundary::At(at);
    }
    Ok(())
}
