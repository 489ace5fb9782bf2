//! What is promised of a rollout, one claim a test.

use drover_crds::{
    api::{Cause, Cutover, Evidence, Proof, RolloutPhase, RolloutStatus},
    resolved::Rollout,
};

use super::{
    super::{
        Command, Facts, Live, Mirror, Side, Sizes, next, remember, sizes,
        verdict::{Verdict, of_preview, of_takeover},
    },
    facts::{consuming, evidence, facts, on_the_way, stable, wanted},
};
use crate::problem::Problem;

fn phase(state: &RolloutStatus) -> (RolloutPhase, &str) {
    (state.phase, &state.reason)
}

fn after(state: &RolloutStatus, facts: &Facts, evidence: Evidence) -> RolloutStatus {
    next(state, &Facts { evidence: Some(evidence), ..facts.clone() })
}

#[test]
fn a_good_revision_is_previewed_promoted_verified_and_active() {
    let facts = facts("b");
    let previewing = next(&stable(), &facts);
    assert_eq!(
        (phase(&previewing), previewing.mirror.as_deref()),
        ((RolloutPhase::Previewing, "Previewing"), Some("q.mirror-b"))
    );
    let promoting = after(&previewing, &facts, evidence(20.0, (100, 0), (1_000, 0)));
    assert_eq!(phase(&promoting), (RolloutPhase::Promoting, "PreviewPassed"));
    let verifying = next(&promoting, &facts);
    assert_eq!(phase(&verifying), (RolloutPhase::Verifying, "TakesMessages"));
    let waits = after(&verifying, &facts, evidence(29.0, (1_000, 5), (5, 0)));
    assert_eq!(phase(&waits), (RolloutPhase::Verifying, "Verifying"), "the old one stays warm for a while");
    let done = after(&verifying, &facts, evidence(30.0, (1_000, 5), (5, 0)));
    assert_eq!(phase(&done), (RolloutPhase::Stable, "Verified"));
    assert_eq!((done.active.as_deref(), done.retained.as_deref(), done.priority), (Some("b"), Some("a"), 1));
    let settled = next(&done, &Facts { retained_gone: true, mirror: Mirror::Gone, ..facts });
    assert_eq!((settled.retained, settled.mirror, settled.preview), (None, None, None));
}

#[test]
fn the_first_revision_is_not_previewed_and_never_given_up() {
    let mut facts = facts("a");
    let none = RolloutStatus::default();
    let waits = next(&none, &Facts { may_start: false, ..facts.clone() });
    assert_eq!(phase(&waits), (RolloutPhase::Stable, "RevisionWaiting"));
    let starting = next(&waits, &facts);
    assert_eq!(phase(&starting), (RolloutPhase::Promoting, "FirstRevision"));
    facts.new = Side { exists: true, ..Side::default() };
    facts.requests = vec![(Command::Abort, "1".to_owned())];
    let late = after(&starting, &facts, Evidence { waiting_seconds: 9_000.0, ..Evidence::default() });
    assert_eq!(phase(&late), (RolloutPhase::Promoting, "ProgressDeadlineExceeded"));
    facts.new = consuming();
    let active = next(&late, &facts);
    assert_eq!((active.active.as_deref(), active.priority, active.retained.as_deref()), (Some("a"), 0, None));
}

#[test]
fn what_changes_nothing_of_the_work_is_promoted_on_readiness() {
    let mut facts = facts("b");
    facts.wanted = Some(wanted("b", Proof::Readiness));
    let promoting = next(&stable(), &facts);
    assert_eq!(phase(&promoting), (RolloutPhase::Promoting, "ReadinessDecides"));
    assert_eq!(next(&promoting, &facts).active.as_deref(), Some("b"));
    facts.new = Side { exists: true, ..Side::default() };
    let late = after(&promoting, &facts, Evidence { waiting_seconds: 600.0, ..Evidence::default() });
    assert_eq!(phase(&late), (RolloutPhase::RollingBack, "ProgressDeadlineExceeded"));
}

#[test]
fn without_a_binding_to_mirror_it_is_proven_on_the_source_and_says_so() {
    let mut facts = facts("b");
    facts.wanted.as_mut().unwrap().mirror = None;
    let promoting = next(&stable(), &facts);
    assert_eq!(phase(&promoting), (RolloutPhase::Promoting, "NothingToMirror"));
    assert_eq!(next(&promoting, &facts).phase, RolloutPhase::Verifying);
}

