//! A query's store and hub, put in order: tables, then streams, then the partitions' rows, then what is routed into the streams. Declaring
//! is observing: what is there already stays as it is. Each look is made in a task of its own, so a store or hub that is slow holds up
//! nobody.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use drover_crds::query::{Plan, StepKind, TICKS_PER_SECOND};
use drover_worker::{
    store::{self, StoreAddress},
    stream::schema::{self, SchemaError, State},
};
use tokio_postgres::Client;

use super::verdict;
use crate::{
    audit::{Cause, Verb},
    hub::{Hub, Streams},
    probe::Probe,
    problem::{External, Problem},
};

/// What is younger than this was seen just now.
const FRESH: Duration = Duration::from_secs(1);
/// A store that is connected and does not answer within this is as good as gone.
const PATIENCE: Duration = Duration::from_secs(20);
/// From one version to the next takes a few steps; each is looked at again.
const STEPS: usize = 6;
/// A version that is to take over may be that far behind the one before, in ticks: what it lacks, rows wait for.
const CLOSE_BEHIND: i64 = 5 * TICKS_PER_SECOND;

/// What is to be put in order.
#[derive(Debug, Clone)]
pub struct Task {
    /// The hub.
    pub hub: Arc<Hub>,
    /// What it is to have.
    pub streams: Streams,
    /// Where the state is.
    pub store: StoreAddress,
    /// Schema of its tables.
    pub schema: String,
    /// The cluster that has the schema, where it is known by a name.
    pub cluster: Option<String>,
    /// The query's name in the tables.
    pub query: String,
    /// The version of the state that the spec asks for.
    pub state: String,
    /// What it computes.
    pub plan: Plan,
    /// The streams hold a whole window of what a version that begins now would read.
    pub holds_a_window: bool,
    /// Versions that something in the cluster works on.
    pub inhabited: BTreeSet<String>,
    /// The request of a person that the version takes over whatever is said of it.
    pub promoted: Option<String>,
    /// On whose behalf.
    pub cause: Cause,
}

/// What was seen of both.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The rows of the query.
    pub store: External<State>,
    /// Its streams; not looked at where the store cannot be read.
    pub hub: External<HubFacts>,
}

/// What the hub says of a query's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubFacts {
    /// Messages in the dead-letter queue.
    pub dead: u32,
    /// Streams that get messages.
    pub routed: usize,
}

/// Of each query, by its UID.
#[derive(Debug, Default)]
pub struct Outsides {
    looks: Mutex<HashMap<String, Look>>,
}

/// A connection that is kept from one look to the next, with what it was made for. Looks of one query follow each other, also when a new
/// one begins before the one before has ended: what they do is told from what they have read.
type Kept = Arc<tokio::sync::Mutex<Option<(String, Client)>>>;

/// Another task is another look.
#[derive(Debug, Default)]
struct Look {
    what: String,
    probe: Arc<Probe<Seen>>,
    client: Kept,
}

impl Outsides {
    /// Puts in order what is to be, and tells what was seen.
    pub async fn ensure(&self, owner: &str, task: Task) -> Seen {
        let Task {
            hub,
            streams,
            store,
            schema,
            cluster,
            query,
            state,
            plan,
            holds_a_window,
            inhabited,
            promoted,
            cause: _,
        } = &task;
        let what = format!(
            "{} {streams:?} {store:?} {schema} {cluster:?} {query} {state} {plan:?} {holds_a_window} {inhabited:?} {promoted:?}",
            hub.name()
        );
        let (probe, client) = {
            let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
            let look = looks.entry(owner.to_owned()).or_default();
            if look.what != what {
                *look = Look { what, client: Arc::clone(&look.client), ..Look::default() };
            }
            (Arc::clone(&look.probe), Arc::clone(&look.client))
        };
        let seen = probe.ask(|_| FRESH, || look(task, client)).await;
        seen.unwrap_or_else(|| Seen {
            store: External::Problem(Problem::new("Connecting", "store: it has not answered yet")),
            hub: External::Unseen,
        })
    }

    pub(super) fn forget(&self, owner: &str) {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).remove(owner);
    }
}

