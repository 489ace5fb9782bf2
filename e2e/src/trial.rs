//! One test's own corner of the world: namespace, virtual host, database; all of it goes when the test ends.
//!
//! Tests run side by side. One that disturbs what others use (a service restarted, the operator killed) is alone meanwhile.

use std::env;
use std::fs::File;
use std::io::Read as _;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::FutureExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use tokio::sync::RwLock;
use tokio::time::Instant;

use crate::cluster::{Cluster, MANAGER};
use crate::dump::dump;
use crate::hub::Hub;
use crate::operator::{self, MARK, PREFIX, REMOVED};
use crate::store::Store;
use crate::surroundings::surroundings;
use crate::until::until;

/// Held for reading by tests that run side by side, for writing by one that must be alone.
static PEACE: RwLock<()> = RwLock::const_new(());

/// Set, a test that failed leaves its namespace, virtual host and database as they are.
const KEEP: &str = "DROVER_E2E_KEEP";

/// What a test has for itself. It is also its namespace.
#[derive(Debug)]
pub struct Trial {
    /// The namespace.
    pub cluster: Cluster,
    /// The virtual host.
    pub hub: Hub,
    /// The database.
    pub store: Store,
    /// A part of every password here; it must be nowhere but in secrets.
    pub canary: String,
    /// When it was made.
    pub(crate) began: Instant,
}

impl Deref for Trial {
    type Target = Cluster;
    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

/// Runs a test in a trial of its own, beside others.
pub async fn trial(name: &str, test: impl AsyncFnOnce(&Trial) -> Result<()>) -> Result<()> {
    let _peace = PEACE.read().await;
    run(name, test).await
}

/// Runs a test in a trial of its own while no other runs.
pub async fn lone_trial(name: &str, test: impl AsyncFnOnce(&Trial) -> Result<()>) -> Result<()> {
    let _peace = PEACE.write().await;
    run(name, test).await
}

async fn run(name: &str, test: impl AsyncFnOnce(&Trial) -> Result<()>) -> Result<()> {
    surroundings()?;
    let client = Client::try_default().await.context("no cluster")?;
    operator::installed(&client).await?;
    let trial = Trial::create(client, name).await?;
    let outcome = AssertUnwindSafe(async {
        test(&trial).await?;
        trial.no_secret_is_told().await
    });
    let outcome = outcome.catch_unwind().await;
    let failed = !matches!(outcome, Ok(Ok(())));
    if failed {
        eprint!("{}", dump(&trial.cluster).await);
    }
    let removed = if failed && env::var_os(KEEP).is_some() { Ok(()) } else { trial.remove().await };
    match outcome {
        Ok(Ok(())) => removed,
        Ok(error) => error,
        Err(panic) => resume_unwind(panic),
    }
}

impl Trial {
    /// Makes all of it, with the secrets `hub` and `warehouse`.
    async fn create(client: Client, name: &str) -> Result<Self> {
        let began = Instant::now();
        let canary = token()?;
        let name = format!("{PREFIX}{name}-{}", &token()?[..6]);
        let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted", MARK: "true" });
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } });
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let apply = PatchParams::apply(MANAGER);
        namespaces.patch(&name, &apply, &Patch::Apply(&namespace)).await.context("no namespace")?;
        let password = password(&canary);
        let (hub, store) = tokio::try_join!(Hub::create(&name, &password), Store::create(&name, &password))?;
        let trial = Self { cluster: Cluster { client, namespace: name }, hub, store, canary, began };
        trial.secret("hub", trial.hub.uri.as_str()).await?;
        trial.secret("warehouse", trial.store.uri.as_str()).await?;
        Ok(trial)
    }

    /// Makes or changes a secret with an address and the authority that its server is verified by.
    pub async fn secret(&self, name: &str, uri: &str) -> Result<()> {
        self.secret_with(name, &[("uri", uri), ("ca.crt", &surroundings()?.ca)]).await
    }

    /// Makes or changes a secret so that it has these keys and no other.
    pub async fn secret_with(&self, name: &str, keys: &[(&str, &str)]) -> Result<()> {
        let data = keys.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
        let mut secret = serde_json::to_value(Secret { data: Some(data), ..Default::default() })?;
        secret["metadata"] = json!({ "name": name });
        self.apply::<Secret>(&secret).await?;
        Ok(())
    }

    /// Deletes the namespace and waits until it is gone.
    pub async fn remove_namespace(&self, expected: Duration) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        match namespaces.delete(&self.namespace, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            other => drop(other?),
        }
        let gone = until(expected, async || match namespaces.get_opt(&self.namespace).await? {
            None => Ok(()),
            Some(namespace) => {
                let conditions = namespace.status.and_then(|status| status.conditions).unwrap_or_default();
                let told: Vec<_> =
                    conditions.into_iter().filter(|c| c.status == "True").filter_map(|c| c.message).collect();
                anyhow::bail!("it is still there: {}", told.join("; "))
            }
        });
        gone.await.with_context(|| format!("namespace {}", self.namespace))
    }

    async fn remove(&self) -> Result<()> {
        self.remove_namespace(REMOVED).await?;
        self.hub.remove().await?;
        self.store.remove().await
    }
}

/// The password with that canary; what an address must have escaped is in it.
#[must_use]
pub fn password(canary: &str) -> String {
    format!("p/{canary}@:")
}

/// Sixteen characters that nobody else has.
fn token() -> Result<String> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("no random numbers")?;
    Ok(format!("{:016x}", u64::from_le_bytes(bytes)))
}
