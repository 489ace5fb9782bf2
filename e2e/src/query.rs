//! Window queries: what tests apply and publish, and what must then be in the table.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::WindowQuery;
use drover_worker::stream::ARRIVAL;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::cluster::is_ready;
use crate::trial::Trial;
use crate::until::until;

/// Streams declared, tables made, a pod started, partitions claimed, on a machine that does the same for others.
pub const STARTED: Duration = Duration::from_secs(10);

/// The last window's end, the tolerance of late events, a tick, and the closing.
pub const CLOSED: Duration = Duration::from_secs(12);

/// The name of the query, its streams and its table, where a test has one.
pub const COUNTS: &str = "counts";

/// Length of a window, in milliseconds.
const WINDOW: i64 = 2_000;
/// Between two events.
const PAUSE: Duration = Duration::from_millis(25);

/// Counts by key in windows of two seconds, with a text of its own in each row.
#[must_use]
pub fn text(marker: &str) -> String {
    format!(
        "SELECT '{marker}' AS text, k, System.Timestamp() AS w, COUNT(*) AS c FROM input GROUP BY k, TUMBLINGWINDOW(second, 2)"
    )
}

/// A query from `events.#` through four streams to the table of its name.
#[must_use]
pub fn manifest(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "hub": { "secretRef": { "name": "hub" } },
            "input": {
                "stream": name, "partitions": 4,
                "bindings": [{ "exchange": "amq.topic", "routingKey": "events.#" }],
            },
            "query": text("first"),
            "store": { "postgres": { "secretRef": { "name": "warehouse" } } },
            "sink": { "postgres": { "secretRef": { "name": "warehouse" }, "table": name } },
            // Who tests scaling says so.
            "scaling": { "mode": "Off" },
        },
    })
}

/// A condition of a query.
#[must_use]
pub fn condition<'a>(query: &'a WindowQuery, kind: &str) -> Option<&'a Condition> {
    query.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind)
}

/// All that a query tells, in one line.
#[must_use]
pub fn told(query: &WindowQuery) -> String {
    let status = query.status.clone().unwrap_or_default();
    let conditions: Vec<_> =
        status.conditions.iter().map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message)).collect();
    format!("{:?} [{}]", status.phase, conditions.join(", "))
}

/// Its status is that of its present spec.
pub fn is_current(query: &WindowQuery) -> Result<()> {
    let observed = query.status.as_ref().and_then(|status| status.observed_generation);
    ensure!(observed == query.metadata.generation, "its status is of an older generation: {}", told(query));
    Ok(())
}

/// What was published: events by the end of their window, in milliseconds since 1970, and key.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Published(BTreeMap<(i64, String), i64>);

#[expect(clippy::disallowed_methods, reason = "events of a test are of now")]
fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl Published {
    /// Of both.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (at, count) in other.0 {
            *self.0.entry(at).or_default() += count;
        }
        self
    }

    /// Events.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.0.values().sum()
    }
}

impl Trial {
    /// Lets the workers' role make the tables of state and of results, as a query needs it.
    pub async fn query_store(&self) -> Result<()> {
        let worker = &self.store.worker;
        self.store.admin.run(&format!("create schema drover authorization {worker}")).await?;
        self.store.admin.run(&format!("grant create on schema public to {worker}")).await
    }

    /// Makes room in the store, applies a query and waits until it is ready.
    pub async fn query(&self, manifest: &Value) -> Result<WindowQuery> {
        self.query_store().await?;
        self.apply::<WindowQuery>(manifest).await?;
        self.query_stands("Ready", STARTED, "True", None).await
    }

    /// Waits until a condition stands so, its reason being this where one is given.
    pub async fn query_stands(
        &self,
        kind: &str,
        expected: Duration,
        is: &str,
        reason: Option<&str>,
    ) -> Result<WindowQuery> {
        let pleases = |query: &WindowQuery| {
            is_current(query)?;
            let found = condition(query, kind).with_context(|| format!("no condition {kind}: {}", told(query)))?;
            let right = found.status == is && reason.is_none_or(|reason| found.reason == reason);
            ensure!(right, "not yet {kind}={is} {}: {}", reason.unwrap_or_default(), told(query));
            Ok(())
        };
        self.awaits(COUNTS, expected, pleases).await
    }