#[test]
fn one_whose_mirror_is_refused_waits_for_the_hub_and_is_given_up_in_time() {
    let problem = Problem::new("PermissionMissing", "the hub's user may not declare queue q.mirror-b");
    let facts = Facts { mirror: Mirror::Refused(problem), preview: Side::default(), ..facts("b") };
    let waits = after(
        &on_the_way(RolloutPhase::Previewing),
        &facts,
        Evidence { waiting_seconds: 599.0, ..Evidence::default() },
    );
    assert_eq!(phase(&waits), (RolloutPhase::Previewing, "MirrorRefused"));
    let given_up = after(&waits, &facts, Evidence { waiting_seconds: 600.0, ..Evidence::default() });
    assert_eq!(phase(&given_up), (RolloutPhase::Aborted, "MirrorRefused"));
    assert!(given_up.message.contains("may not declare") && given_up.message.contains("retry"), "{}", given_up.message);
    let granted = Facts { mirror: Mirror::Declared, preview: consuming(), ..facts };
    assert_eq!(phase(&next(&waits, &granted)), (RolloutPhase::Previewing, "Previewing"));
}

#[test]
fn a_preview_that_fails_is_given_up_and_the_same_spec_does_not_start_it_again() {
    let mut facts = facts("b");
    let broken =
        Side { exists: true, hindrance: Some(Problem::new("ImagePullFailed", "no such image")), ..Side::default() };
    facts.preview = broken;
    let waits = next(&on_the_way(RolloutPhase::Previewing), &facts);
    assert_eq!(phase(&waits), (RolloutPhase::Previewing, "ImagePullFailed"));
    let gone = after(&waits, &facts, Evidence { waiting_seconds: 600.0, ..Evidence::default() });
    assert_eq!(phase(&gone), (RolloutPhase::Aborted, "ProgressDeadlineExceeded"));
    assert_eq!(
        (gone.aborted_revision.as_deref(), gone.active.as_deref(), &gone.preview),
        (Some("b"), Some("a"), &None)
    );
    assert_eq!(next(&gone, &facts), gone, "a re-sync of the same spec");
    let gone = next(&gone, &Facts { mirror: Mirror::Gone, ..facts.clone() });
    let other = next(&gone, &Facts { wanted: Some(wanted("c", Proof::Preview)), ..facts.clone() });
    assert_eq!((other.phase, other.preview.as_deref()), (RolloutPhase::Previewing, Some("c")));
    let back = next(&gone, &Facts { wanted: Some(wanted("a", Proof::Preview)), ..facts });
    assert_eq!((phase(&back), &back.aborted_revision), ((RolloutPhase::Stable, "SpecChangedBack"), &None));
}

#[test]
fn every_kind_of_bad_preview_fails_for_its_reason() {
    let policy = facts("b").policy;
    let judge = |evidence: Evidence, side: Side| match of_preview(&policy, &evidence, &side) {
        Verdict::Failed(reason, _) => reason,
        _ => "",
    };
    let mut restarted = evidence(3.0, (0, 0), (10, 0));
    restarted.preview.restarts = 1;
    assert_eq!(judge(restarted, Side::default()), "Restarts");
    restarted.active.restarts = 1;
    assert_eq!(judge(restarted, Side::default()), "", "what kills the old one too is nobody's fault");
    assert_eq!(judge(evidence(3.0, (3, 3), (30, 0)), consuming()), "TooManyErrors", "a wrong column");
    assert_eq!(judge(evidence(60.0, (300, 15), (3_000, 0)), consuming()), "TooManyErrors", "5 % errors");
    assert_eq!(judge(evidence(60.0, (300, 15), (3_000, 150)), consuming()), "", "the old one has them too");
    let hangs = Side { in_hand: 5, ..consuming() };
    assert_eq!(judge(evidence(20.0, (0, 0), (300, 0)), hangs), "Hangs");
    let holds = Side { holding: Some("table t is missing".to_owned()), ..consuming() };
    assert_eq!(judge(evidence(30.0, (0, 0), (300, 0)), holds), "Holds");
}

