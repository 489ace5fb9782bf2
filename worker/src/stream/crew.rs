//! Which partitions this worker holds: it says that it lives, takes its fair share, sets free what is more, and starts again what failed.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use drover_crds::query::TICKS_PER_MILLISECOND;
use lapin::Connection;
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::timeout,
};
use tokio_postgres::{Client, Error, Row};
use tokio_util::sync::CancellationToken;

use super::{
    emit::Targets,
    job::Job,
    lease::{Claim, Leases},
    partials::small,
    partition::{End, Partition},
    schema,
    status::{PartitionStatus, QueryStatus},
};
use crate::{
    hub,
    ingest::{
        backoff::Backoff,
        publisher::{Link, Publisher},
    },
    store::{self, StoreReason, typed::typed},
};

/// Between two looks at who lives.
const ROUND: Duration = Duration::from_secs(1);
/// Time to close a connection in.
const CLOSE: Duration = Duration::from_secs(2);

/// Why a round could not be.
struct Trouble {
    stage: &'static str,
    reason: String,
    message: String,
}

/// A partition's task.
struct Member {
    id: Id,
    stop: CancellationToken,
}

/// The partitions of this worker.
pub(crate) struct Crew {
    job: Arc<Job>,
    leases: Leases,
    link: Arc<Link>,
    store: Option<Client>,
    hub: Option<Arc<Connection>>,
    begun: bool,
    members: HashMap<i32, Member>,
    tasks: JoinSet<End>,
    /// Partitions whose work ended by a panic.
    panicked: Vec<i32>,
}

impl Crew {
    pub(crate) fn new(job: Arc<Job>, leases: Leases, link: Arc<Link>) -> Self {
        Self {
            job,
            leases,
            link,
            store: None,
            hub: None,
            begun: false,
            members: HashMap::new(),
            tasks: JoinSet::new(),
            panicked: Vec::new(),
        }
    }

    /// Works until it is asked to end, and then for at most the grace period.
    pub(crate) async fn run(mut self, draining: &CancellationToken) {
        let mut backoff = Backoff::default();
        while !draining.is_cancelled() {
            let round = tokio::select! {
                round = self.round() => round,
                () = draining.cancelled() => break,
            };
            let wait = match round {
                Ok(()) => {
                    backoff.reset();
                    ROUND
                }
                Err(trouble) => {
                    self.job.meter.ready.store(false, Relaxed);
                    self.job.meter.hold(trouble.stage, &trouble.reason, &trouble.message);
                    backoff.next()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = draining.cancelled() => {}
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
            }
        }
        let grace = self.job.settings.grace;
        let _ = timeout(grace, self.leave()).await;
    }

    async fn leave(&mut self) {
        self.members.values().for_each(|m| m.stop.cancel());
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.ended(ended);
        }
        if let Some(client) = &self.store {
            // The round that was given up may have left a transaction open. The lease of whoever cannot say it ends by itself.
            let _ = client.batch_execute("ROLLBACK").await;
            let _ = self.leases.leave(client, &self.panicked).await;
        }
        if let Some(connection) = self.hub.take() {
            let _ = timeout(CLOSE, connection.close(200, "done".into())).await;
        }
    }

    fn ended(&mut self, ended: Result<(Id, End), JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let part = self.members.iter().find(|(_, m)| m.id == id).map(|(part, _)| *part);
        let Some(part) = part else { return };
        self.members.remove(&part);
        match ended {
            Ok((_, End::Failed { reason, message })) => {
                self.job.meter.hold("partition", &reason, &format!("partition {part}: {message}"));
            }
            Ok((_, end)) => tracing::debug!(partition = part, ?end, "the work on a partition ended"),
            Err(error) => {
                tracing::error!(partition = part, "the work on a partition ended by a panic: {error}");
                self.panicked.push(part);
            }
        }
    }