    /// The query's worker pods that are not being deleted.
    pub async fn query_workers(&self) -> Result<Vec<Pod>> {
        let mut pods = self.list::<Pod>(&format!("drover.dev/query={COUNTS}")).await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// Waits until so many workers run, all of them ready.
    pub async fn query_has_workers(&self, expected: Duration, wanted: usize) -> Result<()> {
        until(expected, async || {
            let pods = self.query_workers().await?;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            ensure!((pods.len(), ready) == (wanted, wanted), "{ready} of {} pods are ready, not {wanted}", pods.len());
            Ok(())
        })
        .await
    }

    /// Publishes events of now, one after the other, until the test's other part is done and at least for so long.
    pub async fn publish_events<T>(
        &self,
        least: Duration,
        meanwhile: impl Future<Output = Result<T>>,
    ) -> Result<(Published, T)> {
        let done = tokio_util::sync::CancellationToken::new();
        let publishing = async {
            let mut published = Published::default();
            let start = tokio::time::Instant::now();
            let mut ticks = tokio::time::interval(PAUSE);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut number = 0_u32;
            while !done.is_cancelled() || start.elapsed() < least {
                ticks.tick().await;
                self.publish_event(number, &mut published).await?;
                number += 1;
            }
            anyhow::Ok(published)
        };
        let other = async {
            let outcome = meanwhile.await;
            done.cancel();
            outcome
        };
        let (published, outcome) = tokio::join!(publishing, other);
        Ok((published?, outcome?))
    }

    /// One event; it says that it arrived now.
    pub async fn publish_event(&self, number: u32, published: &mut Published) -> Result<()> {
        let now = now();
        let key = format!("k{}", number % 5);
        let mut headers = FieldTable::default();
        headers.insert(ARRIVAL.into(), AMQPValue::LongLongInt(now));
        let properties = BasicProperties::default().with_headers(headers);
        let body = json!({ "k": key }).to_string().into_bytes();
        self.hub.publish_with("amq.topic", &format!("events.{}", number % 32), &[body], &properties).await?;
        // A window ends with its end.
        let end = (now + WINDOW - 1).div_euclid(WINDOW) * WINDOW;
        *published.0.entry((end, key)).or_default() += 1;
        Ok(())
    }

    /// The rows of the table: text, window end in milliseconds, key and count.
    pub async fn windows(&self) -> Result<Vec<(String, i64, String, i64)>> {
        let query = format!(
            "select text, floor(extract(epoch from w) * 1000)::bigint, k, c::bigint from {COUNTS} order by w, k"
        );
        let rows = self.store.admin.rows(&query, &[]).await?;
        rows.iter().map(|r| Ok((r.try_get(0)?, r.try_get(1)?, r.try_get(2)?, r.try_get(3)?))).collect()
    }

    /// Waits until each window and key is there, once, with what was published in it.
    pub async fn has_windows(&self, expected: Duration, published: &Published) -> Result<()> {
        until(expected, async || {
            let rows = self.windows().await?;
            let mut found = BTreeMap::new();
            for (_, end, key, count) in rows {
                let twice = found.insert((end, key.clone()), count);
                // Not to be mended by waiting.
                assert!(twice.is_none(), "two rows of {end} {key}");
            }
            let wrong: Vec<_> = published
                .0
                .iter()
                .filter(|(at, count)| found.get(*at) != Some(*count))
                .map(|(at, count)| format!("{at:?} has {:?}, not {count}", found.get(at)))
                .take(3)
                .collect();
            let counted: i64 = found.values().sum();
            ensure!(
                wrong.is_empty() && found.len() == published.0.len(),
                "{} rows of {counted} events, {} published: {}",
                found.len(),
                published.count(),
                wrong.join("; ")
            );
            Ok(())
        })
        .await
    }
}
