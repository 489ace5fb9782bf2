//! What a request to send dead letters back comes to. Pure.

use std::time::Duration;

use drover_crds::{
    api::{LONGEST_REQUEST, RedriveStatus, RevisionLetters, RolloutStatus},
    resolved::Pipeline,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{Order, Progress};
use crate::{
    names,
    pipeline::{plan::Notice, snapshot::Snapshot},
    rollout,
};

/// A pod that is deleted without grace is gone from the API server before its processes have ended, and what they had in hand is a dead
/// letter after that.
const LINGERS: Duration = Duration::from_secs(15);

/// All that it depends on.
#[derive(Debug, Clone)]
pub(crate) struct Seen<'a> {
    /// The annotation.
    requested: Option<&'a str>,
    /// Letters of a revision that was given up.
    due: Option<&'a RevisionLetters>,
    /// What was told of the last one.
    old: Option<&'a RedriveStatus>,
    /// The last run of this process.
    run: Option<&'a Progress>,
    /// The spec is sound and the hub answers.
    ready: bool,
    now: Timestamp,
}

impl<'a> Seen<'a> {
    /// `rollout` is where the rollout goes from here.
    pub(crate) fn of(seen: &'a Snapshot, rollout: Option<&'a RolloutStatus>) -> Self {
        let annotations = seen.object.metadata.annotations.as_ref();
        Self {
            requested: annotations.and_then(|a| a.get(names::REDRIVE)).map(String::as_str).filter(|id| !id.is_empty()),
            due: rollout.and_then(|rollout| rollout.redrives.first()).filter(|letters| is_over(letters, seen.now)),
            old: seen.object.status.as_ref().and_then(|s| s.redrive.as_ref()),
            run: seen.redrive.as_ref(),
            ready: seen.admitted.is_ok() && seen.hub.is_fine(),
            now: seen.now,
        }
    }
}

/// True once nothing more comes from the revision's pods.
fn is_over(letters: &RevisionLetters, now: Timestamp) -> bool {
    let until: Option<Timestamp> = letters.until.as_ref().and_then(|until| until.parse().ok());
    until.is_none_or(|until| now >= until + LINGERS)
}

/// What follows.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Redriven {
    /// What is told.
    pub(crate) status: Option<RedriveStatus>,
    /// What is to be run.
    pub(crate) start: Option<Start>,
    /// What people are told at its end.
    pub(crate) notice: Option<Notice>,
}

/// A run to start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Start {
    id: String,
    of: Option<RevisionLetters>,
    before: i64,
}

impl Start {
    pub(crate) fn order(self, pipeline: &Pipeline) -> Order {
        Order::new(self.id, self.of, self.before, pipeline)
    }
}

/// One that has begun is brought to its end; then the next that was asked for is taken up, and then what revisions that were given up
/// have left.
pub(crate) fn decide(seen: &Seen<'_>) -> Redriven {
    let stays = || Redriven { status: seen.old.cloned(), ..Redriven::default() };
    let open = seen.old.filter(|old| old.finished_at.is_none()).cloned();
    let Some(status) = open.or_else(|| requested(seen)).or_else(|| due(seen)) else { return stays() };
    match seen.run.filter(|run| run.id == status.id) {
        Some(run) => told(status, run, seen.now),
        // Begun by an operator that is no more, or not yet begun.
        None if seen.ready => {
            let start = Start { id: status.id.clone(), of: status.of.clone(), before: status.redriven };
            Redriven { status: Some(status), start: Some(start), notice: None }
        }
        None => stays(),
    }
}

/// The ids that were answered, with that of a request that has come to its end. One that is too long for the list is told in
/// `status.redrive` alone.
pub(crate) fn answer(handled: &[String], id: &str, asked: &[String]) -> Vec<String> {
    let fits = Some(id.to_owned()).filter(|id| id.chars().count() <= LONGEST_REQUEST);
    rollout::remember(handled, fits.as_slice(), asked)
}

/// A request that nothing has come of yet.
fn requested(seen: &Seen<'_>) -> Option<RedriveStatus> {
    let done = |old: &RedriveStatus, id: &str| old.id == id || old.last_request.as_deref() == Some(id);
    let id = seen.requested.filter(|id| seen.old.is_none_or(|old| !done(old, id)))?;
    Some(begun(id.to_owned(), seen.now))
}

