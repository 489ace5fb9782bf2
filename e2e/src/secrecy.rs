//! No secret is told: not to who may read everything but secrets.

use std::fmt::Display;

use anyhow::{Result, ensure};
use drover_crds::api::{IngestPipeline, WindowQuery};
use drover_crds::resolved::WORKER_PORT;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::cluster::{Cluster, Kind, is_ready, restarts};
use crate::operator;
use crate::trial::Trial;

/// Of so many objects of a kind the plugin is asked: it says of a thousand what it says of one.
const ASKED: usize = 5;

/// What must be told nowhere.
struct Silence<'a>(Vec<&'a str>);

impl Silence<'_> {
    fn holds(&self, text: &str, place: impl Display) -> Result<()> {
        ensure!(!self.0.iter().any(|secret| text.contains(secret)), "a secret is in {place}");
        Ok(())
    }

    async fn of<K: Kind + Serialize>(&self, cluster: &Cluster) -> Result<()> {
        for object in cluster.list::<K>("").await? {
            self.holds(&serde_json::to_string(&object)?, format!("{} {}", K::kind(&()), object.name_any()))?;
        }
        Ok(())
    }

    async fn of_objects(&self, cluster: &Cluster) -> Result<()> {
        self.of::<IngestPipeline>(cluster).await?;
        self.of::<WindowQuery>(cluster).await?;
        self.of::<ConfigMap>(cluster).await?;
        self.of::<Event>(cluster).await?;
        self.of::<Deployment>(cluster).await?;
        self.of::<ReplicaSet>(cluster).await?;
        self.of::<Pod>(cluster).await?;
        self.of::<ServiceAccount>(cluster).await?;
        self.of::<NetworkPolicy>(cluster).await?;
        self.of::<PodDisruptionBudget>(cluster).await?;
        self.of::<Lease>(cluster).await
    }

    /// Of the containers that run and of those before them, and of what they serve.
    async fn of_pods(&self, cluster: &Cluster) -> Result<()> {
        for pod in cluster.list::<Pod>("").await? {
            let name = pod.name_any();
            for container in containers(&pod) {
                self.holds(&log(cluster, &name, &container).await?, format!("the log of {name}, {container}"))?;
                if restarts(&pod) > 0 {
                    // It is kept for a while only.
                    let before = cluster.log(&name, Some(&container), true).await.unwrap_or_default();
                    self.holds(&before, format!("the log of {name}, {container}, before it was started again"))?;
                }
            }
            for path in ["metrics", "status"] {
                if is_ready(&pod) {
                    // Nor is it there for anybody else, if it is about to go or not a worker.
                    let told = cluster.ask(&name, WORKER_PORT, path).await.unwrap_or_default();
                    self.holds(&told, format!("/{path} of {name}"))?;
                }
            }
        }
        Ok(())
    }

    async fn of_the_plugin<K: Kind>(&self, cluster: &Cluster, short: &str) -> Result<()> {
        for object in cluster.list::<K>("").await?.iter().take(ASKED) {
            let object = format!("{short}/{}", object.name_any());
            for command in ["status", "why"] {
                // An object that is about to go may be gone.
                let told = cluster.attempt_drover(&[command, &object]).await?;
                self.holds(&(told.out + &told.err), format!("kubectl drover {command} {object}"))?;
            }
        }
        Ok(())
    }
}

fn containers(pod: &Pod) -> Vec<String> {
    let spec = pod.spec.clone().unwrap_or_default();
    spec.init_containers.into_iter().flatten().chain(spec.containers).map(|container| container.name).collect()
}

/// The log of a container. One that did not start, or is about to go, may have none.
async fn log(cluster: &Cluster, pod: &str, container: &str) -> Result<String> {
    let error = match cluster.log(pod, Some(container), false).await {
        Ok(log) => return Ok(log),
        Err(error) => error,
    };
    let now = cluster.api::<Pod>().get_opt(pod).await?;
    let works = now.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(&pod));
    ensure!(!works, "the log of {pod}, {container}, cannot be read: {error:#}");
    Ok(String::new())
}

impl Trial {
    /// No password of this trial is told anywhere.
    pub async fn no_secret_is_told(&self) -> Result<()> {
        self.are_told_nowhere(&[&self.canary]).await
    }

    /// None of these is in an object, an event, a log, in what pods serve or in what the plugin says.
    pub async fn are_told_nowhere<S: AsRef<str>>(&self, secrets: &[S]) -> Result<()> {
        let silence = Silence(secrets.iter().map(AsRef::as_ref).collect());
        silence.of_objects(self).await?;
        silence.of_pods(self).await?;
        silence.of_the_plugin::<IngestPipeline>(self, "ipl").await?;
        silence.of_the_plugin::<WindowQuery>(self, "wq").await?;
        let operator = operator::namespace(&self.client);
        silence.of::<Lease>(&operator).await?;
        silence.of::<Event>(&operator).await?;
        silence.holds(&operator::metrics(&self.client).await?, "/metrics of the operator")?;
        let seconds = i64::try_from(self.began.elapsed().as_secs())? + 1;
        silence.holds(&operator::log(&self.client, Some(seconds)).await?, "the operator's log")?;
        for pod in operator::pods(&self.client).await?.iter().filter(|pod| restarts(pod) > 0) {
            let before = operator.log(&pod.name_any(), None, true).await.unwrap_or_default();
            silence.holds(&before, "the operator's log before it was started again")?;
        }
        Ok(())
    }

    /// The passwords that the operator has made and keeps in secrets here.
    pub async fn minted_passwords(&self) -> Result<Vec<String>> {
        let secrets = self.list::<Secret>("app.kubernetes.io/managed-by=drover").await?;
        let data = secrets.into_iter().flat_map(|secret| secret.data.unwrap_or_default());
        let passwords = data.filter(|(key, _)| key.starts_with("password"));
        Ok(passwords.map(|(_, value)| String::from_utf8_lossy(&value.0).into_owned()).collect())
    }
}
