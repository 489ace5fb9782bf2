//! The store shows a certificate whose time is over. It is everybody's store, so this test is alone.

use anyhow::Result;
use drover_crds::api::IngestPipeline;
use drover_e2e::pipeline::{FLOW, NAME, SEEN, manifest};
use drover_e2e::shell;
use drover_e2e::surroundings::variable;
use drover_e2e::trial::{Trial, lone_trial};

async fn shows(certificate: &str) -> Result<()> {
    shell::run(&variable("DROVER_TEST_CTL")?, &["test", "postgres", "cert", certificate]).await.map(drop)
}

async fn while_expired(t: &Trial) -> Result<()> {
    t.apply::<IngestPipeline>(&manifest(NAME)).await?;
    t.stands(NAME, SEEN, "StoreReady", "False", Some("CertificateExpired")).await.map(drop)
}

#[tokio::test]
async fn a_certificate_of_the_store_that_has_expired_is_named_and_heals_without_a_restart() -> Result<()> {
    lone_trial("expired", async |t| {
        t.table(NAME).await?;
        shows("expired").await?;
        let named = while_expired(t).await;
        // The others need it, whatever was found.
        shows("server").await?;
        named?;
        t.stands(NAME, SEEN, "Ready", "True", None).await?;
        t.publish(0..10).await?;
        t.rows(FLOW, 0..10).await
    })
    .await
}
