//! A thousand pipelines on one operator: its memory, how soon it knows all of them again when it was killed, and what it asks of the
//! API server and the hub while nothing happens.
//!
//! Each has queues of its own, scales from zero and gets no message, so that there is no pod and the operator does all it ever does for
//! one: it reads the depth of its queue, decides, and looks after its topology. Suspended ones would be looked at as often, but no
//! worker would be wanted for them.
//!
//! The API server does not count who asks, so its requests are counted twice over the same time: with the operator at rest, and without
//! an operator. Only what the operator has rights to is counted, and the difference is the operator's.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::GetParams;
use kube::core::Request;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::crowd::{self, Process};
use super::{Figure, Outcome};
use crate::management::{call, segment};
use crate::pipeline::{READY, discarding};
use crate::sigkill::sigkill;
use crate::trial::{Trial, lone_trial};
use crate::until::{throughout, until, within};
use crate::{metrics, operator};

/// Pipelines that the operator looks after.
const PIPELINES: usize = 1_000;

/// The operator may have so many MiB, at any time.
const MEMORY: f64 = 150.0;

/// From its death, it may take so many seconds until it has reconciled all of them.
const AGAIN: f64 = 60.0;

/// Requests a second that are no watches: the one secret that all of them share is read every twenty seconds.
const REQUESTS: f64 = 0.1;

/// All of them are ready after so long at most; how long it takes is a figure.
const PATIENCE: Duration = Duration::from_mins(15);

/// How often the operator is asked how far it is: its answer tells of each pipeline, and is work.
const TICK: Duration = Duration::from_secs(1);

/// For so long requests are counted.
const IDLE: Duration = Duration::from_mins(1);

/// What the operator has rights to.
const RESOURCES: [&str; 11] = [
    "ingestpipelines",
    "windowqueries",
    "deployments",
    "configmaps",
    "serviceaccounts",
    "networkpolicies",
    "poddisruptionbudgets",
    "pods",
    "replicasets",
    "secrets",
    "events",
];

/// Measures.
pub async fn run() -> Result<Outcome> {
    let (mut rows, mut more) = (Vec::new(), Map::new());
    lone_trial("thousand", async |t| {
        let found = measure(t, &mut more).await;
        // An operator for those that follow, whatever is found.
        operator::install_chart(&t.client).await?;
        rows = found?;
        Ok(())
    })
    .await?;
    Ok(Outcome { bench: "1000 pipelines".to_owned(), rows, more })
}

/// What was found, in the units of the figures.
#[derive(Debug, Default)]
struct Found {
    ready: f64,
    memory: f64,
    peak: f64,
    again: f64,
    cpu: f64,
    connections: usize,
    asked: Requests,
}

async fn measure(t: &Trial, more: &mut Map<String, Value>) -> Result<Vec<Figure>> {
    let mut found = applied(t).await?;
    let with = found.asked.clone();
    started_anew(t, &mut found).await?;
    let without = without(t).await?;
    found.asked = less(&with, &without);
    for (name, asked) in [("with", &with), ("without", &without), ("operator", &found.asked)] {
        more.insert(format!("requests {name}"), told(asked));
    }
    Ok(figures(&found))
}

/// From none to all of them, and what these cost when nothing happens.
async fn applied(t: &Trial) -> Result<Found> {
    let operator = Process::find(&t.client).await?;
    let begin = Instant::now();
    crowd::apply(t, PIPELINES, idle).await?;
    reconciled(t).await?;
    let ready = begin.elapsed().as_secs_f64();
    observed(t).await?;
    let memory = at_rest(&operator).await?;
    let computed = operator.cpu()?;
    let asked = requests(&t.client).await?;
    let cpu = (operator.cpu()? - computed) / IDLE.as_secs_f64();
    let pods = t.list::<Pod>("").await?.len();
    ensure!(pods == 0, "{pods} pods, where no message has arrived");
    Ok(Found { ready, memory, cpu, asked, peak: operator.peak()?, connections: connections(t).await?, again: 0.0 })
}

