//! Who holds which partition. Every change is fenced by the partition's epoch, so any number of workers may race.

use std::time::Duration;

use tokio_postgres::{Client, Error};

use super::schema::sql;
use crate::store::typed::typed;

/// A claim without progress makes batches smaller; from so many on a message is worked on alone.
pub(crate) const ALONE: i32 = 4;
/// Batch sizes after the second and the third claim without progress.
const SMALLER: [usize; 2] = [200, 14];

/// The state of a partition as a claim found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) part: i32,
    pub(crate) epoch: i64,
    pub(crate) generation: i64,
    pub(crate) next_offset: i64,
    pub(crate) watermark: i64,
    /// Claims without progress, this one among them; above [`ALONE`] starts of one message alone.
    pub(crate) stalled: i32,
    /// Batches since the claim.
    pub(crate) batches: usize,
}

impl Claim {
    /// Most messages of a batch until there is progress.
    pub(crate) fn batch(&self, most: usize) -> usize {
        match self.stalled {
            i32::MIN..=1 => most,
            2 => most.min(SMALLER[0]),
            3 => most.min(SMALLER[1]),
            _ => 1,
        }
    }

    /// What is stalled after one more batch: small batches go on until they have passed what the last larger one held.
    pub(crate) fn after_batch(&self, most: usize) -> i32 {
        let suspects = match self.stalled {
            i32::MIN..=1 => 0,
            2 => most,
            3 => SMALLER[0],
            _ => SMALLER[1],
        };
        if (self.batches + 1) * self.batch(most) >= suspects { 0 } else { self.stalled.min(ALONE) }
    }

    /// Whether a message is to be worked on alone.
    pub(crate) fn alone(&self) -> bool {
        self.stalled >= ALONE
    }

    /// Starts that the message at the offset has had alone.
    pub(crate) fn starts(&self) -> i32 {
        self.stalled - ALONE
    }
}

/// What a partition is set to that is free.
fn free() -> String {
    format!("owner = NULL, lease_until = '-infinity', stalled_claims = LEAST(stalled_claims, {ALONE})")
}

/// The leases of one worker on one revision of a query.
#[derive(Debug, Clone)]
pub(crate) struct Leases {
    schema: String,
    query: String,
    revision: String,
    /// This process and no other.
    owner: String,
    seconds: f64,
}

impl Leases {
    pub(crate) fn new(schema: &str, query: &str, revision: &str, owner: String, lease: Duration) -> Self {
        let [schema, query, revision] = [schema, query, revision].map(str::to_owned);
        Self { schema, query, revision, owner, seconds: lease.as_secs_f64() }
    }

    fn sql(&self, text: &str) -> String {
        sql(&self.schema, text)
    }

    /// Says that the worker lives, and how many partitions it may hold: N / live workers, rounded up.
    pub(crate) async fn heartbeat(&self, client: &Client) -> Result<usize, Error> {
        let beat = self.sql(
            "INSERT INTO @.worker AS w (query, revision, name, seen_at) VALUES ($1, $2, $3, clock_timestamp())
             ON CONFLICT (query, revision, name) DO UPDATE SET seen_at = excluded.seen_at",
        );
        client.execute_typed(&beat, &typed(&[&self.query, &self.revision, &self.owner])).await?;
        // Those that were killed said nothing when they went.
        let gone = self.sql(
            "DELETE FROM @.worker WHERE query = $1 AND seen_at < clock_timestamp() - make_interval(secs => 10 * $2::float8)",
        );
        client.execute_typed(&gone, &typed(&[&self.query, &self.seconds])).await?;
        let share = self.sql(
            "SELECT (r.partitions + w.live - 1) / w.live FROM @.revision r,
                 (SELECT GREATEST(count(*), 1) AS live FROM @.worker WHERE query = $1 AND revision = $2
                    AND seen_at > clock_timestamp() - make_interval(secs => $3)) w
             WHERE r.query = $1 AND r.revision = $2",
        );
        let share: i64 =
            client.query_typed_one(&share, &typed(&[&self.query, &self.revision, &self.seconds])).await?.get(0);
        Ok(usize::try_from(share).unwrap_or(0))
    }