async fn look(task: Task, kept: Kept) -> Seen {
    let mut kept = kept.lock().await;
    let seen = tokio::time::timeout(PATIENCE, put_in_order(&task, &mut kept)).await;
    let seen = seen
        .unwrap_or_else(|_| Err(Problem::new("Timeout", format!("store: no answer within {} s", PATIENCE.as_secs()))));
    seen.unwrap_or_else(|problem| {
        // Whatever was wrong with it, the next look begins anew.
        *kept = None;
        Seen { store: External::Problem(problem), hub: External::Unseen }
    })
}

/// The store's problems are errors here, the hub's are facts.
async fn put_in_order(task: &Task, kept: &mut Option<(String, Client)>) -> Result<Seen, Problem> {
    let made_for = format!("{:?} {} {:?}", task.store, task.schema, task.cluster);
    if kept.as_ref().is_none_or(|(known, client)| *known != made_for || client.is_closed()) {
        let client = connect(&task.store).await?;
        schema::migrate(&client, &task.schema, task.cluster.as_deref()).await.map_err(|e| told(&e))?;
        *kept = Some((made_for, client));
    }
    let (_, client) = kept.as_ref().expect("connected above");
    let before = schema::look(client, &task.schema, &task.query).await.map_err(|e| told(&e))?;
    let found = match task.hub.survey(&task.streams, &task.cause).await {
        Ok(found) => found,
        Err(problem) => return Ok(Seen { store: External::Fine(before), hub: External::Problem(problem) }),
    };
    for lost in before.partitions.iter().filter(|p| found.missing.iter().any(|part| i32::from(*part) == p.part)) {
        // First the rows, then the stream: nobody reads another stream as if it were this.
        schema::gone(client, &task.schema, &task.query, lost).await.map_err(|e| told(&e))?;
    }
    if let Err(problem) = task.hub.make_streams(&task.streams, &found, &task.cause).await {
        return Ok(Seen { store: External::Fine(before), hub: External::Problem(problem) });
    }
    if !found.missing.is_empty() || before.partitions.iter().any(|p| p.gone) {
        schema::restored(client, &task.schema, &task.query).await.map_err(|e| told(&e))?;
    }
    let state = advance(client, task, &found.missing).await.map_err(|e| told(&e))?;
    let routed = with_rows(&state);
    let hub = match task.hub.route(&task.streams, routed, &task.cause).await {
        Ok(()) => External::Fine(HubFacts { dead: found.dead, routed }),
        Err(problem) => External::Problem(problem),
    };
    Ok(Seen { store: External::Fine(state), hub })
}

/// A connection to a store, on which nothing takes for ever.
pub(super) async fn connect(address: &StoreAddress) -> Result<Client, Problem> {
    let client = store::connect(address, "drover-operator").await;
    let client = client.map_err(|e| Problem::new(e.reason.as_str(), format!("store: {}", e.message)))?;
    let limits =
        "SET statement_timeout = 10000; SET idle_in_transaction_session_timeout = 10000; SET lock_timeout = 5000;
        SET client_min_messages = warning";
    let limited = client.batch_execute(limits).await;
    limited.map_err(|e| {
        Problem::new("ConnectionLost", format!("store: {}", store::describe(&address.identity(), e).message))
    })?;
    Ok(client)
}

pub(super) fn told(error: &SchemaError) -> Problem {
    let hint = match error {
        SchemaError::OtherCluster { .. } => {
            ". If that cluster is gone and this one takes its place, install the operator with its clusterId"
        }
        _ => "",
    };
    Problem::new(error.reason(), format!("store: {error}{hint}"))
}

/// Partitions that have rows in every version: messages may be routed into their streams.
fn with_rows(state: &State) -> usize {
    let of = |revision: &String| state.partitions.iter().filter(|p| p.revision == *revision).count();
    state.revisions.iter().map(of).min().unwrap_or(0)
}