/// Another operator finds all of them as they are.
async fn started_anew(t: &Trial, found: &mut Found) -> Result<()> {
    let pod = operator::pod(&t.client).await?;
    let killed = Instant::now();
    sigkill(&operator::namespace(&t.client), &pod).await?;
    reconciled(t).await?;
    found.again = killed.elapsed().as_secs_f64();
    let operator = Process::find(&t.client).await?;
    found.memory = found.memory.max(at_rest(&operator).await?);
    found.peak = found.peak.max(operator.peak()?);
    Ok(())
}

/// What others ask of the API server.
async fn without(t: &Trial) -> Result<Requests> {
    operator::install_chart_with(&t.client, &["replicaCount=0"]).await?;
    until(READY, async || {
        let left = operator::namespace(&t.client).list::<Pod>("").await?.len();
        ensure!(left == 0, "{left} pods of the operator are left");
        Ok(())
    })
    .await?;
    requests(&t.client).await
}

/// One that has work for the operator and none for a pod.
fn idle(number: usize) -> Value {
    let mut manifest = discarding(&format!("p-{number}"));
    manifest["spec"]["scaling"] = json!({ "minReplicas": 0 });
    manifest
}

/// Waits until the operator that runs has reconciled all of them, and says of each that it is ready.
async fn reconciled(t: &Trial) -> Result<()> {
    let own = format!("namespace=\"{}\"", t.namespace);
    let ready = async || -> Result<f64> {
        let text = operator::metrics(&t.client).await?;
        Ok(metrics::sum_where(&text, "drover_operator_ready", |labels| labels.contains(&own)).unwrap_or_default())
    };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = String::new();
    let all = timeout(PATIENCE, async {
        loop {
            tick.tick().await;
            match ready().await {
                #[expect(clippy::cast_precision_loss, reason = "a thousand")]
                Ok(count) if count >= PIPELINES as f64 => return,
                Ok(count) => last = format!("{count} of {PIPELINES} are ready"),
                // One that starts does not answer yet.
                Err(error) => last = format!("{error:#}"),
            }
        }
    });
    let all = all.await;
    all.map_err(|_| anyhow!("not within {} s: {last}", PATIENCE.as_secs()))
}

/// Waits until the cluster's own controllers are done with all Deployments, which they are much later: each word of theirs is one for the
/// operator too.
async fn observed(t: &Trial) -> Result<()> {
    within(PATIENCE, async || {
        // Each look is work for the API server.
        sleep(TICK).await;
        let is_new = |d: &Deployment| d.status.as_ref().and_then(|s| s.observed_generation) == d.metadata.generation;
        let done = t.list::<Deployment>("").await?.iter().filter(|d| is_new(d)).count();
        ensure!(done == PIPELINES, "the cluster has seen {done} of {PIPELINES} Deployments");
        Ok(())
    })
    .await
}

/// Leaves the operator alone for twice as long as it leaves a pipeline that is well alone; the most memory it had meanwhile.
async fn at_rest(operator: &Process) -> Result<f64> {
    let mut most = 0_f64;
    throughout(READY * 4, async || {
        most = most.max(operator.memory()?);
        Ok(())
    })
    .await?;
    Ok(most)
}

/// Requests by verb and resource.
type Requests = BTreeMap<[String; 2], f64>;

/// Those that the API server answers from now on, for a while, of what the operator has rights to.
async fn requests(client: &Client) -> Result<Requests> {
    let before = answered(client).await?;
    sleep(IDLE).await;
    Ok(less(&answered(client).await?, &before))
}

async fn answered(client: &Client) -> Result<Requests> {
    let request = Request::new("").get("metrics", &GetParams::default()).context("no request")?;
    Ok(counted(&client.request_text(request).await.context("the API server does not tell what it was asked")?))
}

/// What the API server counted so far.
fn counted(text: &str) -> Requests {
    let mut all = Requests::new();
    let by = ["verb", "resource", "subresource"];
    for ([verb, resource, of], count) in metrics::sums_by(text, "apiserver_request_total", by) {
        // A kubelet renews the tokens of pods and tells of their state.
        let theirs = of == "token" || (resource == "pods" && of == "status");
        if RESOURCES.contains(&resource.as_str()) && !theirs {
            *all.entry([verb, resource]).or_insert(0.0) += count;
        }
    }
    all
}

