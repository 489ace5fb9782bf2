//! One bad message costs one message. The worker's own tests have every kind of it; here is the way to the queue.

use anyhow::{Result, ensure};
use drover_e2e::pipeline::{FLOW, message};
use drover_e2e::trial::trial;
use drover_e2e::until::until;
use serde_json::json;

/// Bodies that no row can be made of.
fn bad() -> Vec<Vec<u8>> {
    let device = |field: &str, value: serde_json::Value| {
        let mut body: serde_json::Value = json!({
            "id": format!("bad-{field}"), "deviceId": "device-001", "timestamp": 1_700_000_000_000_i64, "payloads": {},
        });
        body[field] = value;
        body.to_string().into_bytes()
    };
    vec![
        Vec::new(),
        b"not JSON".to_vec(),
        br#"{"id": "cut", "deviceId":"#.to_vec(),
        [b'['; 65_536].to_vec(),
        b"{\"id\": \"utf8\", \"deviceId\": \"\xff\xfe\"}".to_vec(),
        device("timestamp", json!("the day after tomorrow")),
        device("deviceId", json!("a\u{0}b")),
        device("payloads", json!({ "temp": "warm" })),
        device("deviceId", json!(null)),
        vec![b' '; 1024 * 1024 + 1],
    ]
}

#[tokio::test]
async fn bad_bodies_are_dead_lettered_with_a_reason_and_the_good_around_them_are_written() -> Result<()> {
    trial("bad-bodies", async |t| {
        t.telemetry().await?;
        let bad = bad();
        let mut bodies = Vec::new();
        for (number, body) in (0..).zip(&bad) {
            bodies.extend([message(number), body.clone()]);
        }
        t.hub.publish("amq.topic", "devices.1", &bodies).await?;
        let good = u32::try_from(bad.len())?;
        t.rows(FLOW, 0..good).await?;
        let dead = until(FLOW, async || {
            let dead = t.dead_letters().await?;
            ensure!(dead.len() == bad.len(), "{} dead letters of {}", dead.len(), bad.len());
            Ok(dead)
        })
        .await?;
        for letter in &dead {
            let told = letter.headline();
            ensure!(bad.contains(&letter.body), "a body was changed: {told}");
            for word in ["x-drover-stage", "x-drover-reason", "x-drover-error"] {
                let found = letter.headers.iter().any(|(name, value)| name == word && !value.is_empty());
                ensure!(found, "no header {word}: {told}");
            }
        }
        Ok(())
    })
    .await
}