#[test]
fn one_that_hangs_is_found_at_any_time_and_one_whose_messages_last_long_is_not() {
    let policy = facts("b").policy;
    let judge = |still: f64, timeout: u32, in_hand: u64| {
        let evidence = Evidence { progress_at_seconds: 70.0 - still, ..evidence(70.0, (40, 0), (3, 0)) };
        let side = Side { in_hand, timeout, ..consuming() };
        let exclusive = Rollout { cutover: Cutover::Exclusive, ..policy };
        let all = [of_preview(&policy, &evidence, &side), of_takeover(&exclusive, &evidence, &side, false)];
        all.map(|verdict| matches!(verdict, Verdict::Failed("Hangs", _)))
    };
    assert_eq!(judge(20.0, 0, 5), [true, true], "it has done some before");
    assert_eq!(judge(19.0, 0, 5), [false, false]);
    assert_eq!(judge(20.0, 0, 0), [false, false], "it has nothing to do");
    assert_eq!(judge(59.0, 30, 5), [false, false], "its messages may last so long");
    assert_eq!(judge(60.0, 30, 5), [true, true]);
    assert_eq!(judge(20.0, 5, 5), [true, true]);
}

#[test]
fn a_quiet_pipeline_is_judged_by_readiness_and_says_so() {
    let facts = facts("b");
    let previewing = on_the_way(RolloutPhase::Previewing);
    assert_eq!(after(&previewing, &facts, evidence(119.0, (1, 0), (1, 0))).phase, RolloutPhase::Previewing);
    let promoting = after(&previewing, &facts, evidence(120.0, (1, 0), (1, 0)));
    assert_eq!(phase(&promoting), (RolloutPhase::Promoting, "ProvenByReadiness"));
    let verifying = on_the_way(RolloutPhase::Verifying);
    assert_eq!(
        phase(&after(&verifying, &facts, evidence(60.0, (0, 0), (0, 0)))),
        (RolloutPhase::Verifying, "Verifying")
    );
    assert_eq!(
        phase(&after(&verifying, &facts, evidence(120.0, (0, 0), (0, 0)))),
        (RolloutPhase::Stable, "ProvenByReadiness")
    );
}

#[test]
fn a_short_wait_for_the_old_side_is_no_proof_that_the_new_one_carries_the_load() {
    let mut facts = facts("b");
    facts.policy.scale_down_delay_seconds = 5;
    let verifying = on_the_way(RolloutPhase::Verifying);
    let early = after(&verifying, &facts, evidence(6.0, (700, 0), (2300, 0)));
    assert_eq!(phase(&early), (RolloutPhase::Verifying, "Verifying"));
    let told = after(&verifying, &facts, evidence(10.0, (1000, 0), (4000, 0)));
    assert_eq!(phase(&told), (RolloutPhase::Verifying, "ScaledUp"));
    let carries = after(&verifying, &facts, evidence(10.0, (4990, 0), (10, 0)));
    assert_eq!(phase(&carries), (RolloutPhase::Stable, "Verified"));
}

#[test]
fn one_that_cannot_carry_the_load_is_given_more_once_and_then_is_too_slow() {
    let facts = facts("b");
    let verifying = on_the_way(RolloutPhase::Verifying);
    let scaled = after(&verifying, &facts, evidence(10.0, (600, 0), (400, 0)));
    assert_eq!((phase(&scaled), scaled.scaled_up), ((RolloutPhase::Verifying, "ScaledUp"), true));
    assert_eq!(scaled.evidence.unwrap().seconds.total_cmp(&0.0), std::cmp::Ordering::Equal, "it is measured anew");
    let early = after(&scaled, &facts, evidence(9.0, (60, 0), (40, 0)));
    assert_eq!(phase(&early), (RolloutPhase::Verifying, "Verifying"));
    let failed = after(&scaled, &facts, evidence(10.0, (600, 0), (400, 0)));
    assert_eq!(phase(&failed), (RolloutPhase::RollingBack, "TooSlow"));
    let better = after(&scaled, &facts, evidence(30.0, (970, 0), (30, 0)));
    assert_eq!(phase(&better), (RolloutPhase::Stable, "Verified"));
}

#[test]
fn one_that_shares_the_load_and_is_no_slower_waits_for_what_both_lack() {
    let mut facts = facts("b");
    facts.policy.progress_deadline_seconds = 60;
    let mut verifying = on_the_way(RolloutPhase::Verifying);
    verifying.scaled_up = true;
    let mut judge = |pace, seconds, shares: (i64, i64)| {
        facts.new.pace = pace;
        let state = after(&verifying, &facts, evidence(seconds, (shares.0, 0), (shares.1, 0)));
        (state.phase, state.reason)
    };
    let is = |phase, reason: &str| (phase, reason.to_owned());
    assert_eq!(judge(Some(1.1), 30.0, (600, 400)), is(RolloutPhase::Verifying, "SharesLoad"));
    assert_eq!(judge(Some(1.1), 60.0, (600, 400)), is(RolloutPhase::RollingBack, "ProgressDeadlineExceeded"));
    assert_eq!(judge(Some(1.1), 40.0, (970, 30)), is(RolloutPhase::Stable, "Verified"));
    assert_eq!(judge(Some(2.0), 30.0, (600, 400)), is(RolloutPhase::RollingBack, "TooSlow"));
    assert_eq!(judge(None, 30.0, (600, 400)), is(RolloutPhase::RollingBack, "TooSlow"), "nothing speaks for it");
}

