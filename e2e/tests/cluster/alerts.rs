//! Alerts of the chart fire for what they are for: a real Prometheus scrapes the operator and workers, by way of the API server.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::resolved::WORKER_PORT;
use drover_e2e::operator;
use drover_e2e::pipeline::{NAME, READY, SEEN};
use drover_e2e::shell::{self, repository, target};
use drover_e2e::trial::{Trial, lone_trial};
use drover_e2e::until::{throughout, until};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// What `for:` is here, in place of minutes.
const LASTS: Duration = Duration::from_secs(3);

/// A Prometheus, and the proxy that it reaches the cluster by. Both end with this.
struct Prometheus {
    address: String,
    directory: PathBuf,
    namespace: String,
    _processes: [Child; 2],
}

/// The chart's alerts: expressions as they are, durations shortened.
fn rules() -> Result<String> {
    let file = repository().join("charts/drover/files/alerts.yaml");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let hastened = text.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: {}s\n", LASTS.as_secs()),
        _ => format!("{line}\n"),
    });
    Ok(hastened.collect())
}

/// Scrapes a pod through the API server, with labels as the chart's monitors add them.
fn scrapes(pod: &Pod, port: u16, proxy: &str, mut labels: Value) -> Value {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    labels["__metrics_path__"] = format!("/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/metrics").into();
    labels["namespace"] = namespace.into();
    labels["instance"] = name.clone().into();
    json!({ "job_name": name, "honor_labels": true, "static_configs": [{ "targets": [proxy], "labels": labels }] })
}

impl Prometheus {
    async fn start(t: &Trial) -> Result<Self> {
        let directory = target()?.join("e2e").join(&t.namespace);
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let mut kubectl = Command::new("kubectl");
        kubectl.args(["proxy", "--port=0"]).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut kubectl = kubectl.spawn().context("kubectl cannot be started")?;
        let mut lines = BufReader::new(kubectl.stdout.take().context("no standard output")?).lines();
        let told = lines.next_line().await?.unwrap_or_default();
        let proxy = told.rsplit(' ').next().filter(|address| address.starts_with("127.")).context("no proxy")?;
        let operator = operator::pod(&t.client).await?;
        let mut scraped = vec![scrapes(&operator, operator::PORT, proxy, json!({}))];
        for worker in t.workers(NAME).await? {
            scraped.push(scrapes(&worker, WORKER_PORT, proxy, json!({ "kind": "IngestPipeline", "name": NAME })));
        }
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": ["alerts.yaml"],
            "scrape_configs": scraped,
        });
        fs::write(directory.join("alerts.yaml"), rules()?)?;
        fs::write(directory.join("prometheus.yaml"), config.to_string())?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut prometheus = Command::new("prometheus");
        prometheus.args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--log.level=warn"]);
        prometheus.arg(format!("--web.listen-address={address}")).current_dir(&directory).kill_on_drop(true);
        prometheus.stderr(fs::File::create(directory.join("prometheus.log"))?);
        let prometheus = prometheus.spawn().context("prometheus cannot be started")?;
        Ok(Self { address, directory, namespace: t.namespace.clone(), _processes: [kubectl, prometheus] })
    }

    async fn ask(&self, path: &str) -> Result<Value> {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let answer = shell::run("curl", &["--silent", "--show-error", "--fail", "--max-time", "10", &url]).await?;
        Ok(serde_json::from_str::<Value>(&answer)?["data"].take())
    }

    /// It has scraped this metric.
    async fn has(&self, metric: &str) -> Result<()> {
        let found = self.ask(&format!("query?query={metric}")).await?;
        ensure!(found["result"].as_array().is_some_and(|series| !series.is_empty()), "no {metric} yet");
        Ok(())
    }

    /// The alerts that fire, of the trial and of no object: names, with those of the object.
    async fn firing(&self) -> Result<Vec<String>> {
        let found = self.ask("alerts").await?;
        let alerts = found["alerts"].as_array().context("no alerts")?;
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing").map(|alert| &alert["labels"]);
        let text = |label: &Value| label.as_str().unwrap_or_default().to_owned();
        let ours = firing.filter(|labels| [Value::Null, self.namespace.as_str().into()].contains(&labels["namespace"]));
        Ok(ours.map(|l| [&l["alertname"], &l["namespace"], &l["name"]].map(text).join(" ").trim().to_owned()).collect())
    }

    /// Silent before, an alert fires for what was done.
    async fn fires(&self, alert: &str, done: impl Future<Output = Result<()>>) -> Result<()> {
        let before = self.firing().await?;
        ensure!(!before.iter().any(|one| one == alert), "{before:?} before there is a cause");
        done.await?;
        until(SEEN * 2, async || {
            let firing = self.firing().await?;
            ensure!(firing.iter().any(|one| one == alert), "{alert} is not among {firing:?}");
            Ok(())
        })
        .await
    }
}

async fn alerts(t: &Trial) -> Result<()> {
    t.telemetry().await?;
    let prometheus = Prometheus::start(t).await?;
    until(READY, async || {
        for metric in ["drover_operator_reconciles_total", "drover_operator_dead_letters", "drover_worker_holding"] {
            prometheus.has(metric).await?;
        }
        let firing = prometheus.firing().await?;
        ensure!(firing.is_empty(), "{firing:?}");
        Ok(())
    })
    .await?;
    throughout(LASTS * 3, async || {
        let firing = prometheus.firing().await?;
        ensure!(firing.is_empty(), "all is well, and {firing:?}");
        Ok(())
    })
    .await?;
    let of_it = |alert: &str| format!("{alert} {} {NAME}", t.namespace);
    let refused = t.hub.publish("amq.topic", "devices.1", &["{"]);
    prometheus.fires(&of_it("DroverDeadLetters"), refused).await?;
    let without_a_table = async {
        t.store.owner.run(&format!("drop table {NAME}")).await?;
        t.publish(0..10).await
    };
    prometheus.fires(&of_it("DroverWorkersHold"), without_a_table).await?;
    let without_an_operator = operator::install_chart_with(&t.client, &["replicaCount=0"]);
    prometheus.fires("DroverOperatorDown", without_an_operator).await?;
    fs::remove_dir_all(&prometheus.directory).context("what it has written stays")
}

#[tokio::test]
async fn alerts_are_silent_while_all_is_well_and_fire_for_what_they_are_for() -> Result<()> {
    lone_trial("alerts", async |t| {
        let fired = alerts(t).await;
        // For the tests that follow, whatever is found.
        operator::install_chart(&t.client).await?;
        fired
    })
    .await
}
