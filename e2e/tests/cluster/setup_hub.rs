//! Each thing that can be wrong with the way to the hub has a reason of its own, and heals without a restart.

use anyhow::{Result, ensure};
use drover_crds::api::IngestPipeline;
use drover_e2e::cluster::restarts;
use drover_e2e::operator;
use drover_e2e::pipeline::{READY, SEEN, discarding};
use drover_e2e::surroundings::{address, surroundings};
use drover_e2e::trial::{Trial, trial};
use kube::ResourceExt as _;
use url::Url;

/// The hub's address with another port.
fn at_port_of(t: &Trial, other: &Url) -> Result<Url> {
    let mut uri = t.hub.uri.clone();
    ensure!(uri.set_port(other.port()).is_ok(), "no port");
    Ok(uri)
}

/// Makes a secret for each case, named as its reason is; the one for the missing secret is not made.
async fn spoil(t: &Trial) -> Result<Vec<(&'static str, &'static str)>> {
    let uri = &t.hub.uri;
    let with = |change: &dyn Fn(&mut Url)| {
        let mut uri = uri.clone();
        change(&mut uri);
        uri.to_string()
    };
    t.secret_with("no-key", &[("url", uri.as_str())]).await?;
    t.secret("no-uri", "hub.example:5671").await?;
    t.secret(
        "no-host",
        &with(&|uri| {
            let _ = uri.set_host(Some("hub.invalid"));
        }),
    )
    .await?;
    t.secret(
        "no-listener",
        &with(&|uri| {
            let _ = uri.set_port(Some(1));
        }),
    )
    .await?;
    t.secret(
        "no-password",
        &with(&|uri| {
            let _ = uri.set_password(Some("wrong"));
        }),
    )
    .await?;
    t.secret("no-vhost", &with(&|uri| uri.set_path("nowhere"))).await?;
    t.secret_with("no-authority", &[("uri", uri.as_str()), ("ca.crt", &surroundings()?.other_ca)]).await?;
    t.secret("no-name", at_port_of(t, &address("DROVER_TEST_HUB_WRONGNAME_URI")?)?.as_str()).await?;
    t.secret("no-time", at_port_of(t, &address("DROVER_TEST_HUB_EXPIRED_URI")?)?.as_str()).await?;
    Ok(vec![
        ("no-secret", "SecretNotFound"),
        ("no-key", "SecretKeyMissing"),
        ("no-uri", "InvalidUri"),
        ("no-host", "HostNotFound"),
        ("no-listener", "Unreachable"),
        ("no-password", "AccessRefused"),
        ("no-vhost", "VirtualHostRefused"),
        ("no-authority", "CertificateUnknownAuthority"),
        ("no-name", "CertificateWrongName"),
        ("no-time", "CertificateExpired"),
    ])
}

#[tokio::test]
async fn each_fault_on_the_way_to_the_hub_is_named_and_heals_without_a_restart() -> Result<()> {
    trial("setup-hub", async |t| {
        let operator = operator::pod(&t.client).await?;
        let cases = spoil(t).await?;
        for (name, _) in &cases {
            let mut manifest = discarding(name);
            manifest["spec"]["hub"]["secretRef"]["name"] = (*name).into();
            t.apply::<IngestPipeline>(&manifest).await?;
        }
        for (name, reason) in &cases {
            let pipeline = t.stands(name, SEEN, "HubReady", "False", Some(reason)).await?;
            let message = pipeline.status.and_then(|status| status.message).unwrap_or_default();
            ensure!(!message.is_empty(), "{name}: no message");
        }
        for (name, _) in &cases {
            t.secret(name, t.hub.uri.as_str()).await?;
        }
        for (name, _) in &cases {
            t.stands(name, SEEN + READY, "Ready", "True", None).await?;
        }
        let now = operator::pod(&t.client).await?;
        ensure!(now.uid() == operator.uid() && restarts(&now) == restarts(&operator), "the operator was started again");
        Ok(())
    })
    .await
}
