//! Closing windows: by any worker, in transactions of some thousand partial aggregates, under the rows that closers lock.
//!
//! A window closes when its end is strictly below the least watermark of all partitions. No event counts at a time below its
//! partition's watermark, so nothing is added any more to what is read here, and writers need no lock.

mod due;

use tokio_postgres::{Client, Error, Row};

use super::{
    commit::keep,
    emit,
    intake::{DeadLetter, Made, key_text},
    job::Job,
    partials::{self, DERIVED, PartialError, Partials, small},
};
use crate::{
    query::{Engine, Failed, OutputRow, StoredPartial, clock},
    store::typed::typed,
};
use due::{Cursor, Due};

/// Partials that a transaction reads, unless one group has more.
const PARTIALS: i64 = 10_000;

/// Closes windows on a connection of its own.
#[derive(Debug)]
pub(crate) struct Closer {
    client: Client,
    partials: Partials,
    engine: Engine,
}

/// What came of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing is left to close now.
    Done,
    /// There is more.
    More,
    /// Somebody else closes, or a partition's watermark is not known.
    NotOurs,
}

/// The state of one window's closing.
#[derive(Debug, Clone)]
struct Window {
    step: usize,
    place: usize,
    upto: i64,
    /// Where closing goes to, while it is not there.
    target: Option<i64>,
    cursor: Option<Cursor>,
}

/// Which ends a revision emits: those in the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Emits {
    after: i64,
    to: i64,
}

impl Emits {
    const ALL: Self = Self { after: i64::MIN, to: i64::MAX };
    const NONE: Self = Self { after: i64::MAX, to: i64::MIN };

    /// A revision that catches up, or that has nothing to do with the query any more.
    pub(crate) fn nothing(self) -> bool {
        self.after == i64::MAX
    }

    pub(crate) fn takes(self, end: i64) -> bool {
        (self == Self::ALL) || (self.after < end && end <= self.to)
    }
}

impl Closer {
    pub(crate) fn new(client: Client, job: &Job) -> Self {
        Self { client, partials: Partials::new(job), engine: Engine::new(&job.settings.plan) }
    }

    /// Closes what can be closed, at most one chunk of groups.
    pub(crate) async fn step(&mut self, job: &Job) -> Result<Progress, PartialError> {
        self.client.batch_execute(&job.begin()).await.map_err(PartialError::Store)?;
        let result = self.chunk(job).await;
        // What a failure leaves in the engine is nothing that counts.
        self.engine.drain();
        let progress = result?;
        let end = if progress == Progress::NotOurs { "ROLLBACK" } else { "COMMIT" };
        self.client.batch_execute(end).await.map_err(PartialError::Store)?;
        Ok(progress)
    }

    async fn chunk(&mut self, job: &Job) -> Result<Progress, PartialError> {
        let locked = lock(&self.client, job).await.map_err(PartialError::Store)?;
        let Some(mut windows) = locked else { return Ok(Progress::NotOurs) };
        let watermark = watermark(&self.client, job).await.map_err(PartialError::Store)?;
        let Some(watermark) = watermark else { return Ok(Progress::NotOurs) };
        let before = windows.clone();
        let mut progress = Progress::Done;
        for at in 0..windows.len() {
            let limit = reachable(job, &windows, windows[at].step, watermark);
            let to = windows[at].target.unwrap_or(limit);
            if to <= windows[at].upto {
                continue;
            }
            if self.window(job, &mut windows[at], to).await? {
                progress = Progress::More;
                break;
            }
            if windows[at].upto < limit {
                progress = Progress::More;
            }
        }
        for (window, _) in windows.iter().zip(&before).filter(|(now, then)| now.differs(then)) {
            save(&self.client, job, window).await.map_err(PartialError::Store)?;
        }
        Ok(progress)
    }

