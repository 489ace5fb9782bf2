//! Everything that a decision about a query is made from, read once. Data only.

use std::{sync::Arc, time::Duration};

use drover_crds::{
    api::{PromotionStatus, WindowQuery},
    resolved_query::Query,
};
use drover_worker::stream::{schema::State, status::QueryStatus};
use k8s_openapi::jiff::Timestamp;

use super::{outside::HubFacts, render::state, scale::Decision};
use crate::{
    names,
    pipeline::snapshot::{Install, Owned, Secrets},
    problem::{External, Problem},
    rollout::{Command, request},
};

/// What was seen of a query and of what belongs to it.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// When it was seen.
    pub now: Timestamp,
    /// How long ago its status was written by this process, if it was.
    pub status_age: Option<Duration>,
    /// The object as the API server has it.
    pub object: Arc<WindowQuery>,
    /// What its spec means, or why it is refused.
    pub admitted: Result<Query, Problem>,
    /// Its secrets; `None` where one is missing or not looked at, which `hub` or `store` then tells.
    pub secrets: Option<Secrets>,
    /// Its streams.
    pub hub: External<HubFacts>,
    /// Its state.
    pub store: External<State>,
    /// What it owns in the cluster.
    pub owned: Owned,
    /// What was done at its hub and no Event has told yet.
    pub made: Vec<String>,
    /// What its workers say of themselves: with the name of the pod.
    pub workers: Vec<(String, Option<QueryStatus>)>,
    /// How many workers there should be; `None` where it is not decided yet, and what runs stays.
    pub scale: Option<Decision>,
    /// What the operator was installed with.
    pub install: Install,
}

impl Snapshot {
    /// Name of the query.
    pub(super) fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    /// The request that has not been answered, that a version takes over whatever is said of it: the version that was asked for when the
    /// request was seen first, and no text that comes after it.
    pub(super) fn promotion(&self) -> Option<PromotionStatus> {
        let id = request(&*self.object, Command::Promote.annotation())?;
        let status = self.old_status();
        if status.handled_requests.contains(&id) {
            return None;
        }
        let known = status.promotion.filter(|p| p.id == id);
        known.or_else(|| Some(PromotionStatus { id, version: state(self.admitted.as_ref().ok()?) }))
    }

    /// Whether the version that is asked for takes over whatever is said of it.
    pub(super) fn promoted(&self) -> bool {
        self.admitted.as_ref().is_ok_and(|query| self.promotion().is_some_and(|p| p.version == state(query)))
    }

    /// The status as it was last written.
    pub(super) fn old_status(&self) -> drover_crds::api::Status {
        self.object.status.clone().unwrap_or_default()
    }
}

/// The version of the state that something in the cluster works on.
pub(super) fn state_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(names::STATE).map(String::as_str)
}