    /// Takes up to `most` partitions that nobody holds, or that this process has let fall. Of those in `ended` the work ended by
    /// a panic, which is as good as a worker's end.
    pub(crate) async fn claim(
        &self,
        client: &Client,
        most: usize,
        held: &[i32],
        ended: &[i32],
    ) -> Result<Vec<Claim>, Error> {
        let claim = self.sql(
            "UPDATE @.partition p SET epoch = p.epoch + 1, owner = $3, lease_until = clock_timestamp() + make_interval(secs => $4),
                 stalled_claims = CASE WHEN p.owner IS NULL OR (p.owner = $3 AND p.part <> ALL ($7::int[])) THEN LEAST(p.stalled_claims, 4)
                     WHEN p.stalled_claims < 4 THEN p.stalled_claims + 1 ELSE p.stalled_claims END
             FROM (SELECT part FROM @.partition WHERE query = $1 AND revision = $2 AND part <> ALL ($6::int[])
                     AND (lease_until < clock_timestamp() OR owner = $3)
                   ORDER BY part LIMIT $5 FOR UPDATE SKIP LOCKED) free
             WHERE p.query = $1 AND p.revision = $2 AND p.part = free.part
             RETURNING p.part, p.epoch, p.generation, p.next_offset, p.watermark, p.stalled_claims",
        );
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = client
            .query_typed(
                &claim,
                &typed(&[&self.query, &self.revision, &self.owner, &self.seconds, &most, &held, &ended]),
            )
            .await?;
        let claim = |row: &tokio_postgres::Row| Claim {
            part: row.get(0),
            epoch: row.get(1),
            generation: row.get(2),
            next_offset: row.get(3),
            watermark: row.get(4),
            stalled: row.get(5),
            batches: 0,
        };
        Ok(rows.iter().map(claim).collect())
    }

    async fn fenced(&self, client: &Client, claim: &Claim, set: &str) -> Result<bool, Error> {
        let update = self.sql(&format!(
            "UPDATE @.partition SET {set} WHERE query = $1 AND revision = $2 AND part = $3 AND epoch = $4"
        ));
        Ok(client.execute_typed(&update, &typed(&[&self.query, &self.revision, &claim.part, &claim.epoch])).await? > 0)
    }

    /// Holds a partition for another lease; `false` if somebody else has it. Nothing is being worked on, so nothing is stalled.
    pub(crate) async fn renew(&self, client: &Client, claim: &Claim) -> Result<bool, Error> {
        let until =
            format!("lease_until = clock_timestamp() + make_interval(secs => {}), stalled_claims = 0", self.seconds);
        self.fenced(client, claim, &until).await
    }

    /// Counts a start of a message that is worked on alone; `false` if somebody else has the partition.
    pub(crate) async fn start(&self, client: &Client, claim: &Claim) -> Result<bool, Error> {
        self.fenced(client, claim, "stalled_claims = stalled_claims + 1").await
    }

    /// Sets a partition free.
    pub(crate) async fn release(&self, client: &Client, claim: &Claim) -> Result<bool, Error> {
        self.fenced(client, claim, &free()).await
    }

    /// The stream is another one than it was: begins it anew and keeps that something was lost.
    pub(crate) async fn restart(&self, client: &Client, claim: &Claim) -> Result<bool, Error> {
        let anew = "generation = generation + 1, next_offset = 0, lost = lost + 1, lost_at = clock_timestamp(),
             letters_from = NULL, letters_to = NULL";
        self.fenced(client, claim, anew).await
    }

    /// Messages before `first` are gone unread.
    pub(crate) async fn lose(&self, client: &Client, claim: &Claim, first: i64) -> Result<bool, Error> {
        let lost = format!("lost = lost + {first} - next_offset, lost_at = clock_timestamp(), next_offset = {first}");
        self.fenced(client, claim, &lost).await
    }

    /// Says that the worker is gone, and sets free what it still holds: a claim that was made and not begun, and what failed. Those in
    /// `ended` are as a worker's end left them.
    pub(crate) async fn leave(&self, client: &Client, ended: &[i32]) -> Result<(), Error> {
        let free = self.sql(&format!(
            "UPDATE @.partition SET {} WHERE query = $1 AND revision = $2 AND owner = $3 AND part <> ALL ($4::int[])",
            free()
        ));
        client.execute_typed(&free, &typed(&[&self.query, &self.revision, &self.owner, &ended])).await?;
        let gone = self.sql("DELETE FROM @.worker WHERE query = $1 AND revision = $2 AND name = $3");
        client.execute_typed(&gone, &typed(&[&self.query, &self.revision, &self.owner])).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_shrink_with_claims_that_made_no_progress() {
        let claim =
            |stalled| Claim { part: 0, epoch: 1, generation: 0, next_offset: 0, watermark: 0, stalled, batches: 0 };
        assert_eq!([0, 1, 2, 3, 4, 9].map(|n| claim(n).batch(4_000)), [4_000, 4_000, 200, 14, 1, 1]);
        assert_eq!([3, 4, 6].map(|n| claim(n).alone()), [false, true, true]);
        assert_eq!(claim(6).starts(), 2);
    }

    #[test]
    fn batches_stay_small_until_the_suspects_are_passed() {
        let after = |stalled, batches| {
            let claim = Claim { part: 0, epoch: 1, generation: 0, next_offset: 0, watermark: 0, stalled, batches };
            claim.after_batch(4_000)
        };
        assert_eq!([after(1, 0), after(2, 0), after(2, 18), after(2, 19)], [0, 2, 2, 0]);
        assert_eq!([after(3, 0), after(3, 13), after(3, 14)], [3, 3, 0]);
        assert_eq!([after(6, 0), after(4, 12), after(4, 13)], [4, 4, 0]);
    }
}
