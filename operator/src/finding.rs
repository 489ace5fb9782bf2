//! What was found of either kind, before it is told as conditions. Pure.

use drover_crds::api::Binding;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

use crate::{condition::condition, hosts, problem::Problem};

/// Findings that make up Ready, at the front of the list.
pub(crate) const COUNTED: usize = 5;

/// One finding: the status of a condition, its reason and message.
pub(crate) struct Finding {
    pub(crate) type_: &'static str,
    pub(crate) status: Option<bool>,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Finding {
    pub(crate) fn new(type_: &'static str, status: Option<bool>, reason: &str, message: impl Into<String>) -> Self {
        Self { type_, status, reason: reason.to_owned(), message: message.into() }
    }

    pub(crate) fn bad(type_: &'static str, problem: &Problem) -> Self {
        Self::new(type_, Some(false), &problem.reason, problem.message.clone())
    }

    /// As the API has it; its transition time is kept from `old` while its status stays.
    pub(crate) fn condition(self, old: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        condition(old, self.type_, self.status, &self.reason, &self.message, generation, now)
    }
}

/// Whether the spec is sound.
pub(crate) fn accepted<T>(admitted: &Result<T, Problem>) -> Finding {
    match admitted {
        Ok(_) => Finding::new("Accepted", Some(true), "Accepted", "the spec is sound"),
        Err(problem) => Finding::bad("Accepted", problem),
    }
}

/// What is said of workers where it is not known how many there should be.
pub(crate) fn workers_unknown<T>(admitted: &Result<T, Problem>) -> Finding {
    let message = if hosts::is_refused(admitted) {
        "no workers run until the host is allowed"
    } else {
        "workers are left as they are"
    };
    Finding::new("WorkersReady", None, "NotChecked", message)
}

/// Ready, Reconciling and Stalled, as kstatus reads them; `changes` while one revision follows another, `given_up` the reason where the
/// one that is asked for does not take over.
pub(crate) fn summary(findings: &[Finding], changes: bool, given_up: Option<&str>, message: &str) -> [Finding; 3] {
    let bad = findings.iter().take(COUNTED).find(|f| f.status != Some(true));
    let refused = findings.first().filter(|f| f.status == Some(false));
    let ready = match bad.map(|f| f.reason.as_str()).or(given_up) {
        None => Finding::new("Ready", Some(true), "Ready", message),
        Some(reason) => Finding::new("Ready", Some(false), reason, message),
    };
    let stalled = match refused.map(|f| f.reason.as_str()).or(given_up) {
        Some(reason) => Finding::new("Stalled", Some(true), reason, message),
        None => Finding::new("Stalled", Some(false), "NotStalled", "nothing in the spec is in the way"),
    };
    let moving = refused.is_none() && (bad.is_some() || changes);
    let reason = bad.map_or("RevisionChanging", |f| f.reason.as_str());
    let reconciling = if moving {
        Finding::new("Reconciling", Some(true), reason, message)
    } else {
        Finding::new("Reconciling", Some(false), "Settled", "nothing is under way")
    };
    [ready, reconciling, stalled]
}

/// What may be bound: what was, and what is about to be.
pub(crate) fn both(old: &[Binding], new: &[Binding]) -> Vec<Binding> {
    let mut all = old.to_vec();
    all.extend(new.iter().filter(|b| !old.contains(b)).cloned());
    all
}
