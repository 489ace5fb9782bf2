//! Messages that carry when they were published, in rows that say when they were written.

use anyhow::{Result, ensure};
use lapin::{Channel, PublisherConfirm, options::ConfirmSelectOptions};
use serde_json::{Value, json};

use crate::pipeline::{NAME, SEEN};
use crate::publisher;
use crate::trial::Trial;
use crate::until::until;

/// Starts a pipeline with such rows.
pub(super) async fn start(t: &Trial, mut pipeline: Value) -> Result<()> {
    pipeline["spec"]["sink"]["postgres"]["columns"]["ts"] = json!("$.timestamp");
    t.telemetry_as(&pipeline).await?;
    t.store.owner.run(&format!("alter table {NAME} alter column received_at set default clock_timestamp()")).await
}

/// A channel whose messages are confirmed.
pub(super) async fn channel(t: &Trial) -> Result<Channel> {
    let channel = t.hub.channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Publishes the message of a number.
pub(super) async fn publish(channel: &Channel, number: u32) -> Result<PublisherConfirm> {
    let body = json!({ "id": format!("m-{number:06}"), "deviceId": "d", "timestamp": millis(), "payloads": {} });
    publisher::publish(channel, "devices.d", body.to_string().as_bytes()).await
}

/// Waits until each message is a row.
pub(super) async fn written(t: &Trial, published: u32) -> Result<()> {
    until(SEEN * 4, async || {
        let there = t.store.admin.number(&format!("select count(*) from {NAME}")).await?;
        ensure!(there == i64::from(published), "{there} of {published} rows");
        Ok(())
    })
    .await?;
    t.no_dead_letters().await
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a message carries when it was published: time enters here")]
pub(super) fn millis() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
