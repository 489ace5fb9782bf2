//! What session and slots share, and the one way out for what is published again: dead letters and returns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::{BasicProperties, message::Delivery};
use tokio::sync::Mutex as AsyncMutex;

use super::{
    clock,
    envelope::{self, Sender},
    holds::Holds,
    meter::Meter,
    outage::Outage,
    prepare::Preparation,
    publisher::{Link, Outgoing, PublishError, Publisher, Receipt},
    reject::Rejection,
    sink::Target,
};
use crate::{query::Transform, settings::Settings};
use drover_crds::query::QueryError;

/// Key of the pipeline's exchange that leads to the dead-letter queue.
const DEAD: &str = "dead";
/// Key of the pipeline's exchange that leads back to the source.
const RETURN: &str = "return";

/// What session and slots share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) preparation: Preparation,
    pub(crate) sender: Sender,
    pub(crate) target: Target,
    pub(crate) holds: Holds,
    pub(crate) meter: Meter,
    pub(crate) link: Arc<Link>,
    exchange: String,
    publisher: AsyncMutex<Publisher>,
    outage: Mutex<Outage>,
}

impl Context {
    pub(crate) fn new(settings: &Settings, name: &str) -> Result<Self, QueryError> {
        let link = Arc::new(Link::new(settings.hub.clone(), format!("{name} publisher")));
        Ok(Self {
            preparation: Preparation {
                id: settings.source.id.clone(),
                max_bytes: settings.source.max_bytes,
                transform: settings.transform.as_deref().map(Transform::new).transpose()?,
            },
            sender: Sender { identity: settings.identity.clone(), queue: settings.source.queue.clone() },
            target: Target::new(settings, &link, name),
            holds: Holds::default(),
            meter: Meter::new(),
            exchange: settings.exchange.clone(),
            publisher: AsyncMutex::new(Publisher::new(Arc::clone(&link))),
            link,
            outage: Mutex::new(Outage::default()),
        })
    }

    pub(crate) fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes deliveries to the dead-letter queue.
    pub(crate) async fn dead_letter(&self, letters: &[(&Delivery, &Rejection)]) -> Result<Vec<Receipt>, PublishError> {
        let now = clock::today().to_string();
        let letters = letters.iter().map(|(d, why)| (*d, envelope::dead_letter(&self.sender, d, why, &now)));
        self.republish(DEAD, letters).await
    }

    /// Publishes deliveries back to the source.
    pub(crate) async fn give_back(&self, deliveries: &[Delivery]) -> Result<Vec<Receipt>, PublishError> {
        self.republish(RETURN, deliveries.iter().map(|d| (d, envelope::returned(&self.sender, d)))).await
    }

    async fn republish<'d>(
        &self,
        key: &str,
        deliveries: impl Iterator<Item = (&'d Delivery, BasicProperties)>,
    ) -> Result<Vec<Receipt>, PublishError> {
        let outgoing: Vec<Outgoing<'_>> = deliveries
            .map(|(delivery, properties)| Outgoing {
                exchange: &self.exchange,
                routing_key: key.to_owned(),
                properties,
                body: &delivery.data,
            })
            .collect();
        self.publisher.lock().await.publish(&outgoing).await
    }
}