#[test]
fn a_failed_takeover_is_taken_away_before_it_is_called_aborted() {
    let mut facts = facts("b");
    let failed = after(&on_the_way(RolloutPhase::Verifying), &facts, evidence(12.0, (400, 40), (3, 0)));
    assert_eq!(phase(&failed), (RolloutPhase::RollingBack, "TooManyErrors"));
    assert_eq!((failed.active.as_deref(), failed.aborted_revision.as_deref()), (Some("a"), Some("b")));
    assert_eq!(next(&failed, &facts).phase, RolloutPhase::RollingBack, "its pods are still there");
    facts.new = Side::default();
    let aborted = next(&failed, &facts);
    assert_eq!(phase(&aborted), (RolloutPhase::Aborted, "TooManyErrors"));
    assert_eq!(aborted.priority, 0);
}

#[test]
fn with_natural_errors_twenty_good_revisions_are_promoted() {
    let policy = facts("b").policy;
    // One message of 200 is bad, and which ones fall on the new side is chance.
    let mut random = 7_u64;
    let mut bad = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33).is_multiple_of(200)
    };
    for rollout in 0..20 {
        let (mut new, mut old) = ((0, 0), (0, 0));
        let passed = (1..=120).any(|second| {
            for _ in 0..50 {
                new = (new.0 + 1, new.1 + i64::from(bad()));
                old = (old.0 + 10, old.1 + (0..10).map(|_| i64::from(bad())).sum::<i64>());
            }
            match of_preview(&policy, &evidence(f64::from(second), new, old), &consuming()) {
                Verdict::Failed(reason, why) => panic!("rollout {rollout}: {reason}: {why}"),
                verdict => matches!(verdict, Verdict::Passed(..)),
            }
        });
        assert!(passed);
    }
}

#[test]
fn errors_that_were_usual_before_the_cutover_are_usual_after_it() {
    let policy = facts("b").policy;
    let mut after = evidence(30.0, (1_000, 30), (2, 0));
    let before = evidence(0.0, (0, 0), (5_000, 150)).active;
    assert!(matches!(of_takeover(&policy, &after, &consuming(), false), Verdict::Failed("TooManyErrors", _)));
    after.before = before;
    assert!(matches!(of_takeover(&policy, &after, &consuming(), false), Verdict::Passed("Verified", _)));
}

#[test]
fn a_change_midway_starts_again_from_the_newest_and_one_back_returns_at_once() {
    for on in
        [RolloutPhase::Previewing, RolloutPhase::AwaitingPromotion, RolloutPhase::Promoting, RolloutPhase::Verifying]
    {
        let newest = next(&RolloutStatus { mirror: None, ..on_the_way(on) }, &facts("c"));
        assert_eq!((newest.phase, newest.preview.as_deref()), (RolloutPhase::Previewing, Some("c")), "{on:?}");
        let back = next(&on_the_way(on), &facts("a"));
        assert_eq!(
            (back.phase, back.active.as_deref(), back.preview),
            (RolloutPhase::Stable, Some("a"), None),
            "{on:?}"
        );
    }
    let mut mirrored = on_the_way(RolloutPhase::Previewing);
    mirrored.mirror = Some("q.mirror-b".to_owned());
    let waits = next(&mirrored, &facts("c"));
    assert_eq!(phase(&waits), (RolloutPhase::Stable, "MirrorRemains"), "one mirror at a time");
    let gone = next(&waits, &Facts { mirror: Mirror::Gone, ..facts("c") });
    assert_eq!((gone.phase, gone.mirror.as_deref()), (RolloutPhase::Previewing, Some("q.mirror-c")));
}

#[test]
fn an_exclusive_takeover_that_is_turned_away_goes_before_the_old_side_starts_again() {
    let mut facts = facts("a");
    facts.policy.cutover = Cutover::Exclusive;
    let back = next(&on_the_way(RolloutPhase::Verifying), &facts);
    assert_eq!(phase(&back), (RolloutPhase::RollingBack, "SpecChanged"));
    facts.new = Side::default();
    let settled = next(&back, &facts);
    assert_eq!((settled.phase, settled.aborted_revision), (RolloutPhase::Stable, None));
}