    /// Closes one window up to `to`, or a chunk of it: then `true`.
    async fn window(&mut self, job: &Job, window: &mut Window, to: i64) -> Result<bool, PartialError> {
        let definition = job.windows().into_iter().find(|(s, w, _)| (*s, *w) == (window.step, window.place));
        let due = definition.and_then(|(_, _, definition)| Due::of(definition, window.upto, to));
        let Some(due) = due else {
            window.reach(to);
            return Ok(false);
        };
        let found = due.read(&self.client, job, window, to, PARTIALS).await.map_err(PartialError::Store)?;
        if found.partials.is_empty() {
            window.reach(to);
            return Ok(false);
        }
        for partial in &found.partials {
            partials::absorb(&mut self.engine, partial)?;
        }
        let (mut rows, mut failed) = (Vec::new(), Vec::new());
        self.engine.close(window.step, window.upto, to, &mut rows, &mut failed);
        self.settle(job, window, found.partials).await?;
        self.emit(job, rows, &failed).await.map_err(PartialError::Store)?;
        if found.last {
            window.reach(to);
            return Ok(false);
        }
        window.target = Some(to);
        window.cursor = found.cursor;
        Ok(true)
    }

    /// Deletes what is closed, and keeps what later steps have got.
    async fn settle(&mut self, job: &Job, window: &Window, read: Vec<StoredPartial>) -> Result<(), PartialError> {
        let (own, derived): (Vec<_>, Vec<_>) = self.engine.drain().into_iter().partition(|p| p.step == window.step);
        let open: std::collections::HashSet<(i64, Vec<u8>, Vec<u8>)> =
            own.into_iter().map(|p| (p.pane, p.domain, p.key)).collect();
        let mut gone: Vec<StoredPartial> = read
            .into_iter()
            .map(|p| StoredPartial { partial: Vec::new(), ..p })
            .filter(|p| !open.contains(&(p.pane, p.domain.clone(), p.key.clone())))
            .collect();
        // Partials of several partitions are one row here.
        gone.dedup();
        self.partials.delete(&self.client, job, &gone).await.map_err(PartialError::Store)?;
        let kept = self.partials.read(&self.client, DERIVED, &derived).await.map_err(PartialError::Store)?;
        let merged = partials::merge(&mut self.engine, derived, &kept)?;
        self.partials.write(&self.client, DERIVED, &merged).await.map_err(PartialError::Store)
    }

    async fn emit(&self, job: &Job, rows: Vec<OutputRow>, failed: &[Failed]) -> Result<(), Error> {
        let emits = emits(&self.client, job).await?;
        let made = rows.into_iter().filter(|row| emits.takes(row.time)).map(|row| Made { origin: origin(&row), row });
        let mut dead = emit::write(&self.client, job, made.collect()).await?;
        dead.extend(failed.iter().filter(|f| emits.takes(f.end)).map(dead_letter));
        let lost = i64::try_from(dead.len()).unwrap_or(i64::MAX);
        keep(&self.client, job, &dead).await?;
        job.meter.closed(lost.unsigned_abs());
        Ok(())
    }
}

impl Window {
    fn reach(&mut self, to: i64) {
        self.upto = self.upto.max(to);
        self.target = None;
        self.cursor = None;
    }

    fn differs(&self, other: &Self) -> bool {
        (self.upto, self.target, &self.cursor) != (other.upto, other.target, &other.cursor)
    }
}

/// How far a step may close: to the watermark, or to where the step before it has closed.
fn reachable(job: &Job, windows: &[Window], step: usize, watermark: i64) -> i64 {
    match job.upstream(step) {
        None => watermark,
        Some(before) => windows.iter().filter(|w| w.step == before).map(|w| w.upto).min().unwrap_or(watermark),
    }
}

