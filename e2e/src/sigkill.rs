//! Ends the processes of a pod as a crash or the kernel would: at once, without a word.

use std::fs;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;

use crate::cluster::Cluster;
use crate::shell;

/// Kills a pod's processes where they are this machine's, and deletes the pod without grace, so that it is replaced.
/// On a cluster elsewhere only the second happens: kubelet then allows two seconds.
pub async fn sigkill(cluster: &Cluster, pod: &Pod) -> Result<()> {
    kill_processes(pod).await?;
    cluster.delete::<Pod>(&pod.name_any(), &DeleteParams::default().grace_period(0)).await
}

/// Kills a pod's processes where they are this machine's; kubelet starts its containers again. True if there were any.
pub async fn kill_processes(pod: &Pod) -> Result<bool> {
    let uid = pod.uid().context("a pod without uid")?;
    let found = processes(&uid)?;
    if found.is_empty() {
        return Ok(false);
    }
    // One that ended meanwhile is no failure.
    shell::attempt("kill", &[vec!["-KILL".to_owned()], found].concat(), "").await?;
    Ok(true)
}

/// Processes of a pod's containers: their control group is named after the pod. The one that only holds its namespaces is left.
pub fn processes(uid: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("/proc cannot be read")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // A process may end while we look.
        let of_pod =
            fs::read_to_string(entry.path().join("cgroup")).is_ok_and(|groups| groups.contains(&format!("pod{uid}")));
        let command = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if of_pod && command.trim() != "pause" {
            found.push(name);
        }
    }
    Ok(found)
}
