//! Pipelines: what tests apply, and what they wait for.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{IngestPipeline, Phase};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use crate::hub::Lying;
use crate::trial::Trial;
use crate::until::until;

/// Secrets read, topology declared, a pod started and consuming, on a machine that does the same for others.
pub const READY: Duration = Duration::from_secs(8);

/// A change that nobody tells the operator of (a secret, a table, the hub) is seen when it looks again.
pub const SEEN: Duration = Duration::from_secs(15);

/// Messages in the hub become rows.
pub const FLOW: Duration = Duration::from_secs(3);

/// The name of the pipeline, its queue and its table, where a test has one.
pub const NAME: &str = "telemetry";

/// The columns of the table.
pub const COLUMNS: &str = "message_id text not null unique, device_id text not null, ts timestamptz not null, \
                           pref text, temp double precision, received_at timestamptz not null default now()";

/// A pipeline from `devices.#` through the queue of its own name to the table of that name.
#[must_use]
pub fn manifest(name: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "hub": { "secretRef": { "name": "hub" } },
            "source": {
                "queue": name,
                "bindings": [{ "exchange": "amq.topic", "routingKey": "devices.#" }],
                "id": "$.id",
            },
            "sink": { "postgres": {
                "secretRef": { "name": "warehouse" },
                "table": name,
                "idColumn": "message_id",
                "columns": {
                    "device_id": "$.deviceId", "ts": "$.timestamp", "pref": "$.payloads.pref", "temp": "$.payloads.temp",
                },
            } },
            // Who tests scaling says so.
            "scaling": { "mode": "Off" },
        },
    })
}

/// A pipeline whose results are dropped.
#[must_use]
pub fn discarding(name: &str) -> Value {
    let mut manifest = manifest(name);
    manifest["spec"]["sink"] = json!({ "discard": {} });
    manifest
}

/// A message of a simulated device; the number is its id.
#[must_use]
pub fn message(number: u32) -> Vec<u8> {
    let body = json!({
        "id": format!("m-{number:06}"),
        "deviceId": format!("device-{:03}", number % 20),
        "timestamp": 1_700_000_000_000_i64 + i64::from(number),
        "payloads": { "pref": "tokyo", "temp": f64::from(number % 40) + 0.5 },
    });
    body.to_string().into_bytes()
}

/// Messages with these numbers.
#[must_use]
pub fn messages(numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    numbers.map(message).collect()
}

/// A condition of a pipeline.
#[must_use]
pub fn condition<'a>(pipeline: &'a IngestPipeline, kind: &str) -> Option<&'a Condition> {
    pipeline.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind)
}

/// All that a pipeline tells, in one line.
#[must_use]
pub fn told(pipeline: &IngestPipeline) -> String {
    let status = pipeline.status.clone().unwrap_or_default();
    let conditions: Vec<_> =
        status.conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)).collect();
    format!("{:?} {:?} [{}]", status.phase, status.message.unwrap_or_default(), conditions.join(", "))
}

fn is_current(pipeline: &IngestPipeline) -> Result<()> {
    let observed = pipeline.status.as_ref().and_then(|status| status.observed_generation);
    ensure!(observed == pipeline.metadata.generation, "its status is of an older generation: {}", told(pipeline));
    Ok(())
}

impl Trial {
    /// The table that pipelines of this name write to.
    pub async fn table(&self, name: &str) -> Result<()> {
        self.store.table(name, COLUMNS).await
    }

    /// Makes the table, applies the pipeline and waits until it is ready.
    pub async fn telemetry(&self) -> Result<IngestPipeline> {
        self.telemetry_as(&manifest(NAME)).await
    }

    /// The same with another manifest.
    pub async fn telemetry_as(&self, manifest: &Value) -> Result<IngestPipeline> {
        self.table(NAME).await?;
        self.apply::<IngestPipeline>(manifest).await?;
        self.ready(NAME).await
    }

    /// Waits until a pipeline is ready, its status being that of its present spec.
    pub async fn ready(&self, name: &str) -> Result<IngestPipeline> {
        self.stands(name, READY, "Ready", "True", None).await
    }

