//! What a failed test leaves behind: objects, events and logs, in files, with the gist on standard error.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use drover_crds::api::{IngestPipeline, WindowQuery};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::cluster::{Cluster, Kind, line};
use crate::operator;
use crate::shell::target;

/// Lines of each log that are shown at once; the files hold all of them.
const LOG_LINES: usize = 15;

/// Writes everything of the namespace and the operator's log; says where, and the gist.
pub async fn dump(cluster: &Cluster) -> String {
    let mut gist = format!("--- {} ---\n", cluster.namespace);
    let directory = match directory(&cluster.namespace) {
        Ok(directory) => directory,
        Err(error) => return format!("{gist}nothing could be written: {error:#}\n"),
    };
    objects::<WindowQuery>(cluster, &directory).await;
    objects::<Deployment>(cluster, &directory).await;
    objects::<ConfigMap>(cluster, &directory).await;
    objects::<ServiceAccount>(cluster, &directory).await;
    objects::<NetworkPolicy>(cluster, &directory).await;
    objects::<PodDisruptionBudget>(cluster, &directory).await;
    for pipeline in objects::<IngestPipeline>(cluster, &directory).await {
        let status = pipeline.status.clone().unwrap_or_default();
        let _ = writeln!(gist, "{}: {:?} {}", pipeline.name_any(), status.phase, status.message.unwrap_or_default());
        for c in status.conditions {
            let _ = writeln!(gist, "    {}={} {} {}", c.type_, c.status, c.reason, c.message);
        }
    }
    for event in objects::<Event>(cluster, &directory).await {
        let (reason, message) = (event.reason.unwrap_or_default(), event.message.unwrap_or_default());
        let _ = writeln!(gist, "event {}: {reason} {message}", event.involved_object.name.unwrap_or_default());
    }
    for pod in objects::<Pod>(cluster, &directory).await {
        let _ = writeln!(gist, "pod {}", line(&pod));
        for previous in [true, false] {
            if let Ok(log) = cluster.log(&pod.name_any(), None, previous).await {
                let name = format!("{}{}.log", pod.name_any(), if previous { "-previous" } else { "" });
                keep(&directory, &name, &log);
                gist += &tail(&log);
            }
        }
    }
    match operator::log(&cluster.client, None).await {
        Ok(log) => {
            keep(&directory, "operator.log", &log);
            let ours: String =
                log.lines().filter(|l| l.contains(&cluster.namespace)).fold(String::new(), |all, l| all + l + "\n");
            let _ = writeln!(gist, "operator, of this namespace:\n{}", tail(&ours));
        }
        Err(error) => drop(writeln!(gist, "the operator's log: {error:#}")),
    }
    gist + &format!("all of it is in {}\n", directory.display())
}

fn directory(namespace: &str) -> Result<PathBuf> {
    let directory = target()?.join("e2e").join(namespace);
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    Ok(directory)
}

async fn objects<K: Kind + Serialize>(cluster: &Cluster, directory: &Path) -> Vec<K> {
    let found = cluster.list::<K>("").await.unwrap_or_default();
    if let Ok(text) = serde_saphyr::to_string(&found) {
        keep(directory, &format!("{}.yaml", K::plural(&())), &text);
    }
    found
}

fn keep(directory: &Path, name: &str, text: &str) {
    if let Err(error) = std::fs::write(directory.join(name), text) {
        eprintln!("{name}: {error}");
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].iter().fold(String::new(), |all, line| all + "    | " + line + "\n")
}
