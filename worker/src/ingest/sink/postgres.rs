//! A PostgreSQL sink: a batch a transaction, on a connection of the slot's own.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use drover_crds::api::PostgresSink;
use futures::future::{try_join, try_join_all};
use tokio_postgres::{
    Client,
    error::{Severity, SqlState},
    types::{ToSql, Type},
};

use super::{
    super::{
        clock,
        layout::{Group, Layout, Mode, Row},
        prepare::Item,
        reject::Rejection,
        sql,
    },
    Attempt, End, Failure, refusal,
};
use crate::store::{self, Fault, StoreAddress, table};

/// A table is looked at again after so long, so that a new column is noticed.
const FRESH: Duration = Duration::from_mins(1);

/// The table, as all slots see it.
#[derive(Debug)]
pub(crate) struct Table {
    sink: PostgresSink,
    address: StoreAddress,
    name: String,
    /// Rows go to a table of the connection's own that is made like it.
    preview: bool,
    layout: Mutex<Option<(Arc<Layout>, Instant)>>,
}

impl Table {
    pub(super) fn new(sink: PostgresSink, address: StoreAddress, name: String, preview: bool) -> Self {
        Self { sink, address, name, preview, layout: Mutex::new(None) }
    }

    fn known(&self) -> Option<Arc<Layout>> {
        let layout = self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = layout.as_ref().filter(|(_, at)| clock::now().duration_since(*at) < FRESH);
        fresh.map(|(layout, _)| Arc::clone(layout))
    }

    fn holding(&self, error: tokio_postgres::Error) -> Failure {
        let described = store::describe(&self.address.identity(), error);
        hold(described.reason.as_str(), described.message)
    }

    fn learn(&self, layout: Option<Arc<Layout>>) {
        let mut known = self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        *known = layout.map(|layout| (layout, clock::now()));
    }
}

/// Whether the table of a preview is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copied {
    No,
    Yes,
    /// The role may make no temporary table like it: that the statement is right must be enough.
    Refused,
}

/// A slot's connection.
#[derive(Debug)]
pub(crate) struct Writer {
    table: Arc<Table>,
    client: Option<Client>,
    copy: Copied,
    /// A commit was asked for, and nothing definite answered.
    committing: bool,
}

