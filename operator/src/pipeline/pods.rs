//! What the workers' pods tell: why they do not run, if they do not. Pure.

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod},
    },
    jiff::SignedDuration,
};

use super::plan::Mark;
use crate::{names, problem::Problem};

/// A container that lived so long was at work when it died, and not broken from the start.
const WORKED: SignedDuration = SignedDuration::from_secs(3);

/// A revision's workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Pods that there are.
    pub replicas: i32,
    /// Pods that consume.
    pub available: i32,
    /// The controller of Deployments has seen the spec of now.
    pub current: bool,
}

/// Pods of a Deployment.
pub(crate) fn counts(deployment: &Deployment) -> Counts {
    let status = deployment.status.clone().unwrap_or_default();
    Counts {
        replicas: status.replicas.unwrap_or(0),
        available: status.ready_replicas.unwrap_or(0),
        current: status.observed_generation >= deployment.metadata.generation,
    }
}

/// True if so many pods of a revision consume; at zero, only once the last of them has finished what it held.
pub(crate) fn consume(deployment: &Deployment, pods: &[impl AsRef<Pod>], revision: &str, size: i32) -> bool {
    let counts = counts(deployment);
    counts.current && counts.available >= size && counts.replicas >= size && (size > 0 || !any_of(pods, revision))
}

/// Why fewer pods of a revision consume than should: the first reason that a person can do something about.
pub(crate) fn hindrance(deployment: &Deployment, pods: &[impl AsRef<Pod>], revision: &str) -> Option<Problem> {
    hindrance_of(deployment, pods, names::REVISION, revision)
}

/// The same of pods that are told apart by another label.
pub(crate) fn hindrance_of(
    deployment: &Deployment,
    pods: &[impl AsRef<Pod>],
    key: &str,
    value: &str,
) -> Option<Problem> {
    let own = || pods.iter().map(AsRef::as_ref).filter(|p| label(p, key) == Some(value));
    own()
        .find_map(waiting)
        .or_else(|| own().find_map(crashing))
        .or_else(|| own().find_map(unschedulable))
        .or_else(|| not_created(deployment))
}

/// Restarts of a pod's containers.
pub(crate) fn restarts(pod: &Pod) -> i64 {
    containers(pod).map(|c| i64::from(c.restart_count)).sum()
}

/// True if a pod of a revision is there, also one that ends.
pub(crate) fn any_of(pods: &[impl AsRef<Pod>], revision: &str) -> bool {
    pods.iter().any(|p| label(p.as_ref(), names::REVISION) == Some(revision))
}

/// Names of pods that idle because a message killed them: kubelet's back-off grows to five minutes and says nothing of the next
/// message. One that never got to work is broken, and another would be too.
pub(super) fn backed_off(pods: &[impl AsRef<Pod>]) -> Vec<String> {
    let idles = |pod: &&Pod| {
        let alone = label(pod, names::SUSPECTS).is_some();
        pod.metadata.deletion_timestamp.is_none() && containers(pod).any(|c| backs_off(c) && (alone || has_worked(c)))
    };
    pods.iter().map(AsRef::as_ref).filter(idles).map(|pod| name(pod).to_owned()).collect()
}

/// What workers for suspects are told of the last end of a container of the pipeline's, for the message that proves to be the cause.
pub(super) fn last_exits(pods: &[impl AsRef<Pod>]) -> Vec<Mark> {
    let pods = || pods.iter().map(AsRef::as_ref);
    let Some(value) = pods().flat_map(containers).filter_map(end).max() else { return Vec::new() };
    let reads = |pod: &&Pod| label(pod, names::SUSPECTS).is_some() && pod.metadata.deletion_timestamp.is_none();
    // Beginning with its time, what is newer is greater.
    let is_news = |pod: &&Pod| {
        let known = pod.metadata.annotations.as_ref().and_then(|all| all.get(names::LAST_EXIT));
        known.is_none_or(|known| *known < value)
    };
    let mark = |pod: &Pod| Mark { pod: name(pod).to_owned(), annotation: names::LAST_EXIT, value: value.clone() };
    pods().filter(reads).filter(is_news).map(mark).collect()
}