/// Takes the state towards the version that is asked for, as far as it goes now.
async fn advance(client: &Client, task: &Task, made: &[u16]) -> Result<State, SchemaError> {
    let Task { schema, query, state: wanted, .. } = task;
    let partitions = task.streams.streams.len();
    for _ in 0..STEPS {
        let state = schema::look(client, schema, query).await?;
        let Some(step) = next(&state, wanted, &task.inhabited, partitions) else { return Ok(state) };
        let (verb, version) = match &step {
            Step::Begin => (Verb::Create, wanted.clone()),
            Step::Stage(_) | Step::HandOver(_) => (Verb::Apply, wanted.clone()),
            Step::Finish(old) => (Verb::Delete, old.clone()),
        };
        let cause = match (&step, &task.promoted) {
            (Step::HandOver(_), Some(id)) => task.cause.because("a person asked by annotation").asked(Some(id)),
            _ => task.cause.clone(),
        };
        let done = match step {
            Step::Begin => {
                let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
                let fresh: Vec<i32> = made.iter().copied().map(i32::from).collect();
                let windows = windows(&task.plan);
                schema::begin(client, schema, (query, wanted), partitions, &fresh, &windows).await.map(|()| true)
            }
            Step::Stage(old) => schema::stage(client, schema, query, &old, wanted).await,
            // Without a whole window in the streams the new version has to wait until it has seen one.
            Step::HandOver(_) if !task.holds_a_window => Ok(false),
            Step::HandOver(old) if task.promoted.is_none() && verdict::refusal(&state, &old, wanted).is_some() => {
                Ok(false)
            }
            Step::HandOver(old) => schema::hand_over(client, schema, query, &old, wanted)
                .await
                .map(|drawn| matches!(drawn, schema::Boundary::At(_))),
            Step::Finish(old) => schema::finish(client, schema, query, &old).await.map(|()| true),
        };
        if !done? {
            return Ok(state);
        }
        cause.done(verb, "version of the state", &version);
    }
    schema::look(client, schema, query).await
}

/// The windows of a plan, by step and place, as the rows that closers lock have them.
fn windows(plan: &Plan) -> Vec<(i32, i32)> {
    let places = |(step, kind): (i32, &StepKind)| match kind {
        StepKind::Project(_) => Vec::new(),
        StepKind::Group(group) => (0..).zip(&group.windows).map(|(place, _)| (step, place)).collect(),
    };
    (0..).zip(plan.steps.iter().map(|s| &s.kind)).flat_map(places).collect()
}

/// One step towards the version that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Makes the rows that are missing.
    Begin,
    /// Says that a version goes on emitting while the wanted one begins.
    Stage(String),
    /// Draws the boundary from which on the wanted version emits.
    HandOver(String),
    /// Takes away a version that has nothing left to do.
    Finish(String),
}

/// What is to be done next; `None` where all is done, or something is awaited.
fn next(state: &State, wanted: &str, inhabited: &BTreeSet<String>, partitions: usize) -> Option<Step> {
    let Some(emitter) = state.emitter() else { return Some(Step::Begin) };
    let emission = state.emission.as_ref();
    let ends = |r: &str| emission.is_some_and(|e| e.at.is_some() && e.old == r && !e.passed);
    let gone = |r: &&String| *r != emitter && *r != wanted && !ends(r) && !inhabited.contains(*r);
    if let Some(gone) = state.revisions.iter().find(gone) {
        return Some(Step::Finish(gone.clone()));
    }
    let rows = state.partitions.iter().filter(|p| p.revision == wanted).count();
    if wanted == emitter {
        // One thing at a time: what is added is added to one version.
        return (rows < partitions && state.revisions.len() <= 1).then_some(Step::Begin);
    }
    if !emission.is_some_and(|e| e.at.is_none() && e.new == wanted) {
        return Some(Step::Stage(emitter.to_owned()));
    }
    if rows < partitions {
        return Some(Step::Begin);
    }
    has_caught_up(state, emitter, wanted).then(|| Step::HandOver(emitter.to_owned()))
}