impl Writer {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self { table, client: None, copy: Copied::No, committing: false }
    }

    pub(super) fn abandon(&mut self) {
        self.client = None;
    }

    pub(super) fn in_doubt(&self) -> bool {
        self.committing
    }

    pub(super) async fn probe(&mut self) -> Result<(), Failure> {
        self.table.learn(None);
        self.layout().await.map(drop)
    }

    pub(super) async fn attempt(&mut self, items: &[&Item<'_>]) -> Attempt {
        self.committing = false;
        let layout = match self.layout().await {
            Ok(layout) => layout,
            Err(failure) => return Attempt::failed(failure),
        };
        let mut attempt = Attempt::default();
        let mut rows = Vec::with_capacity(items.len());
        for item in items {
            match rows_of(&layout, item) {
                Ok((of_item, unknown)) => {
                    rows.extend(of_item);
                    attempt.unknown_fields += unknown;
                }
                Err(rejection) => attempt.ends.push((item.message, End::Rejected(rejection))),
            }
        }
        match self.write(&layout, items, rows).await {
            Ok(found) => {
                let rejected: HashSet<usize> = attempt.ends.iter().map(|(message, _)| *message).collect();
                let others = items.iter().filter(|item| !rejected.contains(&item.message));
                attempt.ends.extend(others.map(|item| (item.message, found.end(item.message))));
            }
            Err(failure) => attempt.failure = Some(failure),
        }
        attempt
    }

    async fn client(&mut self) -> Result<&Client, Failure> {
        if self.client.as_ref().is_none_or(Client::is_closed) {
            let connected = store::connect(&self.table.address, &self.table.name).await;
            let client = connected.map_err(|e| hold(e.reason.as_str(), e.message))?;
            client.batch_execute(sql::PREPARE).await.map_err(|e| self.table.holding(e))?;
            (self.client, self.copy) = (Some(client), Copied::No);
        }
        Ok(self.client.as_ref().expect("connected above"))
    }

    async fn layout(&mut self) -> Result<Arc<Layout>, Failure> {
        if let Some(layout) = self.table.known() {
            return Ok(layout);
        }
        let table = Arc::clone(&self.table);
        let client = self.client().await?;
        let described = table::describe(client, &table.sink).await;
        let shape = described.and_then(|shape| shape.fits(&table.sink).map(|()| shape)).map_err(|problem| {
            self.client = None;
            hold(problem.reason.as_str(), problem.message)
        })?;
        let mut layout = Layout::new(&shape, &table.sink);
        if table.preview {
            layout = layout.into_copy(sql::name_of_copy(&shape));
            self.copy(&layout).await?;
        }
        let layout = Arc::new(layout);
        table.learn(Some(Arc::clone(&layout)));
        Ok(layout)
    }

    /// Shows that the real table takes the statement, and makes a table like it for this connection alone.
    async fn copy(&mut self, layout: &Layout) -> Result<(), Failure> {
        let table = Arc::clone(&self.table);
        let client = self.client().await?;
        let all: Vec<usize> = (0..layout.columns.len()).collect();
        let nothing: Vec<Vec<Option<&str>>> = vec![Vec::new(); all.len()];
        if let Err(error) = client.query_typed(&sql::explain(layout, &all), &parameters(&nothing)).await {
            self.client = None;
            return Err(table.holding(error));
        }
        self.copy = match client.batch_execute(&sql::copy(layout)).await {
            Ok(()) => Copied::Yes,
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Copied::Refused,
            Err(error) => {
                self.client = None;
                return Err(table.holding(error));
            }
        };
        Ok(())
    }

    /// Writes rows in one transaction; what is in the way of one message only is found without the others' noticing.
    async fn write(&mut self, layout: &Layout, items: &[&Item<'_>], mut rows: Vec<Row<'_>>) -> Result<Found, Failure> {
        let mut found = Found::default();
        if rows.is_empty() {
            return Ok(found);
        }
        let first: HashSet<usize> = items.iter().filter(|item| item.first).map(|item| item.message).collect();
        self.client().await?;
        if self.table.preview && self.copy == Copied::No {
            self.copy(layout).await?;
        }
        if self.copy == Copied::Refused {
            return Ok(found);
        }
        let client = self.client.as_ref().expect("connected above");
        let result = loop {
            match transaction(client, layout, &rows, &first, &mut found).await {
                Ok(Ended::Committable) => break commit(client, &mut self.committing).await,
                // Other rows of theirs are not to be written either.
                Ok(Ended::WithoutReused) => rows.retain(|row| !found.reused.contains(&row.message)),
                Err(error) => break Err(error),
            }
            if rows.is_empty() {
                break Ok(());
            }
        };
        match result {
            Ok(()) => Ok(found),
            Err(error) => Err(self.failed(error).await),
        }
    }

    async fn failed(&mut self, error: tokio_postgres::Error) -> Failure {
        let fault = Fault::of(&error);
        if let Some(client) = &self.client
            && (client.is_closed() || client.batch_execute("ROLLBACK").await.is_err())
        {
            self.client = None;
        }
        match (fault, error.as_db_error()) {
            (Fault::Content, Some(refused)) => {
                let (rejection, likeness) = refusal::of(refused);
                Failure::Content { rejection, likeness }
            }
            (Fault::Retry, Some(refused)) => Failure::Retry { message: refused.message().to_owned() },
            _ => {
                // The table may be another one by now, and a connection keeps what it began with, such as being read-only.
                self.table.learn(None);
                self.client = None;
                self.table.holding(error)
            }
        }
    }
}

fn hold(reason: &str, message: String) -> Failure {
    Failure::Hold { reason: reason.to_owned(), message }
}

fn rows_of<'a>(layout: &Layout, item: &'a Item<'_>) -> Result<(Vec<Row<'a>>, u64), Rejection> {
    let mut unknown = 0;
    let mut rows = Vec::with_capacity(item.rows.len());
    for (n, (_, fields)) in item.rows.iter().enumerate() {
        let (row, more) = layout.row(item.message, fields, item.row_id(n))?;
        rows.push(row);
        unknown += more;
    }
    Ok((rows, unknown))
}

/// Messages whose rows were not all new.
#[derive(Debug, Default)]
struct Found {
    repeated: HashSet<usize>,
    reused: HashSet<usize>,
    /// Ids that this transaction wrote, of the rows looked at so far.
    ours: HashSet<String>,
}

