//! What the operator may do is what it does: the roles that the chart renders hold each verb that the code uses, and no other. The code is
//! run against an API server that notes what it is asked. That no verb is missing where none of this comes by, the tests on the cluster
//! show, which run with exactly these roles.

use std::{collections::BTreeSet, sync::Mutex, time::Duration};

use drover_worker::{hub::HubAddress, tls::Material};
use k8s_openapi::{
    api::{core::v1::ConfigMap, networking::v1::NetworkPolicy},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;
use crate::{
    audit::Cause,
    config::Traces,
    drift::Repair,
    minted::{self, Kept, Look, Role},
    pipeline::{
        act::{self, Object as OurKind},
        plan::{Doomed, Mark, Notice, Object, Plan},
        snapshot::Owned,
    },
};

/// Whatever is asked is asked within this, or never.
const PATIENCE: Duration = Duration::from_secs(20);

/// A verb, an API group, and a resource with its subresource.
type Right = (String, String, String);

/// An API server where everything asked for is there, which notes what was used of the rights.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<BTreeSet<Right>>>);

impl Server {
    fn has_made(&self, resource: &str) -> bool {
        self.0.lock().unwrap().iter().any(|(verb, _, made)| verb == "create" && made == resource)
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let answer = move |request: axum::http::Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let sent: Value = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
                let asked = Asked::of(&parts);
                server.0.lock().unwrap().extend(asked.rights(&sent));
                let (code, answer) = match asked.verb {
                    // Nothing happens any more.
                    "watch" => {
                        let silent = futures::stream::pending::<std::io::Result<Vec<u8>>>();
                        (200, axum::body::Body::from_stream(silent))
                    }
                    // The lease is made before it is there.
                    "get" if asked.resource == "leases" && !server.has_made("leases") => {
                        let missing = kube::core::Status::failure("", "NotFound").with_code(404);
                        (404, axum::body::Body::from(serde_json::to_string(&missing).unwrap()))
                    }
                    _ => (200, axum::body::Body::from(asked.answer(&sent).to_string())),
                };
                let answer = axum::http::Response::builder().status(code).body(answer);
                Ok::<_, std::convert::Infallible>(answer.unwrap())
            }
        };
        Client::new(tower::service_fn(answer), "n")
    }
}

/// A request.
struct Asked {
    verb: &'static str,
    group: String,
    resource: String,
    applies: bool,
}

impl Asked {
    fn of(parts: &axum::http::request::Parts) -> Self {
        let words: Vec<&str> = parts.uri.path().trim_matches('/').split('/').collect();
        let (group, rest) = if words[0] == "api" { ("", &words[2..]) } else { (words[1], &words[3..]) };
        let rest = if rest[0] == "namespaces" && rest.len() > 2 { &rest[2..] } else { rest };
        let query = parts.uri.query().unwrap_or_default();
        let verb = match parts.method.as_str() {
            "GET" if rest.len() > 1 => "get",
            "GET" if query.contains("watch=") => "watch",
            "GET" => "list",
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            other => panic!("no verb is known for {other}"),
        };
        let kind = parts.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let resource = rest.iter().enumerate().filter(|(n, _)| *n != 1).map(|(_, word)| *word).collect::<Vec<_>>();
        Self { verb, group: group.to_owned(), resource: resource.join("/"), applies: kind.contains("apply-patch") }
    }

    fn rights(&self, sent: &Value) -> Vec<Right> {
        let mut rights = vec![(self.verb.to_owned(), self.group.clone(), self.resource.clone())];
        // What is applied and not there yet is created. A status is of what is there.
        if self.applies && !self.resource.contains('/') {
            rights.push(("create".to_owned(), self.group.clone(), self.resource.clone()));
        }
        // Who holds up an owner's deletion needs a right of the owner's: nothing here does.
        let owners = sent["metadata"]["ownerReferences"].as_array().into_iter().flatten();
        for owner in owners.filter(|owner| owner["blockOwnerDeletion"] == true) {
            let plural = if owner["kind"] == "WindowQuery" { "windowqueries" } else { "ingestpipelines" };
            rights.push(("update".to_owned(), "drover.dev".to_owned(), format!("{plural}/finalizers")));
        }
        rights
    }

