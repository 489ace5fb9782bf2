//! What kubectl shows.

use anyhow::{Result, ensure};
use drover_crds::api::WindowQuery;
use drover_e2e::pipeline::{NAME, SEEN};
use drover_e2e::query::{condition, is_current, told};
use drover_e2e::shell;
use drover_e2e::trial::trial;
use serde_json::{Value, json};

fn window_query(query: &str) -> Value {
    json!({
        "metadata": { "name": "counts" },
        "spec": {
            "hub": { "secretRef": { "name": "hub" } },
            "input": { "stream": "telemetry.log" },
            "query": query,
            "store": { "postgres": { "secretRef": { "name": "warehouse" } } },
            "sink": { "postgres": { "secretRef": { "name": "warehouse" }, "table": "counts" } },
        },
    })
}

#[tokio::test]
async fn the_text_of_a_window_query_is_checked() -> Result<()> {
    trial("window-query", async |t| {
        let sound =
            "SELECT System.Timestamp() AS WindowEnd, COUNT(*) AS Count FROM input GROUP BY TUMBLINGWINDOW(minute, 1)";
        let accepted = |status: &'static str, reason: &'static str| {
            move |query: &WindowQuery| {
                is_current(query)?;
                let accepted = condition(query, "Accepted");
                let found = accepted.map(|c| (c.status.as_str(), c.reason.as_str()));
                ensure!(found == Some((status, reason)), "{}", told(query));
                Ok(())
            }
        };
        t.apply::<WindowQuery>(&window_query("SELECT FROM")).await?;
        t.awaits::<WindowQuery>("counts", SEEN, accepted("False", "InvalidQuery")).await?;
        t.apply::<WindowQuery>(&window_query(sound)).await?;
        t.awaits::<WindowQuery>("counts", SEEN, accepted("True", "Accepted")).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn kubectl_get_shows_what_matters() -> Result<()> {
    trial("columns-shown", async |t| {
        let pipeline = t.telemetry().await?;
        let shown = t.kubectl(&["get", "ipl"]).await?;
        let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        let revision = pipeline.status.and_then(|status| status.active_revision).unwrap_or_default();
        ensure!(
            lines[0] == ["NAME", "READY", "PHASE", "LAG", "RATE", "REPLICAS", "REVISION", "DEAD", "AGE"],
            "{shown}"
        );
        ensure!(lines[1][..3] == [NAME, "True", "Running"], "{shown}");
        // Of LAG and RATE nothing is known at first, and then nothing is printed.
        let last: Vec<&str> = lines[1].iter().rev().skip(1).take(3).rev().copied().collect();
        ensure!(last == ["1", &revision, "0"], "{shown}");
        let all = t.kubectl(&["get", "drover"]).await?;
        ensure!(all.contains(NAME), "the category drover does not list it: {all}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn kubectl_explain_explains_every_field() -> Result<()> {
    trial("explain", async |_| {
        for kind in ["ingestpipelines", "windowqueries"] {
            let text =
                shell::run("kubectl", &["explain", &format!("{kind}.spec"), "--api-version=drover.dev/v1alpha1"])
                    .await?;
            let described = !text.contains("<empty>") && !text.contains("<no description>");
            ensure!(described && text.contains("FIELDS:"), "{kind}: {text}");
        }
        let paths = [
            ("ingestpipelines.spec.source.queue", "quorum queue"),
            ("ingestpipelines.spec.sink.postgres.orderBy", "newer or equal"),
            ("ingestpipelines.spec.deletionPolicy", "Retain"),
            ("ingestpipelines.status.conditions", "Ready"),
        ];
        for (path, words) in paths {
            let text = shell::run("kubectl", &["explain", path, "--api-version=drover.dev/v1alpha1"]).await?;
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            ensure!(text.contains(words), "{path} does not say {words:?}: {text}");
        }
        Ok(())
    })
    .await
}
