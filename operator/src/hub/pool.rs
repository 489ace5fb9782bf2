//! One connection for each hub, made again when it is lost, shared by everything that looks after its queues.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use drover_worker::hub::{HubAddress, channel, connect};
use lapin::{Channel, Connection};

use super::{bindings::Bindings, reply::lost};
use crate::{lease::Fence, probe::Probe, problem::Problem};

/// A hub that did not answer is not asked again before this.
const PAUSE: Duration = Duration::from_secs(2);
/// A connection that nobody has used for so long is closed.
const IDLE: Duration = Duration::from_mins(5);

/// All hubs that pipelines name.
#[derive(Debug, Default)]
pub struct Hubs {
    hubs: Mutex<HashMap<String, Arc<Hub>>>,
    fence: Fence,
}

/// A hub.
#[derive(Debug)]
pub struct Hub {
    name: String,
    address: HubAddress,
    connection: Arc<Probe<Result<Arc<Connection>, Problem>>>,
    /// What is known of bindings at it.
    pub(super) bindings: Bindings,
    used: Mutex<Instant>,
    sampled: AtomicBool,
    fence: Fence,
}

impl Hubs {
    /// Of a process that may change them while a fence is open.
    pub(crate) fn new(fence: Fence) -> Self {
        Self { fence, ..Self::default() }
    }

    /// The hub at an address. The same address is the same hub.
    pub fn at(&self, address: &HubAddress, now: Instant) -> Arc<Hub> {
        let key = format!("{} {:?} {:?}", address.uri, address.tls.ca, address.tls.cert);
        let mut hubs = self.hubs.lock().unwrap_or_else(PoisonError::into_inner);
        hubs.retain(|_, hub| Arc::strong_count(hub) > 1 || now.duration_since(*hub.used()) < IDLE);
        let hub = hubs.entry(key).or_insert_with_key(|key| {
            Arc::new(Hub {
                name: key.clone(),
                address: address.clone(),
                connection: Arc::default(),
                bindings: Bindings::default(),
                used: Mutex::new(now),
                sampled: AtomicBool::new(false),
                fence: self.fence.clone(),
            })
        });
        *hub.used() = now;
        Arc::clone(hub)
    }
}

impl Hub {
    /// A channel of its own on the shared connection.
    ///
    /// # Errors
    /// Why the hub cannot be reached; the answer is kept for a moment, so that many pipelines do not knock at once.
    pub async fn channel(&self) -> Result<Channel, Problem> {
        if !self.fence.is_open() {
            return Err(Problem::new("Connecting", "hub: another replica leads"));
        }
        let life = |seen: &Result<Arc<Connection>, Problem>| match seen {
            Ok(connection) if connection.status().connected() => Duration::MAX,
            Ok(_) => Duration::ZERO,
            Err(_) => PAUSE,
        };
        let connected = async || {
            let seen = self.connection.ask(life, || open(self.address.clone())).await;
            seen.unwrap_or_else(|| Err(Problem::new("Connecting", "hub: it has not answered yet")))
        };
        let connection = connected().await?;
        match channel(&connection).await {
            // It had no channel left.
            Err(_) if !connection.status().connected() => channel(&*connected().await?).await,
            opened => opened,
        }
        .map_err(|e| lost(&e))
    }

    /// Where it is.
    pub(super) fn address(&self) -> &HubAddress {
        &self.address
    }

    /// Tells it from other hubs; it holds secrets and is for nobody's eyes.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// True if nobody samples it; who asks does from now on.
    pub(crate) fn take_task(&self) -> bool {
        !self.sampled.swap(true, Ordering::AcqRel)
    }

    /// Nobody samples it any more.
    pub(crate) fn task_ended(&self) {
        self.sampled.store(false, Ordering::Release);
    }

    fn used(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn open(address: HubAddress) -> Result<Arc<Connection>, Problem> {
    let connection = connect(&address, "drover-operator").await;
    connection.map(Arc::new).map_err(|e| Problem::new(e.reason.as_str(), format!("hub: {}", e.message)))
}

#[cfg(test)]
mod tests {
    use drover_worker::tls::Material;

    use super::*;

    #[tokio::test]
    async fn who_does_not_lead_has_no_channel() {
        let address = HubAddress { uri: "amqp://h".to_owned(), tls: Material::default() };
        let hub = Hubs::new(Fence::shut()).at(&address, crate::context::now().1);
        assert_eq!(hub.channel().await.unwrap_err().message, "hub: another replica leads");
    }
}
