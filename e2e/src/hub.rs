//! A virtual host of the hub for one test, with a user of its own.

use anyhow::{Context as _, Result, ensure};
use drover_worker::hub::{self, HubAddress};
use drover_worker::tls::Material;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ExchangeKind};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use url::Url;

use crate::management::{call, segment};
use crate::operator::REMOVED;
use crate::surroundings::surroundings;
use crate::until::until;

/// What a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that are ready.
    pub ready: u32,
    /// Its consumers.
    pub consumers: u32,
}

/// A message as it lies in a queue.
#[derive(Debug, Clone)]
pub struct Lying {
    /// Its body.
    pub body: Vec<u8>,
    /// Its headers, as text.
    pub headers: Vec<(String, String)>,
}

impl Lying {
    /// All headers in one line.
    #[must_use]
    pub fn headline(&self) -> String {
        self.headers.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    }
}

/// The virtual host.
#[derive(Debug)]
pub struct Hub {
    /// Name of the virtual host and of its user.
    pub name: String,
    /// Where it is, with user and password.
    pub uri: Url,
    connection: Mutex<Option<Connection>>,
}

impl Hub {
    /// Makes the virtual host and its user, who may do everything in it and nothing elsewhere.
    pub async fn create(name: &str, password: &str) -> Result<Self> {
        let vhost = segment(name);
        call("PUT", &format!("vhosts/{vhost}"), Some(&json!({}))).await?;
        call("PUT", &format!("users/{vhost}"), Some(&json!({ "password": password, "tags": "" }))).await?;
        let mut uri = surroundings()?.hub.clone();
        uri.set_path(name);
        ensure!(
            uri.set_username(name).is_ok() && uri.set_password(Some(password)).is_ok(),
            "the hub's address takes no user"
        );
        let hub = Self { name: name.to_owned(), uri, connection: Mutex::default() };
        hub.permit(".*", ".*", ".*").await?;
        Ok(hub)
    }

    /// What the user may configure, write and read.
    pub async fn permit(&self, configure: &str, write: &str, read: &str) -> Result<()> {
        let path = format!("permissions/{0}/{0}", segment(&self.name));
        call("PUT", &path, Some(&json!({ "configure": configure, "write": write, "read": read }))).await.map(drop)
    }

    /// Removes the virtual host, with what is in it, and its user. What is gone already is no failure.
    pub async fn remove(&self) -> Result<()> {
        remove(&self.name).await
    }

