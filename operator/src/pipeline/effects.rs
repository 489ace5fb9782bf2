//! What people are told of what a plan writes, deletes and has found done at the hub: an Event of its own where that says more, one for
//! all the rest. Pure.

use super::plan::{Doomed, Notice, Object, Plan};
use crate::drift::Repair;

/// Of writes; `of` gives those that have an Event of their own.
pub(crate) fn tell_writes(plan: &mut Plan, of: impl Fn(&Object, Repair) -> Option<Notice>) {
    let mut rest = Vec::new();
    for (object, repair) in std::mem::take(&mut plan.writes) {
        let (kind, name) = object.describe();
        match of(&object, repair) {
            Some(notice) => {
                plan.because((kind, name), &notice.note);
                plan.events.push(notice);
            }
            None => rest.push(format!("{kind} {name} is {}", done(repair))),
        }
        plan.writes.push((object, repair));
    }
    plan.events.extend(all("Applied", "Apply", &rest));
}

/// Of deletions; `of` gives those that have an Event of their own.
pub(crate) fn tell_deletes(plan: &mut Plan, of: impl Fn(&Doomed) -> Option<Notice>) {
    let mut rest = Vec::new();
    for doomed in std::mem::take(&mut plan.deletes) {
        match of(&doomed) {
            Some(notice) => {
                plan.because(doomed.describe(), &notice.note);
                plan.events.push(notice);
            }
            None => rest.push(why(&doomed)),
        }
        plan.deletes.push(doomed);
    }
    plan.events.extend(all("Removed", "Delete", &rest));
}

/// Of what was done at the hub.
pub(crate) fn tell_hub(plan: &mut Plan, made: &[String]) {
    plan.events.extend(all("HubChanged", "Declare", made));
}

/// How an object is written.
pub(crate) fn done(repair: Repair) -> &'static str {
    match repair {
        Repair::Create => "made: it was not there",
        Repair::Apply => "written: it was not as it should be",
        Repair::Replace => "put back: somebody else had set fields of it",
    }
}

/// Why something is deleted that has no Event of its own.
pub(crate) fn why(doomed: &Doomed) -> String {
    let (kind, name) = doomed.describe();
    match doomed {
        Doomed::Deployment(_) | Doomed::Pod(_) => format!("{kind} {name} is not needed any more"),
        Doomed::ConfigMap(_) => format!("{kind} {name} is the environment of nothing any more"),
        Doomed::PodNow(_) => format!("{kind} {name} is of a revision that has failed: what it holds goes to others"),
    }
}

fn all(reason: &str, action: &'static str, notes: &[String]) -> Option<Notice> {
    let notice = || Notice { warning: false, reason: reason.to_owned(), action, note: notes.join("; ") };
    (!notes.is_empty()).then(notice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_event_of_its_own_is_told_by_one_for_all() {
        let mut plan =
            Plan { deletes: ["a", "b", "c"].map(|n| Doomed::ConfigMap(n.to_owned())).into(), ..Plan::default() };
        let own = |doomed: &Doomed| {
            let (_, name) = doomed.describe();
            let (reason, note) = ("Own".to_owned(), "why".to_owned());
            (name == "b").then_some(Notice { warning: false, reason, action: "Delete", note })
        };
        tell_deletes(&mut plan, own);
        let told: Vec<_> =
            plan.events.iter().map(|e| (e.reason.as_str(), e.note.matches("ConfigMap").count())).collect();
        assert_eq!(told, [("Own", 0), ("Removed", 2)]);
        assert_eq!((plan.deletes.len(), plan.why(("ConfigMap", "b"), "usual")), (3, "why".to_owned()));
        assert_eq!(plan.why(("ConfigMap", "a"), "usual"), "usual");
        tell_hub(&mut plan, &[]);
        assert_eq!(plan.events.len(), 2);
    }
}