/// What nobody has asked for. The id is the same whoever makes it, and another for each time that a revision was on the source.
fn due(seen: &Seen<'_>) -> Option<RedriveStatus> {
    let letters = seen.due?;
    let before = seen.old.map(|old| old.last_request.clone().or_else(|| old.of.is_none().then(|| old.id.clone())));
    Some(RedriveStatus {
        of: Some(letters.clone()),
        last_request: before.flatten(),
        ..begun(format!("abort-{}-{}", letters.revision, letters.since), seen.now)
    })
}

fn begun(id: String, now: Timestamp) -> RedriveStatus {
    RedriveStatus {
        id,
        of: None,
        last_request: None,
        redriven: 0,
        remaining: None,
        started_at: Time(now),
        finished_at: None,
        message: None,
    }
}

fn told(mut status: RedriveStatus, run: &Progress, now: Timestamp) -> Redriven {
    status.redriven = run.redriven;
    status.remaining = run.remaining;
    let notice = run.end.as_ref().map(|end| {
        status.finished_at = Some(Time(now));
        status.message = end.as_ref().err().cloned();
        notice(&status)
    });
    Redriven { status: Some(status), start: None, notice }
}

fn notice(status: &RedriveStatus) -> Notice {
    let count = match &status.of {
        Some(of) => {
            format!("revision {} was given up: {} of its dead letters are sent back", of.revision, status.redriven)
        }
        None => format!("request {}: {} dead letters are sent back", status.id, status.redriven),
    };
    let (reason, note) = match (&status.message, status.remaining) {
        (Some(message), _) => ("RedriveFailed", format!("{count}, the others are where they were: {message}")),
        (None, Some(left)) if left > 0 && status.of.is_none() => ("Redriven", format!("{count}, {left} are left")),
        (None, _) => ("Redriven", count),
    };
    Notice { warning: status.message.is_some(), reason: reason.to_owned(), action: "Redrive", note }
}

#[cfg(test)]
mod tests {
    use drover_crds::api::HANDLED_REQUESTS;

    use super::*;

    const NOW: &str = "2026-01-02T12:00:00Z";

    #[test]
    fn letters_go_back_once_no_more_are_made() {
        let over = |until: &str| {
            let letters = RevisionLetters { until: Some(until.to_owned()), ..letters() };
            is_over(&letters, NOW.parse().unwrap())
        };
        assert!(!over("2026-01-02T11:59:50Z") && over("2026-01-02T11:59:45Z"));
        assert!(is_over(&letters(), NOW.parse().unwrap()));
    }