    /// Waits until a condition stands so, its reason being this where one is given.
    pub async fn stands(
        &self,
        name: &str,
        expected: Duration,
        kind: &str,
        is: &str,
        reason: Option<&str>,
    ) -> Result<IngestPipeline> {
        let pleases = |pipeline: &IngestPipeline| {
            is_current(pipeline)?;
            let found =
                condition(pipeline, kind).with_context(|| format!("no condition {kind}: {}", told(pipeline)))?;
            let right = found.status == is && reason.is_none_or(|reason| found.reason == reason);
            ensure!(
                right,
                "not yet {kind}={is} {}: {} ({})",
                reason.unwrap_or_default(),
                told(pipeline),
                found.message
            );
            Ok(())
        };
        self.awaits(name, expected, pleases).await
    }

    /// Waits for a phase.
    pub async fn phase(&self, name: &str, expected: Duration, phase: Phase) -> Result<IngestPipeline> {
        let pleases = |pipeline: &IngestPipeline| {
            is_current(pipeline)?;
            let found = pipeline.status.as_ref().and_then(|status| status.phase);
            ensure!(found == Some(phase), "not yet {phase:?}: {}", told(pipeline));
            Ok(())
        };
        self.awaits(name, expected, pleases).await
    }

    /// Publishes telemetry as devices do.
    pub async fn publish(&self, numbers: std::ops::Range<u32>) -> Result<()> {
        self.hub.publish("amq.topic", "devices.1", &messages(numbers)).await
    }

    /// Waits until the table has exactly these messages, each once.
    pub async fn rows(&self, expected: Duration, numbers: std::ops::Range<u32>) -> Result<()> {
        until(expected, async || self.has_rows(NAME, numbers.clone()).await).await
    }

    /// The table has exactly these messages, each once.
    pub async fn has_rows(&self, table: &str, numbers: std::ops::Range<u32>) -> Result<()> {
        let query = format!(
            "select count(*), count(distinct message_id), coalesce(min(message_id), ''), coalesce(max(message_id), '') from {table}"
        );
        let rows = self.store.owner.rows(&query, &[]).await?;
        let row = rows.first().context("no answer")?;
        let (count, distinct): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let wanted = i64::try_from(numbers.len())?;
        ensure!((count, distinct) == (wanted, wanted), "{count} rows with {distinct} ids, not {wanted}");
        if wanted > 0 {
            let (first, last): (String, String) = (row.try_get(2)?, row.try_get(3)?);
            let bounds = (format!("m-{:06}", numbers.start), format!("m-{:06}", numbers.end - 1));
            ensure!((first, last) == bounds, "other messages than {bounds:?}");
        }
        Ok(())
    }

    /// Each of these messages is a row, once, or a dead letter; answers how many are both or are dead-lettered twice.
    /// That is what a worker leaves that ends between the letter and the acknowledgement.
    pub async fn rows_and_letters(&self, numbers: std::ops::Range<u32>) -> Result<usize> {
        let rows = self.store.admin.rows(&format!("select message_id from {NAME}"), &[]).await?;
        let mut found: BTreeSet<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        ensure!(found.len() == rows.len(), "{} rows with {} ids", rows.len(), found.len());
        let letters = self.dead_letters().await?;
        for letter in &letters {
            let body: Value = serde_json::from_slice(&letter.body)?;
            found.insert(body["id"].as_str().context("a dead letter without an id")?.to_owned());
        }
        let wanted: BTreeSet<String> = numbers.map(|number| format!("m-{number:06}")).collect();
        let told = format!("{} rows and {} dead letters", rows.len(), letters.len());
        ensure!(found == wanted, "{told}: {} of {} messages", found.len(), wanted.len());
        Ok(rows.len() + letters.len() - found.len())
    }

    /// No message of the pipeline was dead-lettered.
    pub async fn no_dead_letters(&self) -> Result<()> {
        let dead = self.dead_letters().await?;
        let told: Vec<_> = dead.iter().take(3).map(Lying::headline).collect();
        ensure!(dead.is_empty(), "{} dead letters, such as {told:?}", dead.len());
        Ok(())
    }

    /// The pipeline's dead letters.
    pub async fn dead_letters(&self) -> Result<Vec<Lying>> {
        self.hub.look(&format!("{NAME}.dead")).await
    }
}