/// True if a version has read as far as the one before it, or nearly so, in each partition.
pub(super) fn has_caught_up(state: &State, old: &str, new: &str) -> bool {
    let of = |revision| state.partitions.iter().filter(move |p| p.revision == revision);
    of(old).all(|o| {
        let behind = |n: i64| o.read_at.is_none_or(|o| n.saturating_add(CLOSE_BEHIND) >= o);
        of(new).any(|n| n.part == o.part && n.read_at.is_some_and(behind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use drover_worker::stream::schema::{Emission, Partition};

    fn partition(revision: &str, read_at: Option<i64>) -> Partition {
        Partition {
            revision: revision.to_owned(),
            part: 0,
            generation: 0,
            next_offset: 0,
            gone: false,
            taken: 0,
            dead_lettered: 0,
            read_at,
            lost: 0,
            lost_at: None,
            without_arrival: 0,
            skipped: 0,
        }
    }

    /// Versions that have read up to now, and who emits up to where.
    fn state(revisions: &[&str], emission: Option<(&str, &str, Option<i64>, bool)>) -> State {
        State {
            revisions: revisions.iter().map(|r| (*r).to_owned()).collect(),
            emission: emission.map(|(old, new, at, passed)| Emission {
                old: old.to_owned(),
                new: new.to_owned(),
                at,
                passed,
            }),
            partitions: revisions.iter().map(|r| partition(r, Some(0))).collect(),
            open: false,
        }
    }

    fn step(state: &State, wanted: &str, inhabited: &[&str]) -> Option<Step> {
        next(state, wanted, &inhabited.iter().map(|s| (*s).to_owned()).collect(), 1)
    }

    #[test]
    fn a_query_begins_and_then_there_is_nothing_to_do() {
        assert_eq!(step(&State::default(), "a", &[]), Some(Step::Begin));
        assert_eq!(step(&state(&["a"], None), "a", &["a"]), None);
        assert_eq!(next(&state(&["a"], None), "a", &BTreeSet::new(), 2), Some(Step::Begin), "partitions grow");
    }

    #[test]
    fn a_new_version_is_staged_before_it_begins_and_takes_over_once_it_has_caught_up() {
        assert_eq!(step(&state(&["a"], None), "b", &["a"]), Some(Step::Stage("a".to_owned())));
        let staged = Some(("a", "b", None, false));
        assert_eq!(step(&state(&["a"], staged), "b", &["a"]), Some(Step::Begin));
        assert_eq!(step(&state(&["a", "b"], staged), "b", &["a", "b"]), Some(Step::HandOver("a".to_owned())));
        let mut behind = state(&["a", "b"], staged);
        behind.partitions[0].read_at = Some(CLOSE_BEHIND + 1);
        assert_eq!(step(&behind, "b", &["a", "b"]), None);
        behind.partitions[1].read_at = None;
        assert_eq!(step(&behind, "b", &["a", "b"]), None);
    }

    #[test]
    fn the_old_version_goes_once_it_is_past_the_boundary_and_nobody_works_on_it() {
        let drawn = |passed| state(&["a", "b"], Some(("a", "b", Some(7), passed)));
        assert_eq!(step(&drawn(false), "b", &["b"]), None, "it has ends left to emit");
        assert_eq!(step(&drawn(true), "b", &["a", "b"]), None, "its workers end first");
        assert_eq!(step(&drawn(true), "b", &["b"]), Some(Step::Finish("a".to_owned())));
        assert_eq!(step(&state(&["b"], Some(("", "b", Some(7), true))), "b", &["b"]), None);
    }

    #[test]
    fn a_change_of_mind_gives_up_what_was_staged() {
        let staged = state(&["a", "b"], Some(("a", "b", None, false)));
        assert_eq!(step(&staged, "a", &["a", "b"]), None, "the old one emits as before");
        assert_eq!(step(&staged, "a", &["a"]), Some(Step::Finish("b".to_owned())));
        assert_eq!(step(&staged, "c", &["a", "b"]), Some(Step::Stage("a".to_owned())));
    }

    #[test]
    fn rolling_back_is_the_same_move() {
        let drawn = state(&["a", "b"], Some(("a", "b", Some(7), true)));
        assert_eq!(step(&drawn, "a", &["a", "b"]), Some(Step::Stage("b".to_owned())));
        let staged = state(&["a", "b"], Some(("b", "a", None, false)));
        assert_eq!(step(&staged, "a", &["a", "b"]), Some(Step::HandOver("b".to_owned())));
    }

    #[test]
    fn messages_are_routed_only_where_every_version_has_a_row() {
        let mut both = state(&["a", "b"], Some(("a", "b", None, false)));
        both.partitions.push(Partition { part: 1, ..partition("b", None) });
        assert_eq!(with_rows(&both), 1);
        assert_eq!(with_rows(&State::default()), 0);
    }
}