    fn seen<'a>(requested: Option<&'a str>, old: Option<&'a RedriveStatus>, run: Option<&'a Progress>) -> Seen<'a> {
        Seen { requested, due: None, old, run, ready: true, now: NOW.parse().unwrap() }
    }

    fn begun(id: &str, redriven: i64) -> RedriveStatus {
        RedriveStatus { redriven, ..super::begun(id.into(), "2026-01-02T11:00:00Z".parse().unwrap()) }
    }

    fn letters() -> RevisionLetters {
        RevisionLetters { revision: "b".into(), since: "s".into(), until: None }
    }

    #[test]
    fn letters_of_a_revision_wait_for_what_a_person_has_asked_for_and_do_not_repeat_it() {
        let due = letters();
        let with = |old, run| Seen { due: Some(&due), ..seen(Some("a"), old, run) };
        let (old, running) = (begun("a", 0), run("a", 1, 1, None));
        assert_eq!(decide(&with(Some(&old), Some(&running))).start, None, "a person's is not disturbed");
        let old = finished("a");
        let own = decide(&with(Some(&old), None));
        let id = "abort-b-s".to_owned();
        assert_eq!(own.start, Some(Start { id: id.clone(), of: Some(letters()), before: 0 }));
        let status = own.status.unwrap();
        let ended = run(&id, 4, 9, Some(Ok(())));
        let told = decide(&seen(Some("a"), Some(&status), Some(&ended)));
        assert_eq!(told.notice.unwrap().note, "revision b was given up: 4 of its dead letters are sent back");
        let after = decide(&seen(Some("a"), told.status.as_ref(), None));
        assert_eq!((after.start, after.status.clone()), (None, told.status.clone()), "the annotation is still there");
        let next = decide(&seen(Some("c"), told.status.as_ref(), None));
        assert_eq!(next.start, Some(Start { id: "c".into(), of: None, before: 0 }));
    }

    fn finished(id: &str) -> RedriveStatus {
        RedriveStatus { finished_at: Some(Time(NOW.parse().unwrap())), remaining: Some(0), ..begun(id, 7) }
    }

    fn run(id: &str, redriven: i64, remaining: i64, end: Option<Result<(), String>>) -> Progress {
        Progress { id: id.into(), redriven, remaining: Some(remaining), end }
    }

    #[test]
    fn nothing_happens_unless_it_is_asked_for() {
        assert_eq!(decide(&seen(None, None, None)), Redriven::default());
        let old = finished("a");
        assert_eq!(decide(&seen(None, Some(&old), None)).status, Some(old));
    }

    #[test]
    fn a_request_is_taken_up_once() {
        let first = decide(&seen(Some("a"), None, None));
        assert_eq!(first.start, Some(Start { id: "a".into(), of: None, before: 0 }));
        let (status, running) = (first.status.unwrap(), run("a", 3, 4, None));
        let second = decide(&seen(Some("a"), Some(&status), Some(&running)));
        assert_eq!((second.start, second.notice), (None, None));
        assert_eq!(second.status.map(|s| (s.redriven, s.remaining, s.finished_at)), Some((3, Some(4), None)));
        let old = finished("a");
        assert_eq!(decide(&seen(Some("a"), Some(&old), None)).start, None, "also by an operator that did not run it");
    }

    #[test]
    fn a_run_that_the_status_does_not_tell_of_yet_is_not_started_again() {
        let running = run("a", 3, 4, None);
        assert_eq!(decide(&seen(Some("a"), None, Some(&running))).start, None);
        let old = finished("z");
        assert_eq!(decide(&seen(Some("a"), Some(&old), Some(&running))).start, None);
    }

    #[test]
    fn what_an_operator_began_that_is_no_more_is_begun_again_and_counted_on() {
        let old = begun("a", 5);
        let again = decide(&seen(Some("a"), Some(&old), None));
        assert_eq!(again.start, Some(Start { id: "a".into(), of: None, before: 5 }));
        assert_eq!(again.status, Some(old));
    }

    #[test]
    fn the_next_request_waits_until_the_one_before_it_has_ended() {
        let (old, running) = (begun("a", 0), run("a", 1, 1, None));
        assert_eq!(decide(&seen(Some("b"), Some(&old), Some(&running))).start, None);
        let ended = run("a", 2, 0, Some(Ok(())));
        let told = decide(&seen(Some("b"), Some(&old), Some(&ended)));
        assert_eq!((told.start, told.notice.map(|n| n.reason)), (None, Some("Redriven".into())));
        let next = decide(&seen(Some("b"), told.status.as_ref(), Some(&ended)));
        assert_eq!(next.start, Some(Start { id: "b".into(), of: None, before: 0 }));
    }

    #[test]
    fn the_end_is_told_with_what_is_left() {
        let old = begun("a", 0);
        let all = run("a", 7, 0, Some(Ok(())));
        let told = decide(&seen(Some("a"), Some(&old), Some(&all)));
        assert_eq!(told.notice.unwrap().note, "request a: 7 dead letters are sent back");
        let broken = run("a", 3, 4, Some(Err("the hub ended the connection".into())));
        let told = decide(&seen(Some("a"), Some(&old), Some(&broken)));
        let notice = told.notice.unwrap();
        assert!(notice.warning && notice.reason == "RedriveFailed", "{notice:?}");
        let status = told.status.unwrap();
        assert!(status.finished_at.is_some() && status.message.unwrap().contains("connection"));
        assert_eq!(status.remaining, Some(4));
    }

    #[test]
    fn answered_requests_are_listed_once_and_only_the_newest() {
        let mut handled = Vec::new();
        for n in 0..20 {
            handled = answer(&handled, &n.to_string(), &[]);
            handled = answer(&handled, &n.to_string(), &[]);
        }
        handled = answer(&handled, &"x".repeat(257), &[]);
        assert_eq!((handled.len(), handled.first().map(String::as_str)), (HANDLED_REQUESTS, Some("4")));
    }

    #[test]
    fn without_the_hub_a_request_waits() {
        let waiting = Seen { ready: false, ..seen(Some("a"), None, None) };
        assert_eq!(decide(&waiting), Redriven::default());
    }
}
