//! One partition while this worker holds it: read, batch, commit, then acknowledge. Ends by its claim's end, and leaves nothing in memory
//! that is worth anything then.

mod reader;

use std::{collections::HashMap, sync::Arc, time::Instant};

use drover_crds::query::TICKS_PER_MILLISECOND;
use lapin::{
    BasicProperties, Connection,
    types::{AMQPValue, FieldTable},
};
use tokio::{
    sync::{RwLockReadGuard, RwLockWriteGuard},
    time::{timeout, timeout_at},
};
use tokio_postgres::{Client, Error};
use tokio_util::sync::CancellationToken;

use super::{
    commit::{CommitError, Committer},
    intake::{Batch, Intake},
    job::Job,
    lease::{Claim, Leases},
    message::{Message, PROBE, TICK},
    schema::UNREAD,
    time::Time,
};
use crate::{
    ingest::{
        clock,
        publisher::{Outgoing, Publisher, Receipt},
    },
    query::{Decoder, Engine},
    store::{StoreError, StoreReason, typed::typed},
};
use reader::{ReadError, Reader};

/// Most bytes of bodies of a batch.
const BATCH_BYTES: usize = 8 << 20;
/// Most partial aggregates of a batch: with more it is committed early, so memory is bounded whatever the number of keys.
const BATCH_CELLS: usize = 30_000;
/// The engine is asked for its size after so many messages.
const LOOK: usize = 256;
/// And after so many bytes of bodies: one may have hundreds of events.
const LOOK_BYTES: usize = 128 << 10;

/// Why the work on a partition ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was asked to, and the partition is free.
    Stopped,
    /// Another worker has it.
    Fenced,
    /// It is to be read again from where the store says, with another prefetch or another generation.
    Again,
    /// Something failed; whose turn it is, is decided by the next claim.
    Failed { reason: String, message: String },
}

impl From<CommitError> for End {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Fenced => Self::Fenced,
            CommitError::Store(error) => store(&error),
            CommitError::Partial(error) => {
                Self::Failed { reason: "StateUnreadable".to_owned(), message: error.to_string() }
            }
        }
    }
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Failed { reason: error.reason.as_str().to_owned(), message: error.message }
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        Self::Failed { reason: error.reason().to_owned(), message: error.to_string() }
    }
}

fn store(error: &Error) -> End {
    let message = error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
    End::Failed { reason: StoreReason::of(error).as_str().to_owned(), message }
}

/// What a partition is worked on with.
pub(crate) struct Partition {
    job: Arc<Job>,
    leases: Leases,
    claim: Claim,
    committer: Committer,
    hub: Arc<Connection>,
    reader: Reader,
    intake: Intake,
    publisher: Publisher,
    /// When a message moved the watermark last, or the start.
    moved: Instant,
    /// The last tick that was sent.
    ticked: Instant,
    renewed: Instant,
}