impl Found {
    fn end(&self, message: usize) -> End {
        if self.reused.contains(&message) {
            let why = "another message with this id is in the table, and it says something else";
            End::Rejected(Rejection::sink("IdReused", why))
        } else if self.repeated.contains(&message) {
            End::Repeated
        } else {
            End::Written
        }
    }
}

enum Ended {
    /// All of it waits for the commit.
    Committable,
    /// Nothing is written: rows of messages with a used id must not be.
    WithoutReused,
}

async fn transaction(
    client: &Client,
    layout: &Layout,
    rows: &[Row<'_>],
    first: &HashSet<usize>,
    found: &mut Found,
) -> Result<Ended, tokio_postgres::Error> {
    let groups = layout.groups(rows);
    let begin = sql::begin(layout);
    // All of it is on its way before the first answer.
    let inserts = groups.iter().map(|group| insert(client, layout, rows, group));
    let ((), inserted) = try_join(client.batch_execute(&begin), try_join_all(inserts)).await?;
    if let Mode::Append { id: Some(id) } = layout.mode {
        let mut partly = false;
        if inserted.iter().sum::<u64>() < rows.len() as u64 {
            // A row may stand in another group's way, so each group says in turn what it wrote.
            found.ours.clear();
            for group in &groups {
                partly |= look(client, layout, rows, group, id, first, found).await?;
            }
        }
        if partly {
            client.batch_execute("ROLLBACK").await?;
            return Ok(Ended::WithoutReused);
        }
    }
    Ok(Ended::Committable)
}

/// Commits. `committing` stays set where no answer says whether that was done, and where nobody waits for it any more.
async fn commit(client: &Client, committing: &mut bool) -> Result<(), tokio_postgres::Error> {
    *committing = true;
    let committed = client.batch_execute("COMMIT").await;
    *committing = committed.as_ref().is_err_and(|error| !is_definite(error));
    committed
}

/// An error ends the transaction without a trace; what ends the connection may come after the commit.
fn is_definite(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|refused| refused.parsed_severity() == Some(Severity::Error))
}

async fn insert(
    client: &Client,
    layout: &Layout,
    rows: &[Row<'_>],
    group: &Group,
) -> Result<u64, tokio_postgres::Error> {
    let statement = sql::write(layout, &layout.table, &group.columns);
    let columns = columns(rows, group);
    client.execute_typed(&statement, &parameters(&columns)).await
}

fn columns<'r>(rows: &'r [Row<'_>], group: &Group) -> Vec<Vec<Option<&'r str>>> {
    group.columns.iter().map(|c| group.rows.iter().map(|n| rows[*n].cells[*c].as_text()).collect()).collect()
}

fn parameters<'p>(columns: &'p [Vec<Option<&str>>]) -> Vec<(&'p (dyn ToSql + Sync), Type)> {
    columns.iter().map(|column| (column as &(dyn ToSql + Sync), Type::TEXT_ARRAY)).collect()
}

/// Finds out why rows were not inserted. True where a message with a used id has other rows beside.
async fn look(
    client: &Client,
    layout: &Layout,
    rows: &[Row<'_>],
    group: &Group,
    id: usize,
    first: &HashSet<usize>,
    found: &mut Found,
) -> Result<bool, tokio_postgres::Error> {
    let columns = columns(rows, group);
    let statement = sql::look(layout, &group.columns, id);
    let mut partly = false;
    for answer in client.query_typed(&statement, &parameters(&columns)).await? {
        let n: i64 = answer.get(0);
        let row = &rows[group.rows[usize::try_from(n - 1).unwrap_or(0)]];
        let (there, is_ours, same): (Option<String>, Option<bool>, bool) =
            (answer.get(1), answer.get(2), answer.get(3));
        // Of rows of one id in a batch the first is the one that was written.
        if is_ours == Some(true) && there.clone().is_some_and(|id| found.ours.insert(id)) {
            continue;
        }
        if there.is_some() && !same && first.contains(&row.message) {
            found.reused.insert(row.message);
            partly |= rows.iter().filter(|other| other.message == row.message).count() > 1;
        } else {
            found.repeated.insert(row.message);
        }
    }
    Ok(partly)
}
