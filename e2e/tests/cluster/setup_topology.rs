//! What is in the way inside the hub: each with a reason of its own, and healing without a restart.

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::IngestPipeline;
use drover_e2e::pipeline::{NAME, READY, SEEN, condition, discarding};
use drover_e2e::trial::trial;
use kube::api::DeleteParams;
use serde_json::json;

#[tokio::test]
async fn a_queue_with_other_arguments_is_left_alone_until_it_is_gone() -> Result<()> {
    trial("differs", async |t| {
        t.hub.declare(NAME, "classic", &[]).await?;
        t.apply::<IngestPipeline>(&discarding(NAME)).await?;
        t.stands(NAME, SEEN, "HubReady", "False", Some("QueueArgumentsDiffer")).await?;
        t.hub.delete_queue(NAME).await?;
        t.stands(NAME, SEEN, "Ready", "True", None).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn the_younger_of_two_that_claim_a_queue_waits_for_the_older_to_go() -> Result<()> {
    trial("claimed", async |t| {
        t.apply::<IngestPipeline>(&discarding("older")).await?;
        t.ready("older").await?;
        let mut younger = discarding("younger");
        younger["spec"]["source"]["queue"] = "older".into();
        t.apply::<IngestPipeline>(&younger).await?;
        let pipeline = t.stands("younger", SEEN, "Accepted", "False", Some("Claimed")).await?;
        let message = condition(&pipeline, "Accepted").map(|c| c.message.clone()).unwrap_or_default();
        ensure!(message.contains("older"), "the other is not named: {message}");
        t.stands("older", READY, "Ready", "True", None).await?;
        t.delete::<IngestPipeline>("older", &DeleteParams::default()).await?;
        t.stands("younger", SEEN, "Ready", "True", None).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn an_exchange_to_bind_to_that_is_missing_is_named_and_awaited() -> Result<()> {
    trial("no-exchange", async |t| {
        let mut manifest = discarding(NAME);
        manifest["spec"]["source"]["bindings"] = json!([{ "exchange": "elsewhere", "routingKey": "#" }]);
        t.apply::<IngestPipeline>(&manifest).await?;
        let pipeline = t.stands(NAME, SEEN, "HubReady", "False", Some("ExchangeMissing")).await?;
        let message = condition(&pipeline, "HubReady").map(|c| c.message.clone()).context("no condition")?;
        ensure!(message.contains("elsewhere"), "the exchange is not named: {message}");
        t.hub.declare_topic("elsewhere").await?;
        t.stands(NAME, SEEN, "Ready", "True", None).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_right_that_the_hubs_user_lacks_is_named_and_awaited() -> Result<()> {
    trial("no-right", async |t| {
        t.hub.permit("^$", ".*", ".*").await?;
        t.apply::<IngestPipeline>(&discarding(NAME)).await?;
        t.stands(NAME, SEEN, "HubReady", "False", Some("PermissionMissing")).await?;
        t.hub.permit(".*", ".*", ".*").await?;
        t.stands(NAME, SEEN, "Ready", "True", None).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn limits_of_the_dead_letter_queue_cannot_be_edited_and_nothing_is_changed() -> Result<()> {
    trial("dead-limits", async |t| {
        t.apply::<IngestPipeline>(&discarding(NAME)).await?;
        t.ready(NAME).await?;
        let before = t.hub.definitions().await?;
        t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "deadLetter": { "maxMessages": 7 } } })).await?;
        t.stands(NAME, SEEN, "Accepted", "False", Some("NeedsManagementApi")).await?;
        ensure!(t.hub.definitions().await? == before, "the hub's definitions changed");
        t.merge::<IngestPipeline>(NAME, &json!({ "spec": { "deadLetter": null } })).await?;
        t.stands(NAME, SEEN, "Ready", "True", None).await.map(drop)
    })
    .await
}
