//! Queues, streams and exchanges that objects claim in a hub: of two that want the same, the older one has it.

use std::time::Instant;

use drover_crds::{
    api::{DeadLetterSpec, IngestPipeline, SecretRef, WindowQuery},
    resolved::{Pipeline, SUSPECT_STEPS, delay_queue, suspects_queue},
    resolved_query::Query,
};
use drover_worker::hub::HubAddress;
use k8s_openapi::jiff::Timestamp;
use kube::{Resource, ResourceExt as _};

use crate::{
    context::{Context, Guarded, GuardedQuery},
    pipeline::admit,
    problem::Problem,
    secrets::hub_address,
    windows,
};

/// An object of a hub, as far as claims go.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// What it is, for people.
    pub kind: &'static str,
    /// Namespace and name.
    pub owner: String,
    /// When it was made; the older one keeps what both want. The name decides between equals.
    pub since: Option<Timestamp>,
    /// Queues, streams and exchanges that it claims.
    pub names: Vec<String>,
}

impl Claim {
    fn new(kind: &'static str, object: &impl Resource, names: Vec<String>) -> Self {
        let meta = object.meta();
        let owner = [meta.namespace.as_deref(), meta.name.as_deref()].map(Option::unwrap_or_default).join("/");
        Self { kind, owner, since: meta.creation_timestamp.as_ref().map(|t| t.0), names }
    }

    /// What a pipeline claims.
    pub(crate) fn of_pipeline(object: &IngestPipeline, pipeline: &Pipeline) -> Self {
        let mut names = vec![pipeline.queue.clone(), pipeline.dead_letter_queue.clone(), pipeline.exchange()];
        if pipeline.handler.is_some() {
            names.extend((1..=SUSPECT_STEPS).map(|step| suspects_queue(&pipeline.queue, step)));
        }
        names.extend(pipeline.delays().into_iter().map(|seconds| delay_queue(&pipeline.queue, seconds)));
        Self::new("pipeline", object, names)
    }

    /// What a query claims: the name of its streams too, however many of them there are.
    pub(crate) fn of_query(object: &WindowQuery, query: &Query) -> Self {
        let mut names = query.streams();
        names.extend([query.dead_letter_queue.clone(), query.stream.clone(), query.exchange()]);
        Self::new("query", object, names)
    }
}

/// Refuses an object whose queue or stream an older one of the same hub has. Only those with the same names are looked at closely.
///
/// # Errors
/// `Claimed`, with the other's name.
pub(crate) async fn check(
    ctx: &Context,
    uid: Option<&str>,
    own: &Claim,
    hub: &HubAddress,
    instant: Instant,
) -> Result<(), Problem> {
    let mut others = Vec::new();
    for (claim, namespace, secret) in candidates(ctx, uid, own) {
        let Ok(data) = ctx.secrets.get(&ctx.client, &namespace, &secret.name, instant).await else { continue };
        let same = hub_address(&secret, &data).ok().and_then(|a| a.identity().ok());
        if same
            .is_some_and(|a| hub.identity().is_ok_and(|b| (&a.host, a.port, &a.vhost) == (&b.host, b.port, &b.vhost)))
        {
            others.push(claim);
        }
    }
    conflict(own, &others)
}

/// Others that claim one of the same names, in whatever hub: with the namespace and name of the hub's secret.
fn candidates(ctx: &Context, uid: Option<&str>, own: &Claim) -> Vec<(Claim, String, SecretRef)> {
    let near_pipeline = |other: &Guarded| {
        let spec = other.0.as_ref().ok().map(|o| &o.spec);
        spec.is_some_and(|s| is_near(&own.names, &s.source.queue, queue_of(s.dead_letter.as_ref())))
    };
    let near_query = |other: &GuardedQuery| {
        let spec = other.0.as_ref().ok().map(|o| &o.spec);
        spec.is_some_and(|s| is_near(&own.names, &s.input.stream, queue_of(s.dead_letter.as_ref())))
    };
    let pipelines = ctx.pipelines.iter().flat_map(|all| all.state_filter(near_pipeline)).filter_map(|other| {
        let other = other.0.as_ref().ok().filter(|o| o.uid().as_deref() != uid)?;
        let resolved = admit::resolve(other).ok()?;
        Some((Claim::of_pipeline(other, &resolved), other.namespace().unwrap_or_default(), resolved.hub))
    });
    let queries = ctx.queries.iter().flat_map(|all| all.state_filter(near_query)).filter_map(|other| {
        let other = other.0.as_ref().ok().filter(|o| o.uid().as_deref() != uid)?;
        let resolved = windows::admit::resolve(other).ok()?;
        Some((Claim::of_query(other, &resolved), other.namespace().unwrap_or_default(), resolved.hub))
    });
    let wants = |claim: &Claim| claim.names.iter().any(|n| own.names.contains(n));
    pipelines.chain(queries).filter(|(claim, ..)| wants(claim)).collect()
}