    fn answer(&self, sent: &Value) -> Value {
        let version = if self.group == "drover.dev" { "drover.dev/v1alpha1" } else { "v1" };
        let metadata = json!({ "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "1" });
        match (self.verb, self.resource.as_str()) {
            ("list", "ingestpipelines") => list(&[json!(pipeline(false)), json!(pipeline(true))]),
            ("list", "windowqueries") => list(&[json!(query(false))]),
            ("list", _) => list(&[]),
            ("get", "leases") => json!({ "metadata": metadata, "spec": { "holderIdentity": "me" } }),
            ("patch", "ingestpipelines" | "ingestpipelines/status") => json!(pipeline(true)),
            ("patch", "windowqueries" | "windowqueries/status") => json!(query(true)),
            _ if sent["kind"].is_string() && self.verb != "delete" => {
                let mut object = sent.clone();
                object["metadata"]["resourceVersion"] = json!("2");
                object
            }
            _ => json!({ "apiVersion": version, "kind": "Status", "status": "Success", "metadata": metadata }),
        }
    }
}

fn list(items: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1" }, "items": items })
}

fn held(metadata: &mut ObjectMeta, held: bool) {
    metadata.namespace = Some("n".to_owned());
    metadata.uid = metadata.name.clone();
    metadata.resource_version = Some("1".to_owned());
    metadata.finalizers = held.then(|| vec![names::FINALIZER.to_owned()]);
}

fn pipeline(finalized: bool) -> IngestPipeline {
    let spec = json!({ "hub": {"secretRef": {"name": "hub"}}, "source": {"queue": "q"}, "sink": {"discard": {}}, "deletionPolicy": "Delete" });
    let name = if finalized { "held" } else { "new" };
    let mut object = IngestPipeline::new(name, serde_json::from_value(spec).unwrap());
    held(&mut object.metadata, finalized);
    object
}

fn query(finalized: bool) -> WindowQuery {
    let spec = json!({
        "hub": {"secretRef": {"name": "hub"}}, "input": {"stream": "s"}, "deletionPolicy": "Delete",
        "query": "SELECT COUNT(*) AS c FROM input GROUP BY TUMBLINGWINDOW(second, 1)",
        "store": {"postgres": {"secretRef": {"name": "store"}}},
        "sink": {"postgres": {"secretRef": {"name": "store"}, "table": "t"}},
    });
    let mut object = WindowQuery::new("query", serde_json::from_value(spec).unwrap());
    held(&mut object.metadata, finalized);
    object
}

/// A plan with everything that a plan can hold.
fn everything<K: OurKind>(owner: &K) -> Plan {
    let metadata = ObjectMeta {
        name: Some("a".to_owned()),
        owner_references: owner.controller_owner_ref(&()).map(|reference| vec![reference]),
        ..ObjectMeta::default()
    };
    let objects = || {
        let metadata = metadata.clone();
        [
            Object::ServiceAccount(ServiceAccount { metadata: metadata.clone(), ..ServiceAccount::default() }),
            Object::NetworkPolicy(NetworkPolicy { metadata: metadata.clone(), ..NetworkPolicy::default() }),
            Object::DisruptionBudget(PodDisruptionBudget { metadata: metadata.clone(), ..Default::default() }),
            Object::ConfigMap(ConfigMap { metadata: metadata.clone(), ..ConfigMap::default() }),
            Object::Deployment(Box::new(Deployment { metadata, ..Deployment::default() })),
        ]
    };
    let repairs = [Repair::Create, Repair::Apply, Repair::Replace];
    let notice = Notice { warning: false, reason: "Told".into(), action: "Tell", note: "twice".into() };
    Plan {
        marks: vec![Mark { pod: "a".into(), annotation: names::LAST_EXIT, value: "1".into() }],
        writes: repairs.into_iter().flat_map(|repair| objects().map(|object| (object, repair))).collect(),
        status: Some(drover_crds::api::Status::default()),
        deletes: [Doomed::Deployment, Doomed::ConfigMap, Doomed::PodNow, Doomed::Pod].map(|d| d("a".into())).into(),
        // The second time, it is the first that is changed.
        events: vec![notice.clone(), notice],
        ..Plan::default()
    }
}

/// Writes a secret with passwords, as for users that are made.
async fn keep_passwords(ctx: &Context, object: &IngestPipeline) {
    let order = minted::order(object, &Owned::default(), names::labels("a"), Vec::new(), 30);
    let hub = HubAddress { uri: "amqp://u:p@hub".into(), tls: Material::default() };
    let cause = Cause::of(object, "");
    let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
    let look = Look { client: &ctx.client, metrics: &ctx.metrics, order: &order, hub: &hub, cause: &cause, now };
    look.keep(Role::Worker, Kept::default(), "a user is made").await.unwrap();
}

/// The rights of all roles that are bound to the operator, as the chart renders them for several replicas.
fn granted() -> BTreeSet<Right> {
    let text = include_str!("../../../crds/tests/snapshots/chart__replicated.snap");
    let objects: Vec<Value> =
        text.split("\n---\n").skip(1).filter_map(|object| serde_saphyr::from_str(object).ok()).collect();
    let bound: Vec<&Value> = objects.iter().map(|o| &o["roleRef"]["name"]).filter(|name| name.is_string()).collect();
    let roles = objects.iter().filter(|o| o["rules"].is_array() && bound.contains(&&o["metadata"]["name"]));
    let words = |rule: &Value, field: &str| -> Vec<String> { serde_json::from_value(rule[field].clone()).unwrap() };
    let mut rights = BTreeSet::new();
    for rule in roles.flat_map(|role| role["rules"].as_array().unwrap()) {
        for (verb, (group, resource)) in words(rule, "verbs").into_iter().flat_map(|verb| {
            let resources = words(rule, "resources");
            let pairs = words(rule, "apiGroups").into_iter().flat_map(move |g| {
                let group = g.clone();
                resources.clone().into_iter().map(move |r| (group.clone(), r))
            });
            pairs.map(move |pair| (verb.clone(), pair)).collect::<Vec<_>>()
        }) {
            rights.insert((verb, group, resource));
        }
    }
    rights
}

#[tokio::test]
async fn the_chart_grants_what_the_code_uses_and_nothing_else() {
    let server = Server::default();
    let client = server.client();
    let config = Config {
        worker_image: "w".into(),
        worker_pull_policy: "Never".into(),
        namespaces: Vec::new(),
        allowed_hosts: "".parse().unwrap(),
        traces: Traces::default(),
        listen: "127.0.0.1:0".parse().unwrap(),
        max_rollouts: 1,
        log_format: "text".into(),
        pod_namespace: None,
        leader_election: false,
        lease: "drover".into(),
        cluster_id: None,
        pod_name: None,
    };
    let (stop, health) = (CancellationToken::new(), Health::default());
    health.waiting.store(1, Ordering::Release);
    let metrics = Metrics::default();
    // Watches, finalizers and secrets.
    let working =
        tokio::spawn(work(config.clone(), client.clone(), Fence::default(), stop.clone(), health, metrics.clone()));
    // All that a plan can hold, of either kind, and the lease.
    let ctx = context(config, client.clone(), Fence::default(), &metrics, &[]);
    let doing = async {
        act::act(&ctx, &pipeline(true), &everything(&pipeline(true))).await.unwrap();
        act::act(&ctx, &query(true), &everything(&query(true))).await.unwrap();
        keep_passwords(&ctx, &pipeline(true)).await;
        let lease = Lease::new(client, "n", "drover", "me");
        lease.acquire(|| {}).await.release().await;
    };
    tokio::time::timeout(PATIENCE, doing).await.expect("every request is answered");
    let granted = granted();
    assert!(granted.len() > 20, "the chart's roles cannot be read: {granted:?}");
    let used = || server.0.lock().unwrap().clone();
    let all = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        while !granted.is_subset(&used()) {
            ticks.tick().await;
        }
    };
    let _ = tokio::time::timeout(PATIENCE, all).await;
    stop.cancel();
    working.abort();
    let used = used();
    assert_eq!(granted.difference(&used).collect::<Vec<_>>(), Vec::<&Right>::new(), "granted, and used by nothing");
    assert_eq!(used.difference(&granted).collect::<Vec<_>>(), Vec::<&Right>::new(), "used, and not granted");
}
