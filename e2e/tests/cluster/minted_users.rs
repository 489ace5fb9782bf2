//! Users of the hub that the operator makes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::IngestPipeline;
use drover_e2e::management::{call, segment};
use drover_e2e::operator;
use drover_e2e::pipeline::{FLOW, NAME, READY, SEEN, condition, manifest};
use drover_e2e::surroundings::surroundings;
use drover_e2e::trial::{Trial, lone_trial, trial};
use drover_e2e::until::until;
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use serde_json::{Value, json};

/// What is changed of users, and of their secrets, is seen within a minute and some.
const NOTICED: Duration = Duration::from_secs(90);
/// The user before goes a minute after it was followed, once its pods have gone.
const RENEWED: Duration = Duration::from_mins(4);
/// Workers have ended, and then their users are gone.
const GONE: Duration = Duration::from_secs(45);

fn minted() -> Value {
    let mut manifest = manifest(NAME);
    manifest["spec"]["hub"]["credentials"] = "Minted".into();
    manifest
}

/// The secret of the hub with the management API and an administrator.
async fn with_management(t: &Trial) -> Result<()> {
    let surroundings = surroundings()?;
    let keys = [
        ("uri", t.hub.uri.as_str()),
        ("managementUri", surroundings.management.as_str()),
        ("ca.crt", surroundings.ca.as_str()),
    ];
    t.secret_with("hub", &keys).await
}

/// Users that were made in this namespace, by what their names end with.
async fn users(t: &Trial) -> Result<Vec<String>> {
    let all = call("GET", "users", None).await?;
    let own = format!("drover.{}.{NAME}.", t.namespace);
    let names = all.as_array().into_iter().flatten().filter_map(|user| user["name"].as_str());
    let mut roles: Vec<_> = names
        .filter(|name| name.starts_with(&own))
        .filter_map(|name| Some(name.rsplit_once('.')?.1.to_owned()))
        .collect();
    roles.sort();
    Ok(roles)
}

/// Users of the connections that the workers have.
async fn connected(t: &Trial) -> Result<Vec<String>> {
    let found = call("GET", &format!("vhosts/{}/connections", segment(&t.hub.name)), None).await?;
    let own = format!("drover.{}.{NAME}.", t.namespace);
    let users = found.as_array().into_iter().flatten().filter_map(|c| c["user"].as_str());
    Ok(users.filter(|user| user.starts_with(&own)).map(str::to_owned).collect())
}

#[tokio::test]
async fn workers_are_users_that_are_made_renewed_and_taken_away() -> Result<()> {
    lone_trial("minted", async |t| {
        operator::install_chart_with(&t.client, &["rbac.mintedSecrets=true"]).await?;
        let lived = lives(t).await;
        // As it was, for the tests that follow, whatever is found.
        operator::install_chart(&t.client).await?;
        lived
    })
    .await
}

async fn lives(t: &Trial) -> Result<()> {
    with_management(t).await?;
    t.telemetry_as(&minted()).await?;
    t.publish(0..10).await?;
    t.rows(FLOW, 0..10).await?;
    ensure!(users(t).await? == ["mirror-a", "publisher-a", "worker-a"], "{:?}", users(t).await?);
    until(SEEN, async || {
        let connected = connected(t).await?;
        ensure!(connected.iter().any(|user| user.ends_with(".worker-a")), "{connected:?}");
        Ok(())
    })
    .await?;
    let given = t.hub.uri.password().unwrap_or_default();
    let kept = t.api::<Secret>().get(&format!("{NAME}-hub-worker")).await?;
    for (key, value) in kept.data.unwrap_or_default() {
        ensure!(!String::from_utf8_lossy(&value.0).contains(given), "{key} has the given user's password");
    }
    let mut passwords = t.minted_passwords().await?;
    renewed(t).await?;
    passwords.extend(t.minted_passwords().await?);
    passwords.sort();
    passwords.dedup();
    // Of three users each, and of the worker the one that followed.
    ensure!(passwords.len() == 4, "{} passwords were made", passwords.len());
    t.are_told_nowhere(&passwords).await?;
    t.delete::<IngestPipeline>(NAME, &DeleteParams::default()).await?;
    t.awaits_gone::<IngestPipeline>(NAME, GONE).await?;
    ensure!(users(t).await?.is_empty(), "{:?} are left", users(t).await?);
    ensure!(t.hub.depth(NAME).await?.is_some(), "deletionPolicy Retain, and the queue is gone");
    Ok(())
}

/// A secret that is deleted is a password that is renewed, while messages flow.
async fn renewed(t: &Trial) -> Result<()> {
    t.delete::<Secret>(&format!("{NAME}-hub-worker"), &DeleteParams::default()).await?;
    let mut sent = 10;
    let mut publish = async || {
        t.publish(sent..sent + 5).await?;
        sent += 5;
        anyhow::Ok(())
    };
    until(NOTICED, async || {
        publish().await?;
        let users = users(t).await?;
        ensure!(users.iter().any(|user| user == "worker-b"), "{users:?}");
        Ok(())
    })
    .await?;
    until(RENEWED, async || {
        publish().await?;
        let users = users(t).await?;
        ensure!(users == ["mirror-a", "publisher-a", "worker-b"], "{users:?}");
        Ok(())
    })
    .await?;
    t.rows(FLOW + READY, 0..sent).await?;
    ensure!(t.dead_letters().await?.is_empty(), "messages were dead-lettered");
    Ok(())
}

#[tokio::test]
async fn what_users_need_that_is_missing_is_told_and_nothing_is_made() -> Result<()> {
    trial("unminted", async |t| {
        t.table(NAME).await?;
        t.apply::<IngestPipeline>(&minted()).await?;
        let pipeline = t.stands(NAME, SEEN, "HubReady", "False", Some("SecretKeyMissing")).await?;
        let told = condition(&pipeline, "HubReady").map(|c| c.message.clone()).context("no condition")?;
        ensure!(told.contains("managementUri"), "{told}");
        with_management(t).await?;
        // The chart as it is installed by default lets the operator write no secret.
        let pipeline = t.stands(NAME, SEEN, "HubReady", "False", Some("SecretNotWritten")).await?;
        let told = condition(&pipeline, "HubReady").map(|c| c.message.clone()).context("no condition")?;
        ensure!(told.contains("rbac.mintedSecrets"), "{told}");
        ensure!(users(t).await?.is_empty() && t.workers(NAME).await?.is_empty(), "something was made all the same");
        // Without a user that was made, nothing holds up the way back.
        t.delete::<IngestPipeline>(NAME, &DeleteParams::default()).await?;
        t.awaits_gone::<IngestPipeline>(NAME, GONE).await?;
        let mut plain = minted();
        plain["spec"]["hub"]["credentials"] = json!("Secret");
        t.apply::<IngestPipeline>(&plain).await?;
        t.ready(NAME).await.map(drop)
    })
    .await
}
