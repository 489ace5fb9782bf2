//! The pods of a pipeline or query, by revision and by what they work on. Pure.

use std::collections::BTreeMap;

use super::{
    seen::Seen,
    worker::{Work, Worker},
};

/// What the pods of a lane are, in the order in which lanes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// They take the messages.
    Active,
    /// They are on the source too, and are to take over.
    New,
    /// They work on copies of what arrives.
    Preview,
    /// They finish what they hold, or wait in case the new ones fail.
    Other,
    /// They work on what was in flight when a worker or handler died.
    Suspects,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::New => "new",
            Self::Preview => "preview",
            Self::Other => "other",
            Self::Suspects => "suspects",
        }
    }
}

/// A row for each lane that has pods.
pub(super) fn lanes(seen: &Seen) -> Vec<Vec<String>> {
    let mut lanes: BTreeMap<(Role, String), Vec<&Worker>> = BTreeMap::new();
    for pod in seen.pods.iter().flatten() {
        lanes.entry(lane(seen, &pod.work)).or_default().push(pod);
    }
    lanes.into_iter().map(|((role, name), pods)| row(role, name, &pods)).collect()
}

/// The lane of a pod.
fn lane(seen: &Seen, work: &Work) -> (Role, String) {
    match work {
        Work::Suspects(step) => (Role::Suspects, format!("step {step}")),
        Work::Preview(revision) => (Role::Preview, revision.clone()),
        Work::Source(revision) if seen.status.active_revision.as_ref() == Some(revision) => {
            (Role::Active, revision.clone())
        }
        Work::Source(revision) if seen.preview.as_ref() == Some(revision) => (Role::New, revision.clone()),
        Work::Source(revision) if revision.is_empty() => (Role::Other, "?".to_owned()),
        Work::Source(revision) => (Role::Other, revision.clone()),
    }
}

fn row(role: Role, name: String, pods: &[&Worker]) -> Vec<String> {
    let ready = pods.iter().filter(|p| p.ready).count();
    let restarts: i32 = pods.iter().map(|p| p.restarts).sum();
    let mut images: Vec<&str> = Vec::new();
    for image in pods.iter().flat_map(|p| &p.images) {
        if !images.contains(&image.as_str()) {
            images.push(image);
        }
    }
    vec![
        name,
        role.as_str().to_owned(),
        format!("{ready}/{} ready", pods.len()),
        format!("{restarts} restarts"),
        images.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pod_is_in_the_lane_of_what_it_works_on() {
        let works = [
            Work::Suspects("1".into()),
            Work::Source("a0".into()),
            Work::Preview("c2".into()),
            Work::Source("c2".into()),
            Work::default(),
            Work::Source("b1".into()),
            Work::Suspects("2".into()),
        ];
        let pods = works.map(|work| Worker { work, ..Worker::default() });
        let mut seen = Seen { pods: Some(pods.to_vec()), preview: Some("c2".into()), ..Seen::default() };
        seen.status.active_revision = Some("b1".into());
        let told: Vec<String> = lanes(&seen).iter().map(|row| row[..2].join(" ")).collect();
        let expected =
            ["b1 active", "c2 new", "c2 preview", "? other", "a0 other", "step 1 suspects", "step 2 suspects"];
        assert_eq!(told, expected);
    }

    #[test]
    fn an_image_is_told_once_and_the_handlers_after_the_workers() {
        let pod = |worker: &str| Worker {
            images: vec![worker.into(), "handler h:1".into()],
            restarts: 1,
            ready: true,
            ..Worker::default()
        };
        let seen = Seen { pods: Some(vec![pod("w:1"), pod("w:1")]), ..Seen::default() };
        assert_eq!(lanes(&seen), [["?", "other", "2/2 ready", "2 restarts", "w:1, handler h:1"].map(str::to_owned)]);
    }
}
