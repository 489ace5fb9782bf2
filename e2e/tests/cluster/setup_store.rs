//! Each thing that can be wrong with the store has a reason of its own, and heals without a restart.

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::IngestPipeline;
use drover_e2e::pipeline::{COLUMNS, READY, SEEN, manifest};
use drover_e2e::surroundings::surroundings;
use drover_e2e::trial::{Trial, password, trial};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use url::Url;

/// Applies a pipeline for each case, with the secret of its own name and a table of its own name.
async fn apply_all(t: &Trial, cases: &[(&str, &str)], secret: Option<&str>) -> Result<()> {
    for (name, _) in cases {
        let mut manifest = manifest(name);
        manifest["spec"]["sink"]["postgres"]["secretRef"]["name"] = secret.unwrap_or(name).into();
        manifest["spec"]["sink"]["postgres"]["table"] = name.replace('-', "_").into();
        t.apply::<IngestPipeline>(&manifest).await?;
    }
    Ok(())
}

async fn each_stands(t: &Trial, cases: &[(&str, &str)]) -> Result<()> {
    for (name, reason) in cases {
        t.stands(name, SEEN, "StoreReady", "False", Some(reason)).await?;
        ensure!(t.workers(name).await?.is_empty(), "{name}: workers run against a store that cannot be used");
    }
    Ok(())
}

async fn each_heals(t: &Trial, cases: &[(&str, &str)]) -> Result<()> {
    for (name, _) in cases {
        t.stands(name, SEEN + READY, "Ready", "True", None).await?;
    }
    Ok(())
}

/// An address of the store that its certificate does not name: that of a Service before it.
async fn by_another_name(t: &Trial) -> Result<Url> {
    let (host, port) = (t.store.uri.host_str().context("no host")?, t.store.uri.port().unwrap_or(5432));
    let service = json!({ "metadata": { "name": "store" }, "spec": { "ports": [{ "name": "sql", "port": port }] } });
    t.apply::<Service>(&service).await?;
    let slice = json!({
        "metadata": { "name": "store", "labels": { "kubernetes.io/service-name": "store" } },
        "addressType": "IPv4",
        "ports": [{ "name": "sql", "port": port }],
        "endpoints": [{ "addresses": [host] }],
    });
    t.apply::<EndpointSlice>(&slice).await?;
    let address = t.api::<Service>().get("store").await?.spec.and_then(|spec| spec.cluster_ip).context("no address")?;
    let mut uri = t.store.uri.clone();
    uri.set_host(Some(&address))?;
    Ok(uri)
}

#[tokio::test]
async fn each_fault_on_the_way_to_the_store_is_named_and_heals_without_a_restart() -> Result<()> {
    trial("setup-store", async |t| {
        let uri = &t.store.uri;
        let with = |change: &dyn Fn(&mut Url)| {
            let mut uri = uri.clone();
            change(&mut uri);
            uri.to_string()
        };
        t.secret_with("no-key", &[("url", uri.as_str())]).await?;
        t.secret_with("no-part", &[("host", "store"), ("username", "x"), ("password", "y")]).await?;
        t.secret("no-uri", "store.example:5432").await?;
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
        t.secret("no-database", &with(&|uri| uri.set_path("nowhere"))).await?;
        t.secret_with("no-authority", &[("uri", uri.as_str()), ("ca.crt", &surroundings()?.other_ca)]).await?;
        t.secret("no-name", by_another_name(t).await?.as_str()).await?;
        let cases = [
            ("no-secret", "SecretNotFound"),
            ("no-key", "SecretKeyMissing"),
            ("no-part", "SecretKeyMissing"),
            ("no-uri", "InvalidUri"),
            ("no-listener", "Unreachable"),
            ("no-password", "AuthenticationFailed"),
            ("no-database", "DatabaseNotFound"),
            ("no-authority", "CertificateUnknownAuthority"),
            ("no-name", "CertificateWrongName"),
        ];
        for (name, _) in &cases {
            t.table(&name.replace('-', "_")).await?;
        }
        apply_all(t, &cases, None).await?;
        each_stands(t, &cases).await?;
        for (name, _) in &cases {
            t.secret(name, uri.as_str()).await?;
        }
        each_heals(t, &cases).await
    })
    .await
}

#[tokio::test]
async fn each_way_in_which_a_table_does_not_fit_is_named_and_heals_without_a_restart() -> Result<()> {
    trial("setup-table", async |t| {
        t.store.table("no_index", &COLUMNS.replace(" unique", "")).await?;
        t.store.table("no_column", &COLUMNS.replace("pref text,", "")).await?;
        t.store.table("no_text", &COLUMNS.replace("message_id text", "message_id timestamptz")).await?;
        t.store.owner.run(&format!("create table no_grant ({COLUMNS})")).await?;
        t.store
            .owner
            .run(&format!(
                "create view no_rows as select * from no_grant; grant select on no_rows to {}",
                t.store.worker
            ))
            .await?;
        let cases = [
            ("no-table", "TableNotFound"),
            ("no-rows", "TableNotFound"),
            ("no-index", "NoUniqueIndex"),
            ("no-column", "ColumnNotFound"),
            ("no-text", "ColumnTypeUnfit"),
            ("no-grant", "PrivilegeMissing"),
        ];
        apply_all(t, &cases, Some("warehouse")).await?;
        each_stands(t, &cases).await?;
        t.table("no_table").await?;
        t.store.owner.run("drop view no_rows").await?;
        t.table("no_rows").await?;
        t.store.owner.run("create unique index on no_index (message_id)").await?;
        t.store.owner.run("alter table no_column add column pref text").await?;
        t.store.owner.run("alter table no_text alter column message_id type text").await?;
        t.store.grant("no_grant").await?;
        each_heals(t, &cases).await
    })
    .await
}

#[tokio::test]
async fn a_secret_may_name_the_store_in_parts() -> Result<()> {
    trial("parts", async |t| {
        let port = t.store.uri.port().unwrap_or(5432).to_string();
        let password = password(&t.canary);
        let keys = [
            ("host", t.store.uri.host_str().context("no host")?),
            ("port", &port),
            ("username", &t.store.worker),
            ("password", &password),
            ("database", &t.store.name),
            ("ca.crt", &surroundings()?.ca),
        ];
        t.secret_with("warehouse", &keys).await?;
        t.telemetry().await?;
        t.publish(0..10).await?;
        t.rows(drover_e2e::pipeline::FLOW, 0..10).await
    })
    .await
}