#[test]
fn requests_are_answered_where_they_mean_something_and_change_nothing_elsewhere() {
    let ask = |state: &RolloutStatus, command, name: &str| {
        next(state, &Facts { requests: vec![(command, "1".to_owned())], ..facts(name) })
    };
    let mut by_hand = facts("b");
    by_hand.policy.auto_promotion = false;
    let awaits = after(&on_the_way(RolloutPhase::Previewing), &by_hand, evidence(9.0, (100, 0), (9, 0)));
    assert_eq!(phase(&awaits), (RolloutPhase::AwaitingPromotion, "PreviewPassed"));
    assert_eq!(next(&awaits, &by_hand), awaits, "a person decides");
    assert_eq!(phase(&ask(&awaits, Command::Promote, "b")), (RolloutPhase::Promoting, "PromoteRequested"));
    let aborted = ask(&awaits, Command::Abort, "b");
    assert_eq!(phase(&aborted), (RolloutPhase::Aborted, "AbortRequested"));
    let again = ask(&RolloutStatus { mirror: None, ..aborted }, Command::Retry, "b");
    assert_eq!((again.phase, again.preview.as_deref()), (RolloutPhase::Previewing, Some("b")));
    let verifying = on_the_way(RolloutPhase::Verifying);
    assert_eq!(ask(&verifying, Command::Promote, "b").active.as_deref(), Some("b"));
    assert_eq!(phase(&ask(&verifying, Command::Abort, "b")), (RolloutPhase::RollingBack, "AbortRequested"));
    for command in Command::ALL {
        assert_eq!(ask(&stable(), command, "a"), stable());
    }
}

#[test]
fn an_id_is_remembered_as_long_as_an_annotation_carries_it() {
    let before: Vec<String> = (0..16).map(|n| n.to_string()).collect();
    let answered = ["new".to_owned()];
    let kept = remember(&before, &answered, &["0".to_owned(), "new".to_owned()]);
    assert_eq!((kept.len(), kept[0].as_str(), kept[1].as_str(), kept[15].as_str()), (16, "0", "2", "new"));
}

#[test]
fn one_that_the_operator_causes_waits_for_its_turn() {
    let mut facts = facts("b");
    facts.wanted.as_mut().unwrap().cause = Cause::Operator;
    facts.turn = false;
    let waits = next(&stable(), &facts);
    assert_eq!((phase(&waits), waits.preview.as_deref()), ((RolloutPhase::Stable, "WaitsForItsTurn"), Some("b")));
    facts.turn = true;
    assert_eq!(next(&waits, &facts).phase, RolloutPhase::Previewing);
}

#[test]
fn the_side_that_takes_over_is_never_made_smaller_and_the_old_one_follows_the_load() {
    let verifying = on_the_way(RolloutPhase::Verifying);
    let live = Live { new: 5, active_pods: true, new_pods: true };
    let of = |state: &RolloutStatus, need| sizes(state, Cutover::Overlap, live, need, 20, false, 2);
    assert_eq!(of(&verifying, 3), Sizes { active: 3, new: Some(5), preview: None });
    assert_eq!(of(&verifying, 8), Sizes { active: 8, new: Some(8), preview: None });
    let scaled = RolloutStatus { scaled_up: true, ..verifying };
    assert_eq!(of(&scaled, 8).new, Some(12));
    assert_eq!(of(&scaled, 16).new, Some(20), "no more than are allowed");
    assert_eq!(of(&on_the_way(RolloutPhase::Previewing), 0), Sizes { active: 0, new: None, preview: Some(2) });
    assert_eq!(of(&on_the_way(RolloutPhase::RollingBack), 3), Sizes { active: 3, new: None, preview: None });
}

#[test]
fn an_exclusive_takeover_starts_when_the_old_side_has_no_pod_left_and_the_same_way_back() {
    let at = |phase, active_pods, new_pods| {
        let live = Live { new: 0, active_pods, new_pods };
        let found = sizes(&on_the_way(phase), Cutover::Exclusive, live, 2, 20, false, 1);
        (found.active, found.new)
    };
    assert_eq!(at(RolloutPhase::Promoting, true, false), (0, None));
    assert_eq!(at(RolloutPhase::Promoting, false, false), (0, Some(2)));
    assert_eq!(at(RolloutPhase::Verifying, false, true), (0, Some(2)));
    assert_eq!(at(RolloutPhase::RollingBack, false, true), (0, None));
    assert_eq!(at(RolloutPhase::RollingBack, false, false), (2, None));
}
