//! Names and labels of what the operator makes.

use std::collections::BTreeMap;

/// The one field manager.
pub const MANAGER: &str = "drover";
/// The finalizer, where queues are to go with the object.
pub const FINALIZER: &str = "drover.dev/queues";
/// Annotation: the id of a request to send dead letters back.
pub const REDRIVE: &str = "drover.dev/redrive";
/// Label: the pipeline that something belongs to.
pub const PIPELINE: &str = "drover.dev/pipeline";
/// Label: the query that something belongs to.
pub const QUERY: &str = "drover.dev/query";
/// Label: the version of a query's state that a revision works on.
pub const STATE: &str = "drover.dev/state";
/// Label: the revision that something belongs to.
pub const REVISION: &str = "drover.dev/revision";
/// Label: the step of suspects whose queue a Deployment or pod reads, in place of the source.
pub const SUSPECTS: &str = "drover.dev/suspects";
/// Label: the revision that a Deployment or pod tries on copies of what arrives.
pub const PREVIEW: &str = "drover.dev/preview";
/// Label of a revision's Deployment: changes with what a preview can tell something of.
pub const WORK: &str = "drover.dev/work";
/// Annotation of a revision's `ConfigMap`: the template of its pods, so that its Deployment can be made again while the spec asks for
/// another revision.
pub const TEMPLATE: &str = "drover.dev/template";
/// Annotation of a pod for suspects: when and how a worker or handler of the pipeline ended last, for whom it kills.
pub const LAST_EXIT: &str = "drover.dev/last-exit";
/// Label that all of it carries.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label of a namespace from where workers' metrics may be read.
pub const METRICS: &str = "drover.dev/metrics";
/// Port of a worker's health, metrics and state.
pub const WORKER_PORT: i32 = drover_crds::resolved::WORKER_PORT as i32;

/// Name of a revision's Deployment and ConfigMap.
#[must_use]
pub fn of_revision(pipeline: &str, revision: &str) -> String {
    format!("{pipeline}-{revision}")
}

/// Name of the Deployment for a step of suspects.
#[must_use]
pub fn of_suspects(pipeline: &str, step: u8) -> String {
    format!("{pipeline}-suspects-{step}")
}

/// Name of the Deployment that tries a revision on copies of what arrives.
#[must_use]
pub fn of_preview(pipeline: &str, revision: &str) -> String {
    format!("{pipeline}-{revision}-preview")
}

/// Labels of what tries a revision.
#[must_use]
pub fn preview_labels(pipeline: &str, revision: &str) -> BTreeMap<String, String> {
    let mut labels = labels(pipeline);
    labels.insert(PREVIEW.to_owned(), revision.to_owned());
    labels
}

/// Labels of what is of a step of suspects.
#[must_use]
pub fn suspects_labels(pipeline: &str, step: u8) -> BTreeMap<String, String> {
    let mut labels = labels(pipeline);
    labels.insert(SUSPECTS.to_owned(), step.to_string());
    labels
}

/// Labels of everything of a pipeline.
#[must_use]
pub fn labels(pipeline: &str) -> BTreeMap<String, String> {
    [
        (MANAGED_BY, MANAGER),
        ("app.kubernetes.io/name", "drover-worker"),
        ("app.kubernetes.io/instance", pipeline),
        (PIPELINE, pipeline),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .collect()
}

/// Labels of everything of a revision.
#[must_use]
pub fn revision_labels(pipeline: &str, revision: &str) -> BTreeMap<String, String> {
    let mut labels = labels(pipeline);
    labels.insert(REVISION.to_owned(), revision.to_owned());
    labels
}

/// Labels of everything of a query.
#[must_use]
pub fn query_labels(query: &str) -> BTreeMap<String, String> {
    let mut labels = labels(query);
    labels.remove(PIPELINE);
    labels.insert(QUERY.to_owned(), query.to_owned());
    labels
}

/// Label selector of a query's pods, as text.
#[must_use]
pub fn query_selector(query: &str) -> String {
    format!("{QUERY}={query}")
}

/// Label selector of a pipeline's pods that read its source, as text.
#[must_use]
pub fn selector(pipeline: &str) -> String {
    format!("{PIPELINE}={pipeline},!{SUSPECTS},!{PREVIEW}")
}