/// When and how a container ended that was not asked to.
fn end(container: &ContainerStatus) -> Option<String> {
    let ended = ended(container.state.as_ref()).or_else(|| ended(container.last_state.as_ref()));
    let ended = ended.filter(|t| t.exit_code != 0)?;
    let at = ended.finished_at.as_ref()?.0;
    Some(format!("{at} {}: {}", container.name, exit(ended)))
}

/// The worker's, and the handler's that outlives it.
fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|s| s.container_statuses.iter().chain(&s.init_container_statuses)).flatten()
}

fn backs_off(container: &ContainerStatus) -> bool {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
}

fn ended(state: Option<&ContainerState>) -> Option<&ContainerStateTerminated> {
    state?.terminated.as_ref()
}

fn has_worked(container: &ContainerStatus) -> bool {
    let ended = ended(container.last_state.as_ref());
    let lived = ended.and_then(|t| Some(t.finished_at.as_ref()?.0.duration_since(t.started_at.as_ref()?.0)));
    lived.is_some_and(|lived| lived >= WORKED)
}

pub(super) fn label<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

fn waiting(pod: &Pod) -> Option<Problem> {
    pod.status.as_ref()?.container_statuses.iter().flatten().find_map(|c| {
        let waiting = c.state.as_ref()?.waiting.as_ref()?;
        // While kubelet backs off it repeats the last error, with a word before it.
        let text = waiting.message.as_deref().unwrap_or_default();
        let text = text.rsplit_once("ErrImagePull: ").map_or(text, |(_, error)| error);
        let reason = waiting.reason.as_deref()?;
        match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => Some(Problem::new(
                "ImagePullFailed",
                format!(
                    "image {} cannot be pulled: {text}. Check its name, and worker.podTemplate.imagePullSecrets",
                    c.image
                ),
            )),
            "CrashLoopBackOff" => Some(crash(pod, c)),
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                Some(Problem::new("ContainerNotStarted", format!("{reason}: {text}")))
            }
            _ => None,
        }
    })
}

/// Between two of its ends a worker is on its feet for a moment: that is no recovery.
fn crashing(pod: &Pod) -> Option<Problem> {
    let containers = pod.status.as_ref()?.container_statuses.iter().flatten();
    containers.filter(|c| !c.ready && c.restart_count > 1).map(|c| crash(pod, c)).next()
}

fn crash(pod: &Pod, container: &ContainerStatus) -> Problem {
    let message = format!(
        "workers end soon after their start ({}): kubectl logs --previous {} tells why",
        ended(container.last_state.as_ref()).map_or("exit unknown".to_owned(), exit),
        name(pod)
    );
    Problem::new("CrashLooping", message)
}

fn exit(ended: &ContainerStateTerminated) -> String {
    let signal = match ended.signal.unwrap_or(ended.exit_code - 128) {
        4 => ", SIGILL",
        6 => ", SIGABRT",
        7 => ", SIGBUS",
        8 => ", SIGFPE",
        9 => ", SIGKILL",
        11 => ", SIGSEGV",
        15 => ", SIGTERM",
        _ => "",
    };
    let code = format!("exit code {}{signal}", ended.exit_code);
    match ended.reason.as_deref() {
        Some(reason) if reason != "Error" => format!("{reason} ({code})"),
        _ => code,
    }
}

fn unschedulable(pod: &Pod) -> Option<Problem> {
    let condition = pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled")?;
    (condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable")).then(|| {
        Problem::new(
            "Unschedulable",
            format!("no node for a worker: {}", condition.message.clone().unwrap_or_default()),
        )
    })
}

fn not_created(deployment: &Deployment) -> Option<Problem> {
    let condition = deployment
        .status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    let text = condition.message.clone().unwrap_or_default();
    let reason = if text.contains("exceeded quota") { "QuotaExceeded" } else { "PodsRefused" };
    Some(Problem::new(reason, format!("pods are not created: {text}")))
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}
