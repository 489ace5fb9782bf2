//! A store that takes no rows costs no message: workers hold, a condition says why, and once it is mended everything is written.

use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use drover_crds::api::{IngestPipeline, Phase};
use drover_e2e::pipeline::{COLUMNS, FLOW, NAME, SEEN, condition};
use drover_e2e::trial::{Trial, trial};

/// What is broken, by which statements; how the condition names it, by reason or in its message; how it is mended.
struct Fault<'a> {
    breaks: Vec<String>,
    told: &'a str,
    mends: Vec<String>,
    /// The rows that are in the table at the end.
    rows: Range<u32>,
}

/// Runs a pipeline through the fault.
async fn survives(t: &Trial, fault: Fault<'_>) -> Result<()> {
    t.telemetry().await?;
    t.publish(0..50).await?;
    t.rows(FLOW, 0..50).await?;
    for statement in &fault.breaks {
        t.store.admin.run(statement).await?;
    }
    t.store.disconnect_workers().await?;
    t.publish(50..100).await?;
    t.awaits(NAME, SEEN, |pipeline: &IngestPipeline| {
        let found = condition(pipeline, "StoreReady").context("no condition")?;
        let told = format!("{} {} {}", found.status, found.reason, found.message);
        ensure!(
            found.status == "False" && told.contains(fault.told),
            "the condition does not tell {}: {told}",
            fault.told
        );
        Ok(())
    })
    .await?;
    t.phase(NAME, SEEN, Phase::Holding).await?;
    t.no_dead_letters().await?;
    for statement in &fault.mends {
        t.store.admin.run(statement).await?;
    }
    t.rows(SEEN, fault.rows).await?;
    t.stands(NAME, SEEN, "StoreReady", "True", None).await?;
    t.no_dead_letters().await
}

#[tokio::test]
async fn a_dropped_table_costs_no_message() -> Result<()> {
    trial("fault-drop", async |t| {
        let owner = format!("{}_owner", t.store.name);
        let fault = Fault {
            breaks: vec![format!("drop table {NAME}")],
            told: "TableNotFound",
            mends: vec![
                format!("create table {NAME} ({COLUMNS}); alter table {NAME} owner to {owner}"),
                format!("grant select, insert, update on {NAME} to {}", t.store.worker),
            ],
            rows: 50..100,
        };
        survives(t, fault).await
    })
    .await
}

#[tokio::test]
async fn a_revoked_grant_costs_no_message() -> Result<()> {
    trial("fault-revoke", async |t| {
        let worker = &t.store.worker;
        let fault = Fault {
            breaks: vec![format!("revoke all on {NAME} from {worker}")],
            told: "PrivilegeMissing",
            mends: vec![format!("grant select, insert, update on {NAME} to {worker}")],
            rows: 0..100,
        };
        survives(t, fault).await
    })
    .await
}

#[tokio::test]
async fn a_failover_to_a_read_only_server_costs_no_message() -> Result<()> {
    trial("fault-read-only", async |t| {
        let database = &t.store.name;
        // The workers' connections to the former primary end: they must not stay read-only once it is over.
        let end =
            format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'", t.store.worker);
        let fault = Fault {
            breaks: vec![format!("alter database {database} set default_transaction_read_only = on")],
            told: "ReadOnly",
            mends: vec![format!("alter database {database} reset default_transaction_read_only"), end],
            rows: 0..100,
        };
        // The administrator's own session is older than the setting.
        survives(t, fault).await
    })
    .await
}

#[tokio::test]
async fn a_full_disk_costs_no_message() -> Result<()> {
    trial("fault-disk", async |t| {
        // What PostgreSQL says when it cannot extend a file.
        let full = format!(
            "create function full_disk() returns trigger language plpgsql as $$ begin \
             raise exception using errcode = '53100', message = 'could not extend file: No space left on device'; end $$; \
             create trigger full_disk before insert on {NAME} for each statement execute function full_disk()"
        );
        let fault = Fault {
            breaks: vec![full],
            told: "InsufficientResources",
            mends: vec![format!("drop trigger full_disk on {NAME}")],
            rows: 0..100,
        };
        survives(t, fault).await
    })
    .await
}

#[tokio::test]
async fn a_connection_limit_costs_no_message() -> Result<()> {
    trial("fault-connections", async |t| {
        let worker = &t.store.worker;
        let fault = Fault {
            breaks: vec![format!("alter role {worker} connection limit 0")],
            told: "TooManyConnections",
            mends: vec![format!("alter role {worker} connection limit -1")],
            rows: 0..100,
        };
        survives(t, fault).await
    })
    .await
}
