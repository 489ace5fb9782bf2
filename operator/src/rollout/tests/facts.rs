//! Facts as tests have them.

use drover_crds::{
    api::{Cause, Evidence, Proof, RolloutPhase, RolloutStatus, Tally},
    resolved::Rollout,
};

use super::super::{Facts, Mirror, Side, Wanted};

/// Revision `a` is active, nothing is on its way.
pub(super) fn stable() -> RolloutStatus {
    RolloutStatus { active: Some("a".to_owned()), reason: "RevisionActive".to_owned(), ..RolloutStatus::default() }
}

/// A phase of the way from `a` to `b`.
pub(super) fn on_the_way(phase: RolloutPhase) -> RolloutStatus {
    RolloutStatus {
        phase,
        mirror: (phase == RolloutPhase::Previewing).then(|| "q.mirror-b".to_owned()),
        preview: Some("b".to_owned()),
        proof: Some(Proof::Preview),
        cause: Some(Cause::Spec),
        evidence: Some(Evidence::default()),
        ..stable()
    }
}

pub(super) fn wanted(name: &str, proof: Proof) -> Wanted {
    Wanted { name: name.to_owned(), proof, cause: Cause::Spec, mirror: Some(format!("q.mirror-{name}")) }
}

pub(super) fn consuming() -> Side {
    Side { exists: true, consumes: true, ..Side::default() }
}

/// All is well, `name` is asked for, and nothing has happened yet.
pub(super) fn facts(name: &str) -> Facts {
    Facts {
        now: "2026-01-01T00:00:00Z".to_owned(),
        policy: Rollout::resolve(None),
        wanted: Some(wanted(name, Proof::Preview)),
        may_start: true,
        turn: true,
        suspended: false,
        mirror: Mirror::Declared,
        preview: consuming(),
        new: consuming(),
        active_lost: false,
        retained_gone: false,
        evidence: None,
        requests: Vec::new(),
    }
}

/// The new side did so many messages of which so many failed, the old one so many.
pub(super) fn evidence(seconds: f64, new: (i64, i64), old: (i64, i64)) -> Evidence {
    let tally = |(processed, failed): (i64, i64)| Tally { processed, failed, ..Tally::default() };
    Evidence { seconds, active: tally(old), preview: tally(new), ..Evidence::default() }
}
