//! Properties of `next` over random states and facts: total, deterministic, and never ahead of what is known.

use drover_crds::api::{Cause, Cutover, Evidence, Proof, RolloutPhase, RolloutStatus, Tally};
use proptest::prelude::*;

use super::{
    super::{Command, Facts, Mirror, Side, next},
    facts::{facts, stable, wanted},
};

fn phases() -> impl Strategy<Value = RolloutPhase> {
    prop::sample::select(vec![
        RolloutPhase::Stable,
        RolloutPhase::Previewing,
        RolloutPhase::AwaitingPromotion,
        RolloutPhase::Promoting,
        RolloutPhase::Verifying,
        RolloutPhase::RollingBack,
        RolloutPhase::Aborted,
    ])
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

fn proof() -> impl Strategy<Value = Proof> {
    prop::sample::select(vec![Proof::Preview, Proof::Readiness])
}

fn tally() -> impl Strategy<Value = Tally> {
    (0_i64..2_000, 0_i64..100, 0_i64..3).prop_map(|(processed, failed, restarts)| Tally {
        processed,
        failed: failed.min(processed),
        restarts,
        ..Tally::default()
    })
}

fn evidence() -> impl Strategy<Value = Evidence> {
    (0.0_f64..700.0, 0.0_f64..700.0, 0.0_f64..=1.0, tally(), tally(), tally()).prop_map(
        |(seconds, waiting_seconds, progress, active, preview, before)| Evidence {
            seconds,
            waiting_seconds,
            progress_at_seconds: seconds * progress,
            active,
            preview,
            before,
        },
    )
}

fn state() -> impl Strategy<Value = RolloutStatus> {
    (phases(), prop::option::of(name()), prop::option::of(name()), proof(), prop::option::of(evidence()), any::<bool>())
        .prop_map(|(phase, preview, aborted_revision, proof, evidence, mirror)| RolloutStatus {
            phase,
            preview,
            aborted_revision,
            proof: Some(proof),
            evidence,
            mirror: mirror.then(|| "m".to_owned()),
            ..stable()
        })
}

fn side() -> impl Strategy<Value = Side> {
    (any::<bool>(), any::<bool>(), 0_u64..3).prop_map(|(exists, consumes, in_hand)| Side {
        exists: exists || consumes,
        consumes,
        in_hand,
        ..Side::default()
    })
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let mirror = prop::sample::select(vec![Mirror::Unknown, Mirror::Declared, Mirror::Gone]);
    let requests = prop::collection::vec(prop::sample::select(Command::ALL.to_vec()), 0..2);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (prop::option::of((name(), proof())), flags, mirror, side(), side(), prop::option::of(evidence()), requests)
        .prop_map(
            |(
                asked,
                (may_start, turn, suspended, exclusive, auto, active_lost),
                mirror,
                preview,
                new,
                evidence,
                requests,
            )| {
                let mut facts = Facts {
                    wanted: asked.map(|(name, proof)| wanted(&name, proof)),
                    may_start,
                    turn,
                    suspended,
                    active_lost,
                    mirror,
                    preview,
                    new,
                    evidence,
                    requests: requests.into_iter().map(|c| (c, "r".to_owned())).collect(),
                    ..facts("a")
                };
                facts.policy.auto_promotion = auto;
                facts.policy.cutover = if exclusive { Cutover::Exclusive } else { Cutover::Overlap };
                facts
            },
        )
}

/// All is well, and enough was seen.
fn good(name: &str) -> Facts {
    let tally = Tally { processed: 1_000, ..Tally::default() };
    Facts {
        evidence: Some(Evidence { seconds: 130.0, preview: tally, ..Evidence::default() }),
        mirror: Mirror::Declared,
        ..facts(name)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_same_facts_give_the_same_state(state in state(), facts in any_facts()) {
        prop_assert_eq!(next(&state, &facts), next(&state, &facts));
    }

    #[test]
    fn nothing_unknown_advances(mut state in state(), mut facts in any_facts()) {
        state.preview.get_or_insert_with(|| "b".to_owned());
        state.mirror.get_or_insert_with(|| "m".to_owned());
        facts.requests.clear();
        let blind = Facts { wanted: None, ..facts.clone() };
        let after = next(&state, &blind);
        prop_assert_eq!((after.phase, after.active, after.preview), (state.phase, state.active.clone(), state.preview.clone()));
        let unseen = Facts {
            mirror: Mirror::Unknown,
            active_lost: false,
            wanted: state.preview.as_deref().map(|name| wanted(name, Proof::Preview)),
            ..facts
        };
        if state.phase == RolloutPhase::Previewing && state.preview.is_some() {
            prop_assert_eq!(next(&state, &unseen).phase, RolloutPhase::Previewing);
        }
    }

    #[test]
    fn the_active_revision_changes_only_to_one_that_consumes_or_that_a_person_has_promoted(state in state(), facts in any_facts()) {
        let after = next(&state, &facts);
        if after.active != state.active && after.active.is_none() {
            prop_assert!(facts.active_lost && after.phase == RolloutPhase::Promoting);
        } else if after.active != state.active {
            let asked = facts.requests.iter().any(|(c, _)| *c == Command::Promote);
            prop_assert_eq!(&after.active, &state.preview);
            prop_assert!(facts.new.consumes || asked);
            prop_assert!(matches!(state.phase, RolloutPhase::Promoting | RolloutPhase::Verifying));
        }
    }

    #[test]
    fn one_with_pods_on_the_source_is_aborted_only_once_they_are_gone(state in state(), facts in any_facts()) {
        let after = next(&state, &facts);
        if after.phase == RolloutPhase::Aborted
            && matches!(state.phase, RolloutPhase::Promoting | RolloutPhase::Verifying | RolloutPhase::RollingBack)
        {
            prop_assert!(!facts.new.exists || state.preview.is_none() || state.phase != RolloutPhase::RollingBack);
            prop_assert!(state.phase == RolloutPhase::RollingBack || after.aborted_revision != state.preview || state.preview == state.aborted_revision);
        }
    }

    #[test]
    fn an_aborted_revision_is_not_started_again_by_the_same_spec(mut state in state(), mut facts in any_facts()) {
        facts.requests.clear();
        state.phase = RolloutPhase::Aborted;
        (state.preview, state.aborted_revision) = (None, Some("b".to_owned()));
        facts.wanted = Some(wanted("b", Proof::Preview));
        let after = next(&state, &facts);
        prop_assert_eq!((after.phase, after.preview), (RolloutPhase::Aborted, None));
    }

    #[test]
    fn from_any_history_a_good_revision_becomes_active(first in state(), history in prop::collection::vec(any_facts(), 0..20)) {
        let mut state = first;
        for facts in &history {
            state = next(&state, facts);
        }
        let asked = if state.aborted_revision.as_deref() == Some("c") { "b" } else { "c" };
        for round in 0..12 {
            let gone = Facts { mirror: Mirror::Gone, new: Side::default(), ..facts(asked) };
            let facts = if matches!(state.phase, RolloutPhase::Previewing | RolloutPhase::Promoting | RolloutPhase::Verifying) {
                good(asked)
            } else if state.phase == RolloutPhase::AwaitingPromotion {
                Facts { requests: vec![(Command::Promote, round.to_string())], ..facts(asked) }
            } else {
                gone
            };
            state = next(&state, &facts);
        }
        prop_assert_eq!((state.phase, state.active.as_deref(), state.cause), (RolloutPhase::Stable, Some(asked), None::<Cause>));
        prop_assert_eq!((state.preview, state.mirror), (None, None));
    }
}