/// Whether an object may claim one of these names, told from its spec as it is written: each object is compared with all others at
/// every look, and resolving that many specs, with the queries in them, would be most of the operator's work. What an object claims is
/// named as its queue or stream is, with `.` or `-` and more behind it or not, or is its dead-letter queue.
fn is_near(names: &[String], source: &str, dead: Option<&str>) -> bool {
    names.iter().any(|name| {
        let rest = name.strip_prefix(source);
        dead == Some(name) || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
    })
}

fn queue_of(dead: Option<&DeadLetterSpec>) -> Option<&str> {
    dead?.queue.as_deref()
}

fn conflict(own: &Claim, others: &[Claim]) -> Result<(), Problem> {
    for other in others {
        let older = (other.since, &other.owner, other.kind) < (own.since, &own.owner, own.kind);
        if let Some(name) = own.names.iter().find(|q| other.names.contains(q)).filter(|_| older) {
            return Err(Problem::new(
                "Claimed",
                format!(
                    "{name} of this hub belongs to {kind} {}, which is older: name another, or delete that {kind}",
                    other.owner,
                    kind = other.kind,
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
            kind: "pipeline",
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

    #[test]
    fn whoever_claims_a_name_is_looked_at_closely() {
        let pipeline = |source: &str, dead: serde_json::Value| {
            let spec = serde_json::json!({
                "hub": { "secretRef": { "name": "hub" } },
                "source": { "queue": source },
                "transform": { "handler": { "image": "i" } },
                "sink": { "discard": {} },
                "deadLetter": dead,
            });
            IngestPipeline::new("p", serde_json::from_value(spec).unwrap())
        };
        for dead in [serde_json::json!({}), serde_json::json!({ "queue": "graveyard" })] {
            let object = pipeline("orders", dead);
            let resolved = admit::resolve(&object).unwrap();
            let claim = Claim::of_pipeline(&object, &resolved);
            assert!(claim.names.len() > 5, "with suspects and delays: {:?}", claim.names);
            for name in claim.names {
                let dead = queue_of(object.spec.dead_letter.as_ref());
                assert!(is_near(std::slice::from_ref(&name), "orders", dead), "{name}");
            }
        }
        let spec = serde_json::json!({
            "hub": { "secretRef": { "name": "hub" } },
            "input": { "alias": "input", "stream": "orders", "partitions": 3 },
            "query": "SELECT a, COUNT(*) AS n FROM input TIMESTAMP BY ts GROUP BY a, TUMBLINGWINDOW(second, 10)",
            "store": { "postgres": { "secretRef": { "name": "warehouse" } } },
            "sink": { "postgres": { "secretRef": { "name": "warehouse" }, "table": "t" } },
            "deadLetter": { "queue": "graveyard" },
        });
        let object = WindowQuery::new("q", serde_json::from_value(spec).unwrap());
        let claim = Claim::of_query(&object, &windows::admit::resolve(&object).unwrap());
        assert_eq!(claim.names.len(), 6, "{:?}", claim.names);
        for name in claim.names {
            assert!(is_near(std::slice::from_ref(&name), "orders", Some("graveyard")), "{name}");
        }
    }

    #[test]
    fn others_are_passed_over() {
        let own = ["p-1", "p-1.dead", "p-1.drover"].map(str::to_owned);
        assert!(is_near(&own, "p-1", None) && is_near(&own, "q", Some("p-1.dead")));
        assert!(!is_near(&own, "p-10", None) && !is_near(&own, "q", Some("q.dead")) && !is_near(&own, "p-", None));
    }
}
