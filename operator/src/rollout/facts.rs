//! What a rollout goes on from. Data only; what is not known is `None`, and never advances anything.

use drover_crds::{
    api::{Cause, Evidence, Proof},
    resolved::Rollout,
};

use crate::problem::Problem;

/// What is known at one moment.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and none follows from another")]
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Facts {
    /// When, as RFC 3339.
    pub now: String,
    /// How new revisions take over.
    pub policy: Rollout,
    /// The revision that is asked for; `None` where the spec is refused or a secret is missing.
    pub wanted: Option<Wanted>,
    /// Hub and store are seen to be ready for a revision to start.
    pub may_start: bool,
    /// One that the operator itself causes may start: few do so at a time.
    pub turn: bool,
    /// No workers are to run at all.
    pub suspended: bool,
    /// The mirror queue that the state names.
    pub mirror: Mirror,
    /// The new revision on its mirror.
    pub preview: Side,
    /// The new revision on the source.
    pub new: Side,
    /// Nothing of the active revision runs, and nothing is left that it could be made from.
    pub active_lost: bool,
    /// The revision that stays warm no longer has a Deployment.
    pub retained_gone: bool,
    /// What both sides have done since the phase began; `None` where nothing is known of it yet.
    pub evidence: Option<Evidence>,
    /// Requests of people that were not answered yet.
    pub requests: Vec<(Command, String)>,
}

/// The revision that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its name.
    pub name: String,
    /// What it must show.
    pub proof: Proof,
    /// What it came of.
    pub cause: Cause,
    /// Its mirror queue; `None` where the source has no binding to mirror.
    pub mirror: Option<String>,
}

/// A mirror queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Mirror {
    /// Not looked at, or the hub did not answer.
    #[default]
    Unknown,
    /// It is there and bound.
    Declared,
    /// It cannot be made.
    Refused(Problem),
    /// It is not there any more.
    Gone,
}

/// Pods of the new revision.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Side {
    /// It has a Deployment or a pod, also one that ends.
    pub exists: bool,
    /// All that it should have consume.
    pub consumes: bool,
    /// Why they do not.
    pub hindrance: Option<Problem>,
    /// Messages that its workers have in hand.
    pub in_hand: u64,
    /// Seconds that they may give a single message; 0 where nothing says so.
    pub timeout: u32,
    /// Why a worker of it waits instead of working.
    pub holding: Option<String>,
    /// Seconds that its batches take for each that they would take at the old side's cost of the same time.
    pub pace: Option<f64>,
}

/// What a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// Give the new revision up.
    Abort,
    /// Take its word for it.
    Promote,
    /// Try one again that was given up.
    Retry,
}

impl Command {
    /// All of them, in the order in which they are answered: what is careful first.
    pub(crate) const ALL: [Self; 3] = [Self::Abort, Self::Promote, Self::Retry];

    /// The annotation that asks for it.
    pub(crate) const fn annotation(self) -> &'static str {
        match self {
            Self::Abort => "drover.dev/abort",
            Self::Promote => "drover.dev/promote",
            Self::Retry => "drover.dev/retry",
        }
    }
}
