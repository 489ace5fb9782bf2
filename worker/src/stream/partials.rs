//! Partial aggregates in the store: what is new is merged with what is there, by the only one who may write it.

use std::collections::{BTreeMap, HashMap};

use futures::future::try_join_all;
use tokio_postgres::{Client, Error, Row};

use super::job::Job;
use crate::{
    query::{Engine, StoredPartial},
    store::typed::typed,
};

/// Part of what windows of one step leave for another.
pub(crate) const DERIVED: i32 = -1;

/// A partial that is kept cannot be read by this build.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartialError {
    #[error("the store refused a statement")]
    Store(#[source] Error),
    #[error("a partial aggregate of step {step}, window {window} cannot be read: another build wrote it")]
    Unreadable { step: usize, window: usize },
}

/// The statements that read and write partials.
#[derive(Debug)]
pub(crate) struct Partials {
    read: String,
    write: String,
    query: String,
    revision: String,
}

/// Columns of partials, for `unnest`.
#[derive(Debug, Default)]
struct Columns<'a> {
    steps: Vec<i32>,
    windows: Vec<i32>,
    panes: Vec<i64>,
    domains: Vec<&'a [u8]>,
    keys: Vec<&'a [u8]>,
    data: Vec<&'a [u8]>,
}

impl<'a> Columns<'a> {
    fn of(partials: &'a [StoredPartial]) -> Self {
        let mut columns = Self::default();
        for p in partials {
            columns.steps.push(small(p.step));
            columns.windows.push(small(p.window));
            columns.panes.push(p.pane);
            columns.domains.push(&p.domain);
            columns.keys.push(&p.key);
            columns.data.push(&p.partial);
        }
        columns
    }
}

pub(crate) fn small(n: usize) -> i32 {
    i32::try_from(n).expect("a query has far fewer steps and windows")
}

pub(crate) fn stored(row: &Row) -> StoredPartial {
    let place = |n| usize::try_from(row.get::<_, i32>(n)).unwrap_or(usize::MAX);
    StoredPartial {
        step: place(0),
        window: place(1),
        pane: row.get(2),
        domain: row.get(3),
        key: row.get(4),
        partial: row.get(5),
    }
}

/// Gives a stored partial to an engine.
pub(crate) fn absorb(engine: &mut Engine, partial: &StoredPartial) -> Result<(), PartialError> {
    let unreadable = PartialError::Unreadable { step: partial.step, window: partial.window };
    if engine.absorb(partial) { Ok(()) } else { Err(unreadable) }
}

impl Partials {
    pub(crate) fn new(job: &Job) -> Self {
        let read = job.sql(
            "SELECT p.step, p.win, p.pane, p.domain, p.key, p.data
             FROM unnest($4::int[], $5::int[], $6::bigint[], $7::bytea[], $8::bytea[]) AS u (step, win, pane, domain, key)
             JOIN @.partial p ON p.query = $1 AND p.revision = $2 AND p.part = $3 AND p.step = u.step AND p.win = u.win
              AND p.pane = u.pane AND p.domain = u.domain AND p.key = u.key",
        );
        let write = job.sql(
            "INSERT INTO @.partial (query, revision, part, step, win, pane, domain, key, data)
             SELECT $1, $2, $3, u.* FROM unnest($4::int[], $5::int[], $6::bigint[], $7::bytea[], $8::bytea[], $9::bytea[]) AS u
             ON CONFLICT (query, revision, step, win, pane, domain, key, part) DO UPDATE SET data = excluded.data",
        );
        Self { read, write, query: job.query.clone(), revision: job.revision.clone() }
    }

    /// Those of the partials that are kept already.
    pub(crate) async fn read(&self, client: &Client, part: i32, fresh: &[StoredPartial]) -> Result<Vec<Row>, Error> {
        if fresh.is_empty() {
            return Ok(Vec::new());
        }
        let c = Columns::of(fresh);
        client
            .query_typed(
                &self.read,
                &typed(&[&self.query, &self.revision, &part, &c.steps, &c.windows, &c.panes, &c.domains, &c.keys]),
            )
            .await
    }

    /// Writes partials, whatever is there of them.
    pub(crate) async fn write(&self, client: &Client, part: i32, partials: &[StoredPartial]) -> Result<(), Error> {
        if partials.is_empty() {
            return Ok(());
        }
        let c = Columns::of(partials);
        client
            .execute_typed(
                &self.write,
                &typed(&[
                    &self.query,
                    &self.revision,
                    &part,
                    &c.steps,
                    &c.windows,
                    &c.panes,
                    &c.domains,
                    &c.keys,
                    &c.data,
                ]),
            )
            .await
            .map(drop)
    }

    /// Deletes partials of all parts. In several statements, none of them large.
    pub(crate) async fn delete(&self, client: &Client, job: &Job, partials: &[StoredPartial]) -> Result<(), Error> {
        const CHUNK: usize = 5_000;
        let delete = job.sql(
            "DELETE FROM @.partial p USING unnest($3::int[], $4::int[], $5::bigint[], $6::bytea[], $7::bytea[]) AS u (step, win, pane, domain, key)
             WHERE p.query = $1 AND p.revision = $2 AND p.step = u.step AND p.win = u.win
              AND p.pane = u.pane AND p.domain = u.domain AND p.key = u.key",
        );
        let deleted = partials.chunks(CHUNK).map(|some| {
            let delete = &delete;
            async move {
                let c = Columns::of(some);
                client
                    .execute_typed(
                        delete,
                        &typed(&[&self.query, &self.revision, &c.steps, &c.windows, &c.panes, &c.domains, &c.keys]),
                    )
                    .await
            }
        });
        try_join_all(deleted).await.map(drop)
    }
}

/// Step, window, pane, domain and key.
type Place = (usize, usize, i64, Vec<u8>, Vec<u8>);

/// Merges what is new with what was read of it. The engine is empty before and after.
pub(crate) fn merge(
    engine: &mut Engine,
    fresh: Vec<StoredPartial>,
    kept: &[Row],
) -> Result<Vec<StoredPartial>, PartialError> {
    if kept.is_empty() {
        return Ok(fresh);
    }
    let place = |p: &StoredPartial| -> Place { (p.step, p.window, p.pane, p.domain.clone(), p.key.clone()) };
    let mut old: HashMap<Place, StoredPartial> = kept.iter().map(stored).map(|p| (place(&p), p)).collect();
    let mut merged = BTreeMap::new();
    for partial in fresh {
        match old.remove(&place(&partial)) {
            Some(kept) => {
                absorb(engine, &kept)?;
                absorb(engine, &partial)?;
            }
            None => drop(merged.insert(place(&partial), partial)),
        }
    }
    merged.extend(engine.drain().into_iter().map(|p| (place(&p), p)));
    Ok(merged.into_values().collect())
}