/// Locks the rows that closers take; none where somebody else has them.
async fn lock(client: &Client, job: &Job) -> Result<Option<Vec<Window>>, Error> {
    let rows = job.sql(
        "SELECT step, win, upto, target, after_domain, after_key FROM @.close WHERE query = $1 AND revision = $2
         ORDER BY step, win FOR UPDATE SKIP LOCKED",
    );
    let rows = client.query_typed(&rows, &typed(&[&job.query, &job.revision])).await?;
    let window = |row: &Row| Window {
        step: usize::try_from(row.get::<_, i32>(0)).unwrap_or(usize::MAX),
        place: usize::try_from(row.get::<_, i32>(1)).unwrap_or(usize::MAX),
        upto: row.get(2),
        target: row.get(3),
        cursor: row.get::<_, Option<Vec<u8>>>(4).zip(row.get(5)),
    };
    Ok((rows.len() == job.windows().len()).then(|| rows.iter().map(window).collect()))
}

/// The least watermark, where all partitions have one.
async fn watermark(client: &Client, job: &Job) -> Result<Option<i64>, Error> {
    let least = job.sql(
        "SELECT min(p.watermark), count(*) = max(r.partitions) FROM @.partition p
         JOIN @.revision r ON r.query = p.query AND r.revision = p.revision WHERE p.query = $1 AND p.revision = $2",
    );
    let row = client.query_typed_one(&least, &typed(&[&job.query, &job.revision])).await?;
    let complete: Option<bool> = row.get(1);
    Ok(row.get::<_, Option<i64>>(0).filter(|_| complete == Some(true)))
}

async fn save(client: &Client, job: &Job, window: &Window) -> Result<(), Error> {
    let update = job.sql(
        "UPDATE @.close SET upto = $5, target = $6, after_domain = $7, after_key = $8
         WHERE query = $1 AND revision = $2 AND step = $3 AND win = $4",
    );
    let (domain, key) = window.cursor.clone().unzip();
    let (step, place) = (small(window.step), small(window.place));
    client
        .execute_typed(
            &update,
            &typed(&[&job.query, &job.revision, &step, &place, &window.upto, &window.target, &domain, &key]),
        )
        .await
        .map(drop)
}

/// Which ends this revision emits. The boundary is held until the transaction's end.
pub(crate) async fn emits(client: &Client, job: &Job) -> Result<Emits, Error> {
    let boundary = job.sql("SELECT old_revision, new_revision, since, at FROM @.boundary WHERE query = $1 FOR SHARE");
    let rows = client.query_typed(&boundary, &typed(&[&job.query])).await?;
    Ok(rows.first().map_or(Emits::ALL, |row| {
        let (old, new, since, at): (&str, &str, i64, i64) = (row.get(0), row.get(1), row.get(2), row.get(3));
        if job.revision == new {
            Emits { after: at, to: i64::MAX }
        } else if job.revision == old {
            Emits { after: since, to: at }
        } else {
            Emits::NONE
        }
    }))
}

fn origin(row: &OutputRow) -> String {
    let Some((window, key)) = &row.group else { return String::new() };
    key.iter().fold(format!("{window}/"), |text, byte| format!("{text}{byte:02x}"))
}

/// A group whose row cannot be computed.
fn dead_letter(failed: &Failed) -> DeadLetter {
    let body = format!(
        "{{\"windowEnd\":\"{}\",\"window\":{},\"key\":{}}}",
        clock::format(failed.end),
        failed.window,
        key_text(&failed.key)
    );
    DeadLetter {
        at: None,
        message_id: None,
        stage: "window",
        reason: "InvalidRow",
        error: failed.error.to_string(),
        body: body.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_revisions_exactly_one_emits_each_end() {
        let (old, new) = (Emits { after: i64::MIN, to: 7 }, Emits { after: 7, to: i64::MAX });
        for end in [-1, 6, 7, 8, 100] {
            assert!(old.takes(end) != new.takes(end), "{end}");
            assert!(Emits::ALL.takes(end) && !Emits::NONE.takes(end));
        }
    }
}