/// Ordinary work, or a message that is worked on alone.
enum Gate<'a> {
    Shared { _guard: RwLockReadGuard<'a, ()> },
    Alone { _guard: RwLockWriteGuard<'a, ()> },
}

impl Partition {
    /// Begins to read from where the claim says.
    pub(crate) async fn open(
        job: Arc<Job>,
        leases: Leases,
        mut claim: Claim,
        hub: Arc<Connection>,
        mut publisher: Publisher,
    ) -> Result<Self, End> {
        let client = job.connect().await?;
        look_for_loss(&job, &leases, &client, &mut claim, &hub, &mut publisher).await?;
        let committer = Committer::new(client, &job);
        let over = substreams(&job, &committer, claim.part).await.map_err(|e| store(&e))?;
        let plan = &job.settings.plan;
        let time = Time::new(job.settings.tolerance, claim.watermark, over);
        let intake = Intake::new(claim.part, Decoder::new(plan, None), Engine::new(plan), time);
        let prefetch = reader::prefetch(job.meter.mean_body(), claim.batch(job.settings.batch.messages));
        let stream = job.settings.stream_of(claim.part);
        let reader = Reader::open(&hub, &stream, &job.settings.exchange, claim.next_offset.max(0), prefetch).await?;
        let now = clock::now();
        Ok(Self {
            job,
            leases,
            claim,
            committer,
            hub,
            reader,
            intake,
            publisher,
            moved: now,
            ticked: now,
            renewed: now,
        })
    }

    /// Works until the end.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> End {
        let job = Arc::clone(&self.job);
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => return self.free().await,
                first = timeout_at(self.next_care().into(), self.reader.next()) => first,
            };
            let worked = match first {
                Ok(Ok(message)) => self.work(&job, message).await,
                Ok(Err(error)) => Err(error.into()),
                Err(_) => self.care().await,
            };
            if let Err(end) = worked {
                return end;
            }
        }
    }

    /// Sets the partition free.
    async fn free(&self) -> End {
        match self.leases.release(&self.committer.client, &self.claim).await {
            Ok(_) => End::Stopped,
            Err(error) => store(&error),
        }
    }

    /// Fills a batch that begins with a message, commits it and acknowledges.
    async fn work(&mut self, job: &Job, first: Message) -> Result<(), End> {
        self.check(&first).await?;
        let _gate = if self.claim.alone() {
            Gate::Alone { _guard: job.gate.write().await }
        } else {
            Gate::Shared { _guard: job.gate.read().await }
        };
        let mut batch = Batch::default();
        if self.claim.alone() {
            self.alone(&first, &mut batch).await?;
        } else {
            self.take(&first, &mut batch);
            self.fill(job, &mut batch).await?;
        }
        self.commit(job, batch).await
    }

    /// Works on one message alone; one that has ended the worker too often is passed over.
    async fn alone(&mut self, message: &Message, batch: &mut Batch) -> Result<(), End> {
        if self.claim.starts() >= self.job.settings.attempts {
            self.intake.skip(message, self.claim.starts(), batch);
            return Ok(());
        }
        if !self.leases.start(&self.committer.client, &self.claim).await.map_err(|e| store(&e))? {
            return Err(End::Fenced);
        }
        self.take(message, batch);
        Ok(())
    }

    fn take(&mut self, message: &Message, batch: &mut Batch) {
        let before = self.intake.time.watermark();
        self.intake.take(message, clock::today().as_millisecond() * TICKS_PER_MILLISECOND, batch);
        let now = clock::now();
        if message.tick.is_some() {
            self.ticked = now;
        }
        // What is undecodable, dropped or behind moves no time: a partition that has nothing else would hold all windows.
        if self.intake.time.watermark() > before {
            self.moved = now;
        }
    }

    async fn fill(&mut self, job: &Job, batch: &mut Batch) -> Result<(), End> {
        let most = self.claim.batch(job.settings.batch.messages);
        let until = clock::now() + job.settings.batch.fill;
        let mut looked = 0;
        while batch.messages < most && batch.bytes < BATCH_BYTES {
            if batch.messages.is_multiple_of(LOOK) || batch.bytes - looked > LOOK_BYTES {
                looked = batch.bytes;
                if self.intake.engine.open() > BATCH_CELLS {
                    break;
                }
            }
            match timeout_at(until.into(), self.reader.next()).await {
                Ok(Ok(message)) if batch.next.is_some_and(|next| message.offset > next) => {
                    // What is missing is looked into before anything after it is taken.
                    self.reader.put_back(message);
                    break;
                }
                Ok(Ok(message)) => self.take(&message, batch),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => break,
            }
        }
        Ok(())
    }

    async fn commit(&mut self, job: &Job, mut batch: Batch) -> Result<(), End> {
        let before = self.claim.watermark;
        let rows = !batch.rows.is_empty();
        let done = self.committer.commit(job, &mut self.claim, &mut self.intake, &mut batch).await;
        if let Err(CommitError::Store(error)) = &done {
            super::emit::doubt(job, error);
        }
        done?;
        self.reader.acknowledge(batch.tag).await?;
        self.renewed = clock::now();
        job.meter.committed(batch.messages, batch.bytes);
        job.meter.go_on("partition");
        if self.claim.watermark > before {
            job.moved.notify_one();
        }
        if rows || !batch.dead.is_empty() {
            job.left.notify_one();
        }
        let most = self.claim.batch(job.settings.batch.messages);
        if reader::is_off(self.reader.prefetch, job.meter.mean_body(), most) {
            return Err(End::Again);
        }
        self.tick_if_due().await
    }

    /// An offset before the one asked for is that of another stream; one after it may follow what retention took under the reader.
    async fn check(&mut self, message: &Message) -> Result<(), End> {
        if message.offset > self.claim.next_offset && self.claim.next_offset != UNREAD {
            return self.look_at_gap(message.offset).await;
        }
        if message.offset >= self.claim.next_offset {
            return Ok(());
        }
        tracing::warn!(partition = self.claim.part, "the stream was declared anew: it is read from its beginning");
        match self.leases.restart(&self.committer.client, &self.claim).await {
            Ok(true) => Err(End::Again),
            Ok(false) => Err(End::Fenced),
            Err(error) => Err(store(&error)),
        }
    }

    /// Offsets before `next` are missing: a loss where the stream begins after them, else a hole as there are many.
    async fn look_at_gap(&mut self, next: i64) -> Result<(), End> {
        let stream = self.job.settings.stream_of(self.claim.part);
        if reader::first(&self.hub, &stream, &self.job.settings.exchange).await? <= self.claim.next_offset {
            return Ok(());
        }
        let lost = next - self.claim.next_offset;
        tracing::warn!(partition = self.claim.part, lost, "messages were gone before they were read");
        match self.leases.lose(&self.committer.client, &self.claim, next).await {
            Ok(true) => self.claim.next_offset = next,
            Ok(false) => return Err(End::Fenced),
            Err(error) => return Err(store(&error)),
        }
        Ok(())
    }

    /// When something is to be done although nothing is heard.
    fn next_care(&self) -> Instant {
        let renewal = self.renewed + self.job.settings.lease / 3;
        self.tick_due().map_or(renewal, |tick| tick.min(renewal))
    }

    /// With OVER every second without a tick, since keys that are silent hold the others; else every second in which time stood still.
    fn tick_due(&self) -> Option<Instant> {
        let every = self.job.settings.tick?;
        let since = if self.job.settings.plan.over.is_empty() { self.moved.max(self.ticked) } else { self.ticked };
        Some(since + every)
    }

    /// Nothing is pending: holds the lease, and lets the stream know the time.
    async fn care(&mut self) -> Result<(), End> {
        if clock::now() >= self.renewed + self.job.settings.lease / 3 {
            match self.leases.renew(&self.committer.client, &self.claim).await {
                Ok(true) => (self.renewed, self.claim.stalled) = (clock::now(), 0),
                Ok(false) => return Err(End::Fenced),
                Err(error) => return Err(store(&error)),
            }
        }
        self.tick_if_due().await
    }

    async fn tick_if_due(&mut self) -> Result<(), End> {
        let now = clock::now();
        if self.tick_due().is_none_or(|due| now < due) {
            return Ok(());
        }
        self.ticked = now;
        let time = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";
        let millis: i64 = self.committer.client.query_typed_one(time, &[]).await.map_err(|e| store(&e))?.get(0);
        let clock = AMQPValue::LongLongInt(millis);
        match publish(&self.job, self.claim.part, TICK, clock, &mut self.publisher).await {
            Ok(()) => self.job.meter.go_on("tick"),
            Err((reason, message)) => self.job.meter.hold("tick", &reason, &message),
        }
        Ok(())
    }
}

