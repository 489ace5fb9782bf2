//! What session and slots share, and the one way out for what is published again: dead letters, returns, and what goes to
//! another queue of the pipeline.

use std::{
    hash::{BuildHasher, RandomState},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use drover_crds::resolved::{Retry, suspects_key};

use lapin::{BasicProperties, message::Delivery};
use tokio::sync::Mutex as AsyncMutex;

use super::{
    RunError, clock,
    envelope::{self, Sender},
    guard::Guard,
    handler::Handler,
    holds::Holds,
    meter::Meter,
    outage::Outage,
    prepare::Preparation,
    preview::Sample,
    publisher::{Link, Outgoing, PublishError, Publisher, Receipt},
    reject::Rejection,
    sink::Target,
    spans::{Onward, Work, Works},
    suspect::{Suspicion, Transfer},
};
use crate::{query::Transform, settings::Settings, traces::Traces};

/// Key of the pipeline's exchange that leads to the dead-letter queue.
const DEAD: &str = "dead";
/// Key of the pipeline's exchange that leads back to the source.
const RETURN: &str = "return";
/// Most bytes of an exit that are read.
const MAX_EXIT: usize = 1024;
/// Time after which nobody says how a container ended: it ended well, or the operator is away.
const EXIT_IS_KNOWN: Duration = Duration::from_secs(3);
const EXIT_LOOK: Duration = Duration::from_millis(100);

/// What session and slots share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) preparation: Preparation,
    pub(crate) sender: Arc<Sender>,
    pub(crate) target: Target,
    pub(crate) holds: Holds,
    pub(crate) meter: Meter,
    pub(crate) link: Arc<Link>,
    pub(crate) handler: Option<Handler>,
    pub(crate) suspicion: Suspicion,
    /// The worker is a preview, and works on these.
    pub(crate) preview: Option<Sample>,
    /// Where spans go; those of copies go nowhere.
    pub(crate) traces: Option<Traces>,
    /// What the sink does with a message, and a handler.
    pub(crate) work: Works,
    /// The queue that is read.
    pub(crate) queue: String,
    exchange: String,
    /// Where messages of the queue that is read come back by.
    return_key: String,
    last_exit: Option<PathBuf>,
    guard: Mutex<Guard>,
    publisher: AsyncMutex<Publisher>,
    outage: Mutex<Outage>,
}

impl Context {
    pub(crate) fn new(settings: &Settings, name: &str) -> Result<Self, RunError> {
        let transform = settings.transform.as_deref().map(Transform::new);
        let link = Arc::new(Link::new(settings.hub.clone(), format!("{name} publisher")));
        let sender = Arc::new(Sender {
            identity: settings.identity.clone(),
            queue: settings.source.queue.clone(),
            process: process(),
        });
        let meter = Meter::new(settings.handler.map(|handler| handler.timeout));
        let collector = settings.traces.as_ref().filter(|_| settings.preview.is_none());
        let traces = collector.and_then(|collector| {
            // Messages are worth more than their traces.
            let traces = Traces::new(collector, &settings.identity, meter.spans()).map_err(anyhow::Error::new);
            traces.inspect_err(|error| tracing::error!("nothing is traced: {error:#}")).ok()
        });
        Ok(Self {
            preparation: Preparation {
                id: settings.source.id.clone(),
                max_bytes: settings.source.max_bytes,
                transform: transform.transpose().map_err(RunError::Transform)?,
            },
            target: Target::new(settings, &sender, &link, name).map_err(RunError::Sink)?,
            sender,
            handler: settings.handler.map(|handler| Handler::new(handler, settings)),
            suspicion: Suspicion {
                active: settings.suspects && settings.preview.is_none(),
                role: settings.role,
                retry: retry(settings),
            },
            preview: settings.preview.map(Sample::new),
            return_key: settings.role.step().map_or_else(|| RETURN.to_owned(), suspects_key),
            last_exit: settings.last_exit.clone(),
            guard: Mutex::default(),
            holds: Holds::default(),
            meter,
            traces,
            work: Works { sink: Work::of_sink(&settings.sink), handler: Work::of_handler() },
            queue: settings.queue(),
            exchange: settings.exchange.clone(),
            publisher: AsyncMutex::new(Publisher::new(Arc::clone(&link))),
            link,
            outage: Mutex::new(Outage::new(settings.preview.is_none())),
        })
    }