    /// One look: who lives, what is ours, and what is to be started or ended.
    async fn round(&mut self) -> Result<(), Trouble> {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.ended(ended);
        }
        self.connect().await?;
        self.begin().await?;
        let client = self.store.as_ref().expect("connected above");
        let share = self.leases.heartbeat(client).await;
        let share = self.of_store(share)?;
        self.give_back(share);
        self.claim(share).await?;
        let client = self.store.as_ref().expect("connected above");
        let facts = facts(client, &self.job, self.members.keys().copied().collect()).await;
        let facts = self.of_store(facts)?;
        self.job.meter.saw(facts);
        self.job.meter.ready.store(true, Relaxed);
        Ok(())
    }

    /// A statement's answer; a connection that gave none is given up.
    fn of_store<T>(&mut self, result: Result<T, Error>) -> Result<T, Trouble> {
        result.map_err(|error| {
            self.store = None;
            let described = store::describe(&self.job.settings.store.identity(), error);
            if matches!(described.reason, StoreReason::TableNotFound | StoreReason::ColumnNotFound) {
                self.begun = false;
            }
            Trouble { stage: "store", reason: described.reason.as_str().to_owned(), message: described.message }
        })
    }

    async fn connect(&mut self) -> Result<(), Trouble> {
        if self.store.as_ref().is_none_or(Client::is_closed) {
            let connected = self.job.connect().await.map_err(|e| Trouble {
                stage: "store",
                reason: e.reason.as_str().to_owned(),
                message: e.message,
            })?;
            self.store = Some(connected);
        }
        if !self.hub.as_ref().is_some_and(|c| c.status().connected()) {
            self.job.meter.connected.store(false, Relaxed);
            let connected = hub::connect(&self.job.settings.hub, &self.job.connection_name).await;
            let connected = connected.map_err(|e| Trouble {
                stage: "hub",
                reason: e.reason.as_str().to_owned(),
                message: e.message,
            })?;
            self.hub = Some(Arc::new(connected));
            self.job.meter.connected.store(true, Relaxed);
            self.job.meter.go_on("hub");
        }
        Ok(())
    }

    /// Makes what is missing of the tables, once; looks up the tables of results, whenever that is in doubt.
    async fn begin(&mut self) -> Result<(), Trouble> {
        let job = Arc::clone(&self.job);
        let client = self.store.as_ref().expect("connected before");
        if !self.begun {
            let settings = &job.settings;
            let windows: Vec<(i32, i32)> = job.windows().into_iter().map(|(s, w, _)| (small(s), small(w))).collect();
            let made = schema::migrate(client, &settings.schema, None).await;
            let begun = match made {
                Ok(()) => {
                    let names = (job.query.as_str(), job.revision.as_str());
                    schema::begin(client, &settings.schema, names, settings.partitions, &[], &windows).await
                }
                refused => refused,
            };
            begun.map_err(|e| Trouble { stage: "store", reason: e.reason().to_owned(), message: e.to_string() })?;
            self.begun = true;
        }
        if job.targets().is_none() {
            let targets = Targets::ready(client, &job).await;
            job.aim(Some(targets.map_err(|e| Trouble {
                stage: "store",
                reason: e.reason().to_owned(),
                message: e.to_string(),
            })?));
        }
        job.meter.go_on("store");
        Ok(())
    }

    /// Ends the work on what is more than the share; others take it when it is free.
    fn give_back(&mut self, share: usize) {
        let mut parts: Vec<i32> = self.members.keys().copied().collect();
        parts.sort_unstable();
        for part in parts.into_iter().skip(share) {
            self.members[&part].stop.cancel();
        }
    }

    async fn claim(&mut self, share: usize) -> Result<(), Trouble> {
        let held: Vec<i32> = self.members.keys().copied().collect();
        if held.len() >= share {
            return Ok(());
        }
        let client = self.store.as_ref().expect("connected before");
        let claims = self.leases.claim(client, share - held.len(), &held, &self.panicked).await;
        for claim in self.of_store(claims)? {
            self.panicked.retain(|part| *part != claim.part);
            self.start(claim);
        }
        Ok(())
    }

    fn start(&mut self, claim: Claim) {
        let hub = Arc::clone(self.hub.as_ref().expect("connected before"));
        let (job, leases, stop) = (Arc::clone(&self.job), self.leases.clone(), CancellationToken::new());
        let publisher = Publisher::new(Arc::clone(&self.link));
        let (part, stopping) = (claim.part, stop.clone());
        tracing::info!(partition = part, offset = claim.next_offset, epoch = claim.epoch, "claimed");
        let handle = self.tasks.spawn(async move {
            match Partition::open(job, leases, claim, hub, publisher).await {
                Ok(partition) => partition.run(stopping).await,
                Err(end) => end,
            }
        });
        self.members.insert(part, Member { id: handle.id(), stop });
    }
}

/// What the store knows of the query.
async fn facts(client: &Client, job: &Job, mut held: Vec<i32>) -> Result<QueryStatus, Error> {
    held.sort_unstable();
    let partitions = job.sql(
        "SELECT part, generation, GREATEST(next_offset, 0), watermark, read_at, stalled_claims, on_time, adjusted, dropped, dead_lettered,
             without_arrival, skipped, lost, floor(extract(epoch FROM lost_at))::bigint
         FROM @.partition WHERE query = $1 AND revision = $2 ORDER BY part",
    );
    let rows = client.query_typed(&partitions, &typed(&[&job.query, &job.revision])).await?;
    let waiting = job.sql(
        "SELECT EXISTS (SELECT FROM @.partial WHERE query = $1 AND revision = $2),
             (SELECT count(*) FROM @.dead_letter WHERE query = $1), (SELECT count(*) FROM @.outbox WHERE query = $1)",
    );
    let waiting = client.query_typed_one(&waiting, &typed(&[&job.query, &job.revision])).await?;
    Ok(QueryStatus {
        held,
        partitions: rows.iter().map(partition).collect(),
        open: waiting.get(0),
        dead_letters_waiting: waiting.get(1),
        rows_waiting: waiting.get(2),
        ..QueryStatus::default()
    })
}

fn partition(row: &Row) -> PartitionStatus {
    let millis =
        |n: usize| row.get::<_, Option<i64>>(n).filter(|t| *t != i64::MIN).map(|t| t.div_euclid(TICKS_PER_MILLISECOND));
    PartitionStatus {
        partition: row.get(0),
        generation: row.get(1),
        next_offset: row.get(2),
        watermark_millis: millis(3),
        read_at_millis: millis(4),
        stalled_claims: row.get(5),
        on_time: row.get(6),
        adjusted: row.get(7),
        dropped: row.get(8),
        dead_lettered: row.get(9),
        without_arrival: row.get(10),
        skipped: row.get(11),
        lost: row.get(12),
        lost_at_seconds: row.get(13),
    }
}