/// Compares what the stream holds with where reading goes on. A marker tells its end: one before that is of another stream than the
/// one that was read. A hole among offsets is normal; that the stream begins later is not.
async fn look_for_loss(
    job: &Job,
    leases: &Leases,
    client: &Client,
    claim: &mut Claim,
    hub: &Connection,
    publisher: &mut Publisher,
) -> Result<(), End> {
    // What is missing at the beginning shows with the first message.
    if claim.next_offset <= 0 {
        return Ok(());
    }
    let (stream, exchange) = (job.settings.stream_of(claim.part), &job.settings.exchange);
    reader::exists(hub, &stream).await?;
    let name = format!("{}/{}", job.revision, claim.epoch);
    publish(job, claim.part, PROBE, AMQPValue::LongString(name.as_str().into()), publisher)
        .await
        .map_err(|(reason, message)| End::Failed { reason, message })?;
    let first = reader::first(hub, &stream, exchange).await?;
    let last = reader::last(hub, &stream, exchange, &name, claim.next_offset).await?;
    let done = if last < claim.next_offset {
        tracing::warn!(partition = claim.part, "the stream was declared anew: it is read from its beginning");
        let done = leases.restart(client, claim).await;
        (claim.next_offset, claim.generation) = (0, claim.generation + 1);
        done
    } else if first > claim.next_offset {
        tracing::warn!(
            partition = claim.part,
            lost = first - claim.next_offset,
            "messages were gone before they were read"
        );
        let done = leases.lose(client, claim, first).await;
        claim.next_offset = first;
        done
    } else {
        Ok(true)
    };
    match done {
        Ok(true) => Ok(()),
        Ok(false) => Err(End::Fenced),
        Err(error) => Err(store(&error)),
    }
}

/// Publishes a marker into a partition.
async fn publish(
    job: &Job,
    part: i32,
    header: &str,
    value: AMQPValue,
    publisher: &mut Publisher,
) -> Result<(), (String, String)> {
    let mut headers = FieldTable::default();
    headers.insert(header.into(), value);
    let exchange = &job.settings.exchange;
    let outgoing = Outgoing {
        exchange,
        routing_key: format!("tick-{part}"),
        properties: BasicProperties::default().with_headers(headers),
        body: b"",
    };
    // A hub that takes nothing must not cost the lease.
    let most = job.settings.lease / 3;
    let Ok(receipts) = timeout(most, publisher.publish(&[outgoing])).await else {
        return Err(("Timeout".to_owned(), "the hub confirms nothing: it may be short of memory or disk".to_owned()));
    };
    match receipts.as_deref() {
        Ok([Receipt::Confirmed]) => Ok(()),
        Ok(_) => {
            let why = format!("exchange {exchange} routes key tick-{part} nowhere: bind the stream");
            Err(("Unroutable".to_owned(), why))
        }
        Err(error) => Err((error.reason().to_owned(), error.to_string())),
    }
}

/// The times of the keys of OVER; none where the query has no OVER.
async fn substreams(job: &Job, committer: &Committer, part: i32) -> Result<Option<HashMap<Vec<u8>, i64>>, Error> {
    if job.settings.plan.over.is_empty() {
        return Ok(None);
    }
    let select = job.sql("SELECT key, watermark FROM @.substream WHERE query = $1 AND revision = $2 AND part = $3");
    let rows = committer.client.query_typed(&select, &typed(&[&job.query, &job.revision, &part])).await?;
    Ok(Some(rows.iter().map(|row| (row.get(0), row.get(1))).collect()))
}
