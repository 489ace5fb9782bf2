//! Whether a pipeline may be: its spec is sound, and nobody has claimed its queues before. Pure.

use drover_crds::{
    api::IngestPipeline,
    resolved::{Invalid, Pipeline, SUSPECT_STEPS, delay_queue, suspects_queue},
};

use crate::problem::Problem;

/// A pipeline of the same hub, as far as claims go.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// Namespace and name.
    pub owner: String,
    /// When it was made; the older one keeps what both want. The name decides between equals.
    pub since: Option<k8s_openapi::jiff::Timestamp>,
    /// Queues and exchange that it claims.
    pub names: Vec<String>,
}

/// Reads the spec.
pub(super) fn resolve(object: &IngestPipeline) -> Result<Pipeline, Problem> {
    Pipeline::resolve(&object.spec).map_err(|e| {
        let reason = match e {
            Invalid::Query(_) | Invalid::Alias(_) => "InvalidQuery",
            _ => "InvalidSpec",
        };
        Problem::new(reason, e.to_string())
    })
}

/// What a pipeline claims in its hub.
pub(super) fn claimed_names(pipeline: &Pipeline) -> Vec<String> {
    let mut names = vec![pipeline.queue.clone(), pipeline.dead_letter_queue.clone()];
    if pipeline.handler.is_some() {
        names.extend((1..=SUSPECT_STEPS).map(|step| suspects_queue(&pipeline.queue, step)));
    }
    names.extend(pipeline.delays().into_iter().map(|seconds| delay_queue(&pipeline.queue, seconds)));
    names
}

/// Refuses a pipeline whose queue an older one of the same hub has.
pub(super) fn conflict(own: &Claim, others: &[Claim]) -> Result<(), Problem> {
    for other in others {
        let older = (other.since, &other.owner) < (own.since, &own.owner);
        if let Some(queue) = own.names.iter().find(|q| other.names.contains(q)).filter(|_| older) {
            return Err(Problem::new(
                "Claimed",
                format!(
                    "queue {queue} of this hub belongs to pipeline {}, which is older: name another queue, or delete that pipeline",
                    other.owner
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(owner: &str, since: i64, names: &[&str]) -> Claim {
        Claim {
            owner: owner.to_owned(),
            since: k8s_openapi::jiff::Timestamp::from_second(since).ok(),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
        }
    }

    #[test]
    fn the_older_of_two_keeps_the_queue() {
        let (old, young) = (claim("a/x", 1, &["q", "q.dead"]), claim("a/y", 2, &["q.dead", "other"]));
        assert_eq!(conflict(&old, std::slice::from_ref(&young)), Ok(()));
        let problem = conflict(&young, &[old]).unwrap_err();
        assert_eq!(problem.reason, "Claimed");
        assert!(problem.message.contains("a/x") && problem.message.contains("q.dead"), "{}", problem.message);
    }

    #[test]
    fn of_two_of_the_same_second_exactly_one_is_refused() {
        let (a, b) = (claim("n/a", 1, &["q"]), claim("n/b", 1, &["q"]));
        assert!(conflict(&a, std::slice::from_ref(&b)).is_ok() && conflict(&b, std::slice::from_ref(&a)).is_err());
    }
}