    /// A channel with confirms, of a connection that is kept while it lasts.
    pub async fn channel(&self) -> Result<Channel> {
        let mut kept = self.connection.lock().await;
        if kept.as_ref().is_none_or(|connection| !connection.status().connected()) {
            *kept = Some(self.connect().await?);
        }
        let connection = kept.as_ref().context("no connection")?;
        let channel = connection.create_channel().await.context("no channel")?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.context("no confirms")?;
        Ok(channel)
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Result<Connection> {
        let tls = Material { ca: Some(surroundings()?.ca.clone()), ..Default::default() };
        let address = HubAddress { uri: self.uri.to_string(), tls };
        Ok(hub::connect(&address, "drover-e2e").await?)
    }

    /// Publishes persistent messages; each is confirmed and routed when this returns.
    pub async fn publish<B: AsRef<[u8]>>(&self, exchange: &str, key: &str, bodies: &[B]) -> Result<()> {
        self.publish_with(exchange, key, bodies, &BasicProperties::default()).await
    }

    /// Publishes with these properties.
    pub async fn publish_with<B: AsRef<[u8]>>(
        &self,
        exchange: &str,
        key: &str,
        bodies: &[B],
        properties: &BasicProperties,
    ) -> Result<()> {
        let channel = self.channel().await?;
        let mut confirms = Vec::with_capacity(bodies.len());
        for body in bodies {
            let properties = properties.clone().with_delivery_mode(2);
            let options = BasicPublishOptions { mandatory: true, ..Default::default() };
            confirms
                .push(channel.basic_publish(exchange.into(), key.into(), options, body.as_ref(), properties).await?);
        }
        for confirm in confirms {
            let confirmation = confirm.await?;
            ensure!(confirmation.is_ack(), "not taken by the hub");
            ensure!(confirmation.take_message().is_none(), "{exchange} routes {key} nowhere");
        }
        Ok(())
    }

    /// What a queue holds; `None` if there is no such queue.
    pub async fn depth(&self, queue: &str) -> Result<Option<Depth>> {
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        match self.channel().await?.queue_declare(queue.into(), options, FieldTable::default()).await {
            Ok(queue) => Ok(Some(Depth { ready: queue.message_count(), consumers: queue.consumer_count() })),
            Err(error) if error.to_string().contains("NOT_FOUND") => Ok(None),
            Err(error) => Err(error).context("the queue does not tell its depth"),
        }
    }

    /// Messages of a queue that are ready; a queue that is missing is an error.
    pub async fn ready(&self, queue: &str) -> Result<u32> {
        Ok(self.depth(queue).await?.with_context(|| format!("there is no queue {queue}"))?.ready)
    }

    /// Looks at all ready messages and puts them back.
    pub async fn look(&self, queue: &str) -> Result<Vec<Lying>> {
        let channel = self.channel().await?;
        let mut found = Vec::new();
        while let Some(got) = channel.basic_get(queue.into(), BasicGetOptions::default()).await? {
            let headers = got.delivery.properties.headers().clone().unwrap_or_default();
            found.push(Lying {
                body: got.delivery.data.clone(),
                headers: headers.inner().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            });
        }
        channel.close(200, "seen".into()).await?;
        Ok(found)
    }

    /// Declares a durable queue of a type, with these further arguments.
    pub async fn declare(&self, queue: &str, kind: &str, more: &[(&str, AMQPValue)]) -> Result<()> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        for (name, value) in more {
            arguments.insert((*name).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        self.channel().await?.queue_declare(queue.into(), options, arguments).await?;
        Ok(())
    }

    /// Deletes a queue, whatever is in it.
    pub async fn delete_queue(&self, queue: &str) -> Result<()> {
        self.channel().await?.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
        Ok(())
    }

    /// Deletes an exchange.
    pub async fn delete_exchange(&self, exchange: &str) -> Result<()> {
        self.channel().await?.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await?;
        Ok(())
    }

    /// Removes a binding.
    pub async fn unbind(&self, queue: &str, exchange: &str, key: &str) -> Result<()> {
        let channel = self.channel().await?;
        channel.queue_unbind(queue.into(), exchange.into(), key.into(), FieldTable::default()).await?;
        Ok(())
    }

    /// Binds a queue.
    pub async fn bind(&self, queue: &str, exchange: &str, key: &str) -> Result<()> {
        let options = lapin::options::QueueBindOptions::default();
        let channel = self.channel().await?;
        channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default()).await?;
        Ok(())
    }

    /// Declares a durable topic exchange.
    pub async fn declare_topic(&self, exchange: &str) -> Result<()> {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let channel = self.channel().await?;
        channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, FieldTable::default()).await?;
        Ok(())
    }

    /// Deliveries of a queue that were not the first, as the hub counts them since it started.
    pub async fn redelivered(&self, queue: &str) -> Result<u64> {
        let told = call("GET", &format!("queues/{}/{}", segment(&self.name), segment(queue)), None).await?;
        Ok(told["message_stats"]["redeliver"].as_u64().unwrap_or_default())
    }

    /// Queues, exchanges, bindings and policies, as the hub exports them, in a fixed order.
    pub async fn definitions(&self) -> Result<Value> {
        let mut all = call("GET", &format!("definitions/{}", segment(&self.name)), None).await?;
        for list in all.as_object_mut().context("no definitions")?.values_mut().filter_map(Value::as_array_mut) {
            list.sort_by_cached_key(Value::to_string);
        }
        Ok(all)
    }

    /// A queue's bindings to named exchanges: exchange and key.
    pub async fn bindings(&self, queue: &str) -> Result<Vec<(String, String)>> {
        let path = format!("queues/{}/{}/bindings", segment(&self.name), segment(queue));
        let all = call("GET", &path, None).await?;
        let field = |binding: &Value, name: &str| binding[name].as_str().unwrap_or_default().to_owned();
        let pairs = all.as_array().into_iter().flatten().map(|b| (field(b, "source"), field(b, "routing_key")));
        Ok(pairs.filter(|(source, _)| !source.is_empty()).collect())
    }
}

/// Removes a virtual host and the user of the same name.
pub async fn remove(name: &str) -> Result<()> {
    for path in [format!("vhosts/{}", segment(name)), format!("users/{}", segment(name))] {
        // With thousands of queues it takes longer than an answer is waited for; asked again, the hub goes on.
        let gone = until(REMOVED, async || match call("DELETE", &path, None).await {
            Err(error) if !error.to_string().contains(": 404") => Err(error),
            _ => Ok(()),
        });
        gone.await?;
    }
    Ok(())
}

fn text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        other => format!("{other:?}"),
    }
}
