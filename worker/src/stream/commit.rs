//! The one transaction of a batch: offset, time, partial aggregates, counts, dead letters and rows, fenced by the epoch.

use futures::future::{try_join, try_join3};
use tokio_postgres::{Client, Error};

use super::{
    close::{self, Emits},
    emit,
    intake::{Batch, DeadLetter, Intake},
    job::Job,
    lease::Claim,
    partials::{self, PartialError, Partials},
};
use crate::{query::Counters, store::typed::typed};

/// A batch could not be committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// Somebody else has the partition: what is in memory is worth nothing.
    #[error("another worker has the partition")]
    Fenced,
    #[error("the store refused a statement")]
    Store(#[source] Error),
    #[error(transparent)]
    Partial(PartialError),
}

impl From<PartialError> for CommitError {
    fn from(error: PartialError) -> Self {
        match error {
            PartialError::Store(error) => Self::Store(error),
            other @ PartialError::Unreadable { .. } => Self::Partial(other),
        }
    }
}

/// A connection for the batches of one partition.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) client: Client,
    fence: String,
    partials: Partials,
}

impl Committer {
    pub(crate) fn new(client: Client, job: &Job) -> Self {
        let fence = job.sql(
            "UPDATE @.partition SET next_offset = $6, watermark = GREATEST(watermark, $7), max_event_time = GREATEST(max_event_time, $8),
                 read_at = GREATEST(read_at, $9), on_time = on_time + $10, adjusted = adjusted + $11, dropped = dropped + $12,
                 dead_lettered = dead_lettered + $13, without_arrival = without_arrival + $14, skipped = skipped + $15,
                 stalled_claims = $17, lease_until = clock_timestamp() + make_interval(secs => $16)
             WHERE query = $1 AND revision = $2 AND part = $3 AND epoch = $4 AND next_offset = $5 AND next_offset < $6",
        );
        Self { client, fence, partials: Partials::new(job) }
    }

    /// Commits a batch; the claim is then behind it.
    pub(crate) async fn commit(
        &self,
        job: &Job,
        claim: &mut Claim,
        intake: &mut Intake,
        batch: &mut Batch,
    ) -> Result<Counters, CommitError> {
        let Some(next) = batch.next else { return Ok(Counters::default()) };
        let fresh = intake.engine.drain();
        let (counters, moved) = intake.settle();
        let watermark = intake.time.watermark();
        // What was passed over is what it was about.
        let stalled = if batch.skipped > 0 { 0 } else { claim.after_batch(job.settings.batch.messages) };
        let begin = job.begin();
        let fence = self.fence(job, claim, (watermark, stalled), counters, batch);
        let read = self.partials.read(&self.client, claim.part, &fresh);
        let ((), fenced, kept) =
            try_join3(self.client.batch_execute(&begin), fence, read).await.map_err(CommitError::Store)?;
        if fenced == 0 {
            self.client.batch_execute("ROLLBACK").await.map_err(CommitError::Store)?;
            return Err(CommitError::Fenced);
        }
        let merged = partials::merge(&mut intake.engine, fresh, &kept)?;
        if !batch.rows.is_empty() || !batch.dead.is_empty() {
            let emits = close::emits(&self.client, job).await.map_err(CommitError::Store)?;
            batch.rows.retain(|made| emits.takes(made.row.time));
            self.letters(job, claim, emits, &mut batch.dead).await.map_err(CommitError::Store)?;
            let rows = std::mem::take(&mut batch.rows);
            let refused = emit::write(&self.client, job, rows).await.map_err(CommitError::Store)?;
            let at = Some((claim.part, next - 1));
            batch.dead.extend(refused.into_iter().map(|dead| DeadLetter { at, ..dead }));
        }
        let more = try_join(self.times(job, claim, watermark, &moved), keep(&self.client, job, &batch.dead));
        try_join(self.partials.write(&self.client, claim.part, &merged), more).await.map_err(CommitError::Store)?;
        self.client.batch_execute("COMMIT").await.map_err(CommitError::Store)?;
        claim.next_offset = next;
        claim.watermark = watermark;
        claim.stalled = stalled;
        claim.batches += 1;
        Ok(counters)
    }

