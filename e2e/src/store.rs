//! A database for one test, with an owner for its tables and a role for workers.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drover_worker::store::{self, StoreAddress};
use tokio::sync::Mutex;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};
use url::Url;

use crate::surroundings::surroundings;

/// A role's connection to a database; made again when it was lost.
#[derive(Debug)]
pub struct Session {
    uri: Url,
    client: Mutex<Option<Arc<Client>>>,
}

impl Session {
    fn new(uri: Url) -> Self {
        Self { uri, client: Mutex::default() }
    }

    async fn client(&self) -> Result<Arc<Client>> {
        let mut kept = self.client.lock().await;
        if let Some(client) = kept.as_ref().filter(|client| !client.is_closed()) {
            return Ok(Arc::clone(client));
        }
        let address = StoreAddress::from_uri(self.uri.as_str(), Some(surroundings()?.ca.clone()))?;
        let client = store::connect(&address, "drover-e2e").await?;
        let client = Arc::new(client);
        *kept = Some(Arc::clone(&client));
        Ok(client)
    }

    /// Runs statements.
    pub async fn run(&self, statements: &str) -> Result<()> {
        self.client().await?.batch_execute(statements).await.with_context(|| statements.to_owned())
    }

    /// Rows of a query.
    pub async fn rows(&self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        self.client().await?.query(query, parameters).await.with_context(|| query.to_owned())
    }

    /// The one number that a query answers.
    pub async fn number(&self, query: &str) -> Result<i64> {
        self.client().await?.query_one(query, &[]).await?.try_get(0).with_context(|| query.to_owned())
    }
}

/// What takes its time in a table that was slowed down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Each {
    /// Every row that is written.
    Row,
    /// Every statement, however many rows it writes.
    Statement,
}

/// The database.
#[derive(Debug)]
pub struct Store {
    /// Name of the database.
    pub name: String,
    /// Name of the workers' role.
    pub worker: String,
    /// Where it is, with the workers' role and its password.
    pub uri: Url,
    /// The server's administrator, in this database.
    pub admin: Session,
    /// The role that owns the tables.
    pub owner: Session,
}

impl Store {
    /// Makes the database and its two roles.
    pub async fn create(name: &str, password: &str) -> Result<Self> {
        let name = name.replace('-', "_");
        let (owner, worker) = (format!("{name}_owner"), format!("{name}_worker"));
        let server = &surroundings()?.store;
        let admin = Session::new(server.clone());
        for role in [&owner, &worker] {
            admin.run(&format!("create role {role} login password '{password}'")).await?;
        }
        admin.run(&format!("create database {name} owner {owner}")).await?;
        let login = |role: &str| -> Result<Url> {
            let mut uri = server.clone();
            uri.set_path(&name);
            let taken = uri.set_username(role).is_ok() && uri.set_password(Some(password)).is_ok();
            ensure!(taken, "the store's address takes no user");
            Ok(uri)
        };
        let mut here = server.clone();
        here.set_path(&name);
        Ok(Self { uri: login(&worker)?, admin: Session::new(here), owner: Session::new(login(&owner)?), name, worker })
    }

    /// Makes a table as its owner, and lets the workers' role write rows and nothing else.
    pub async fn table(&self, name: &str, columns: &str) -> Result<()> {
        self.owner.run(&format!("create table {name} ({columns})")).await?;
        self.grant(name).await
    }

    /// Lets the workers' role write rows of a table.
    pub async fn grant(&self, table: &str) -> Result<()> {
        self.owner.run(&format!("grant select, insert, update on {table} to {}", self.worker)).await
    }

    /// Writing to a table takes so long from now on.
    pub async fn slow(&self, table: &str, each: Each, seconds: f64) -> Result<()> {
        let each = match each {
            Each::Row => "row",
            Each::Statement => "statement",
        };
        let statements = format!(
            "create or replace function slow() returns trigger language plpgsql as \
             $$ begin perform pg_sleep({seconds}); return new; end $$; \
             create or replace trigger slow before insert on {table} for each {each} execute function slow()"
        );
        self.owner.run(&statements).await
    }

    /// Ends the workers' connections, as a failover would.
    pub async fn disconnect_workers(&self) -> Result<()> {
        let query = "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1";
        self.admin.rows(query, &[&self.worker]).await.map(drop)
    }

    /// The workers' connections.
    pub async fn worker_connections(&self) -> Result<i64> {
        let query = format!("select count(*) from pg_stat_activity where usename = '{}'", self.worker);
        self.admin.number(&query).await
    }

    /// Removes the database and its roles. What is gone already is no failure.
    pub async fn remove(&self) -> Result<()> {
        remove(&self.name).await
    }
}

/// Names of the databases that begin so.
pub async fn databases(prefix: &str) -> Result<Vec<String>> {
    let admin = Session::new(surroundings()?.store.clone());
    let query = "select datname::text from pg_database where starts_with(datname, $1)";
    admin.rows(query, &[&prefix]).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Removes a database and its two roles.
pub async fn remove(name: &str) -> Result<()> {
    let admin = Session::new(surroundings()?.store.clone());
    admin.run(&format!("drop database if exists {name} with (force)")).await?;
    admin.run(&format!("drop role if exists {name}_owner, {name}_worker")).await
}