    pub(crate) fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn guard(&self) -> MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is read, as status tells it.
    pub(crate) fn role(&self) -> String {
        match self.suspicion.role.step() {
            _ if self.preview.is_some() => "preview".to_owned(),
            Some(step) => suspects_key(step),
            None => "main".to_owned(),
        }
    }

    /// How many of so many dead letters may go now. A preview sends none, and all are counted.
    pub(crate) fn admit(&self, wanted: usize) -> usize {
        if self.preview.is_some() { wanted } else { self.guard().admit(wanted, clock::now()) }
    }

    /// Publishes deliveries to the dead-letter queue; a preview only counts what it would have.
    pub(crate) async fn dead_letter(&self, letters: &[(&Delivery, &Rejection)]) -> Result<Vec<Receipt>, PublishError> {
        if self.preview.is_some() {
            return Ok(vec![Receipt::Confirmed; letters.len()]);
        }
        let now = clock::today().to_string();
        let letters = letters.iter().map(|(d, why)| (*d, envelope::dead_letter(&self.sender, d, why, &now)));
        self.republish(letters.map(|(d, properties)| (DEAD.to_owned(), d, properties))).await
    }

    /// Publishes deliveries to other queues of the pipeline.
    pub(crate) async fn transfer(
        &self,
        moves: &[(&Delivery, &Transfer, Option<Onward>)],
    ) -> Result<Vec<Receipt>, PublishError> {
        let now = clock::today().to_string();
        let marked = |delivery, mark, trace| envelope::transferred(&self.sender, delivery, mark, trace, &now);
        self.republish(moves.iter().map(|(d, to, trace)| (to.key.clone(), *d, marked(d, &to.mark, trace.as_ref()))))
            .await
    }

    /// How a worker or handler of this pipeline ended last, if anybody says.
    pub(crate) fn last_exit(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.last_exit.as_ref()?).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text[..text.floor_char_boundary(MAX_EXIT)].to_owned())
    }

    /// The same, waited for where somebody is to say and has not yet: kubelet and operator take a moment.
    pub(crate) async fn awaited_exit(&self) -> Option<String> {
        let ends = clock::now() + EXIT_IS_KNOWN;
        loop {
            let exit = self.last_exit();
            if exit.is_some() || self.last_exit.is_none() || clock::now() >= ends {
                return exit;
            }
            tokio::time::sleep(EXIT_LOOK).await;
        }
    }

    /// Publishes deliveries back to the source.
    pub(crate) async fn give_back(&self, deliveries: &[Delivery]) -> Result<Vec<Receipt>, PublishError> {
        let returned = |d| (self.return_key.clone(), d, envelope::returned(&self.sender, d));
        self.republish(deliveries.iter().map(returned)).await
    }

    async fn republish<'d>(
        &self,
        deliveries: impl Iterator<Item = (String, &'d Delivery, BasicProperties)>,
    ) -> Result<Vec<Receipt>, PublishError> {
        let outgoing: Vec<Outgoing<'_>> = deliveries
            .map(|(routing_key, delivery, properties)| Outgoing {
                exchange: &self.exchange,
                routing_key,
                properties,
                body: &delivery.data,
            })
            .collect();
        self.publisher.lock().await.publish(&outgoing).await
    }
}

/// A copy is tried once.
fn retry(settings: &Settings) -> Retry {
    if settings.preview.is_some() { Retry { attempts: 1, ..settings.retry } } else { settings.retry }
}

/// A name that no other process has.
fn process() -> String {
    let random = RandomState::new();
    format!("{:016x}{:016x}", random.hash_one(0_u8), random.hash_one(1_u8))
}