/// What is more in the first.
fn less(more: &Requests, fewer: &Requests) -> Requests {
    let difference = more.iter().map(|(key, count)| (key.clone(), count - fewer.get(key).copied().unwrap_or(0.0)));
    difference.filter(|(_, count)| *count > 0.0).collect()
}

fn told(requests: &Requests) -> Value {
    requests.iter().map(|([verb, resource], count)| (format!("{verb} {resource}"), json!(count))).collect()
}

/// Requests per second with such verbs.
fn rate(requests: &Requests, is_such: impl Fn(&str) -> bool) -> f64 {
    let such = requests.iter().filter(|([verb, _], _)| is_such(verb));
    such.map(|(_, count)| count).sum::<f64>() / IDLE.as_secs_f64()
}

/// Connections to the virtual host that are not this program's: without a pod they are the operator's.
async fn connections(t: &Trial) -> Result<usize> {
    let all = call("GET", &format!("vhosts/{}/connections", segment(&t.hub.name)), None).await?;
    let names = all.as_array().into_iter().flatten().map(|c| &c["client_properties"]["connection_name"]);
    Ok(names.filter(|name| *name != "drover-e2e").count())
}

fn figures(found: &Found) -> Vec<Figure> {
    let writes = |verb: &str| !["GET", "LIST", "WATCH"].contains(&verb);
    let (asked, written) = (rate(&found.asked, |verb| verb != "WATCH"), rate(&found.asked, writes));
    let watches = rate(&found.asked, |verb| verb == "WATCH");
    #[expect(clippy::cast_precision_loss, reason = "few")]
    let connections = found.connections as f64;
    let (memory, aim) = (format!("≤ {MEMORY} MiB"), "for comparison");
    vec![
        Figure::new("applied → all ready", None, found.ready, "s", aim, true),
        Figure::new("operator, memory at rest", None, found.memory, "MiB", &memory, found.memory <= MEMORY),
        Figure::new("the most it ever had", None, found.peak, "MiB", &memory, found.peak <= MEMORY),
        Figure::new("killed → all reconciled", None, found.again, "s", &format!("≤ {AGAIN} s"), found.again <= AGAIN),
        Figure::new(
            "requests to the API server at rest, but watches",
            None,
            asked,
            "/s",
            &format!("≤ {REQUESTS} /s"),
            asked <= REQUESTS,
        ),
        Figure::new("of these, writes", None, written, "/s", "none", written == 0.0),
        Figure::new("watches begun anew at rest", None, watches, "/s", aim, true),
        Figure::new("cores that the operator takes at rest", None, found.cpu, "", aim, true),
        Figure::new("its connections to the hub", None, connections, "", "1", found.connections == 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(verb: &str, resource: &str, of: &str, count: u32) -> String {
        format!(
            "apiserver_request_total{{code=\"200\",resource=\"{resource}\",subresource=\"{of}\",verb=\"{verb}\"}} {count}\n"
        )
    }

    #[test]
    fn what_others_ask_is_not_the_operators() {
        let others = request("GET", "leases", "", 7) + &request("POST", "serviceaccounts", "token", 3);
        let before = counted(&(others.clone() + &request("GET", "secrets", "", 2)));
        let now = counted(&(others + &request("GET", "secrets", "", 8) + &request("WATCH", "configmaps", "", 6)));
        let with = less(&now, &before);
        let without = counted(&request("GET", "secrets", "", 3));
        assert_eq!(told(&less(&with, &without)), json!({ "GET secrets": 3.0, "WATCH configmaps": 6.0 }));
    }

    #[test]
    fn watches_are_told_apart() {
        let asked = counted(&(request("WATCH", "pods", "", 12) + &request("APPLY", "ingestpipelines", "status", 6)));
        let rates = [rate(&asked, |verb| verb == "WATCH"), rate(&asked, |verb| verb != "WATCH")];
        assert_eq!(rates.map(|rate| format!("{rate:.1}")), ["0.2", "0.1"]);
    }
}