    /// Leaves those dead letters that are this revision's: what another that emits keeps for a person is counted here, and not kept again.
    async fn letters(&self, job: &Job, claim: &Claim, emits: Emits, dead: &mut Vec<DeadLetter>) -> Result<(), Error> {
        if emits.nothing() {
            dead.clear();
        }
        if dead.is_empty() {
            return Ok(());
        }
        let range = job
            .sql("SELECT letters_from, letters_to FROM @.partition WHERE query = $1 AND revision = $2 AND part = $3");
        let row = self.client.query_typed_one(&range, &typed(&[&job.query, &job.revision, &claim.part])).await?;
        let (from, to): (Option<i64>, Option<i64>) = (row.get(0), row.get(1));
        let ours = |offset: i64| from.is_none_or(|from| offset >= from) && to.is_none_or(|to| offset < to);
        dead.retain(|letter| letter.at.is_none_or(|(_, offset)| ours(offset)));
        Ok(())
    }

    async fn fence(
        &self,
        job: &Job,
        claim: &Claim,
        (watermark, stalled): (i64, i32),
        counters: Counters,
        batch: &Batch,
    ) -> Result<u64, Error> {
        let Counters { on_time, adjusted, dropped, dead_lettered } = counters;
        let [on_time, adjusted, dropped, dead_lettered] =
            [on_time, adjusted, dropped, dead_lettered].map(u64::cast_signed);
        let lease = job.settings.lease.as_secs_f64();
        self.client
            .execute_typed(
                &self.fence,
                &typed(&[
                    &job.query,
                    &job.revision,
                    &claim.part,
                    &claim.epoch,
                    &claim.next_offset,
                    &batch.next,
                    &watermark,
                    &batch.max_event_time,
                    &batch.read_at,
                    &on_time,
                    &adjusted,
                    &dropped,
                    &dead_lettered,
                    &batch.without_arrival,
                    &batch.skipped,
                    &lease,
                    &stalled,
                ]),
            )
            .await
    }

    /// The times of the keys of OVER; those that are not ahead of the partition any more are not kept.
    async fn times(&self, job: &Job, claim: &Claim, watermark: i64, moved: &[(Vec<u8>, i64)]) -> Result<(), Error> {
        if job.settings.plan.over.is_empty() {
            return Ok(());
        }
        let (keys, times): (Vec<&[u8]>, Vec<i64>) = moved.iter().map(|(key, time)| (key.as_slice(), *time)).unzip();
        let write = job.sql(
            "INSERT INTO @.substream (query, revision, part, key, watermark)
             SELECT $1, $2, $3, u.* FROM unnest($4::bytea[], $5::bigint[]) AS u
             ON CONFLICT (query, revision, part, key) DO UPDATE SET watermark = excluded.watermark",
        );
        self.client.execute_typed(&write, &typed(&[&job.query, &job.revision, &claim.part, &keys, &times])).await?;
        let gone =
            job.sql("DELETE FROM @.substream WHERE query = $1 AND revision = $2 AND part = $3 AND watermark <= $4");
        self.client.execute_typed(&gone, &typed(&[&job.query, &job.revision, &claim.part, &watermark])).await.map(drop)
    }
}

/// Keeps dead letters, to be relayed.
pub(crate) async fn keep(client: &Client, job: &Job, dead: &[DeadLetter]) -> Result<(), Error> {
    if dead.is_empty() {
        return Ok(());
    }
    let insert = job.sql(
        "INSERT INTO @.dead_letter (query, revision, part, stream_offset, message_id, stage, reason, error, body)
         SELECT $1, $2, u.* FROM unnest($3::int[], $4::bigint[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bytea[]) AS u",
    );
    let parts: Vec<Option<i32>> = dead.iter().map(|d| d.at.map(|(part, _)| part)).collect();
    let offsets: Vec<Option<i64>> = dead.iter().map(|d| d.at.map(|(_, offset)| offset)).collect();
    let ids: Vec<Option<String>> = dead.iter().map(|d| d.message_id.as_deref().map(without_nul)).collect();
    let stages: Vec<&str> = dead.iter().map(|d| d.stage).collect();
    let reasons: Vec<&str> = dead.iter().map(|d| d.reason).collect();
    let errors: Vec<String> = dead.iter().map(|d| without_nul(&d.error)).collect();
    let bodies: Vec<&[u8]> = dead.iter().map(|d| d.body.as_slice()).collect();
    client
        .execute_typed(
            &insert,
            &typed(&[&job.query, &job.revision, &parts, &offsets, &ids, &stages, &reasons, &errors, &bodies]),
        )
        .await
        .map(drop)
}

/// PostgreSQL has no text with NUL.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
