//! Which of several replicas works: the one that holds a Lease. The others wait, and have read nothing.
//!
//! Clocks of two machines are never compared. Who waits counts from when it saw the lease change last; who holds it counts from before it
//! asked for the renewal, so it has always stopped before another can start.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::{context, names::MANAGER};

/// A lease that nobody has seen renewed for so long may be taken.
const LIFE: Duration = Duration::from_secs(10);
/// The holder writes nothing in this last part of its lease: what it has sent by then has arrived.
const MARGIN: Duration = Duration::from_secs(2);
/// The holder renews it so often: a renewal may fail twice.
const RENEW: Duration = Duration::from_secs(2);
/// Who waits looks so often. With the lease's life it is less than the 15 s in which another has taken over.
const LOOK: Duration = Duration::from_secs(1);
/// A request that is not answered within this is made again.
const PATIENCE: Duration = Duration::from_secs(2);

/// The lease could not be read or written.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The API server refuses.
    #[error("the API server refuses: {0}")]
    Api(#[source] Box<kube::Error>),
    /// It does not answer.
    #[error("the API server does not answer")]
    Silent,
}

impl Error {
    /// Somebody else was quicker.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(e) if matches!(&**e, kube::Error::Api(status) if status.code == 409))
    }
}

/// What is to be done about a lease that was just read.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// There is none: make it.
    Create,
    /// Nobody holds it any more, or this pod does already: take it.
    Take,
    /// Another holds it.
    Wait,
}

/// What who waits has seen. Pure: time is a parameter.
#[derive(Debug)]
struct Election {
    identity: String,
    seen: Option<(LeaseSpec, Instant)>,
    /// Another was seen to renew it: it works, or is about to.
    led: bool,
}

impl Election {
    fn next(&mut self, lease: Option<&Object>, now: Instant) -> Step {
        let Some(lease) = lease else { return Step::Create };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        // A container that was started again: what ran in this pod before has ended.
        if holder.is_empty() || holder == self.identity {
            return Step::Take;
        }
        match &self.seen {
            Some((seen, since)) if *seen == spec => {
                let seconds = spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok());
                let life = seconds.map_or(LIFE, Duration::from_secs);
                if now.duration_since(*since) >= life { Step::Take } else { Step::Wait }
            }
            seen => {
                self.led |= seen.is_some();
                self.seen = Some((spec, now));
                Step::Wait
            }
        }
    }
}

/// Until when this process may write. By default, for good: it is the only one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fence(Option<Arc<Mutex<Option<Instant>>>>);

impl Fence {
    /// One that a lease opens.
    pub(crate) fn shut() -> Self {
        Self(Some(Arc::default()))
    }

    /// True while the lease is held, where there is one.
    pub(crate) fn is_open(&self) -> bool {
        self.0.is_none() || self.end().is_some_and(|end| Instant::now() < end)
    }

    fn end(&self) -> Option<Instant> {
        *self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, end: Option<Instant>) {
        if let Some(until) = &self.0 {
            *until.lock().unwrap_or_else(PoisonError::into_inner) = end;
        }
    }
}

/// The lease of one set of replicas, as one of them sees it.
#[derive(Debug)]
pub(crate) struct Lease {
    api: Api<Object>,
    name: String,
    identity: String,
    fence: Fence,
}

impl Lease {
    /// Of a namespace; `identity` is this replica's and nobody else's.
    pub(crate) fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.to_owned(), identity: identity.to_owned(), fence: Fence::shut() }
    }

    /// What every write is to ask.
    pub(crate) fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Waits until this replica holds the lease; `led` is called while another does.
    pub(crate) async fn acquire(&self, led: impl Fn()) -> Held<'_> {
        let mut election = Election { identity: self.identity.clone(), seen: None, led: false };
        loop {
            let look = Instant::now() + LOOK;
            match self.attempt(&mut election).await {
                Ok(Some(object)) => return Held { lease: self, object },
                Ok(None) if election.led => led(),
                Ok(None) => {}
                Err(error) if error.is_conflict() => {}
                Err(error) => tracing::warn!(%error, lease = self.name, "the lease cannot be had"),
            }
            sleep_until(look).await;
        }
    }

    async fn attempt(&self, election: &mut Election) -> Result<Option<Object>, Error> {
        let found = answered(self.api.get_opt(&self.name)).await?;
        let asked = Instant::now();
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        let object = match election.next(found.as_ref(), asked) {
            Step::Wait => return Ok(None),
            Step::Create => answered(self.api.create(&params, &self.taken(Object::default()))).await?,
            Step::Take => {
                let taken = self.taken(found.unwrap_or_default());
                answered(self.api.replace(&self.name, &params, &taken)).await?
            }
        };
        self.fence.set(Some(asked + LIFE - MARGIN));
        Ok(Some(object))
    }

    /// The lease as its new holder writes it. It carries the version that was read: of two who take it, one is refused.
    fn taken(&self, found: Object) -> Object {
        let now = Some(MicroTime(context::now().0));
        let old = found.spec.unwrap_or_default();
        let transitions = old.lease_transitions.unwrap_or(0);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LIFE.as_secs()).ok(),
            acquire_time: now.clone(),
            renew_time: now,
            lease_transitions: Some(transitions.saturating_add(1)),
            ..LeaseSpec::default()
        };
        Object { metadata: ObjectMeta { name: Some(self.name.clone()), ..found.metadata }, spec: Some(spec) }
    }
}

/// A lease that this replica holds.
#[derive(Debug)]
pub(crate) struct Held<'l> {
    lease: &'l Lease,
    object: Object,
}

impl Held<'_> {
    /// Renews it until it is lost. From then on, and a moment before, the fence is shut.
    pub(crate) async fn keep(&mut self) {
        while let Some(end) = self.lease.fence.end() {
            sleep_until((Instant::now() + RENEW).min(end)).await;
            let asked = Instant::now();
            if asked >= end {
                break;
            }
            match timeout_at(end, self.renew()).await {
                Ok(Ok(true)) => self.lease.fence.set(Some(asked + LIFE - MARGIN)),
                Ok(Ok(false)) | Err(_) => break,
                Ok(Err(error)) => tracing::warn!(%error, lease = self.lease.name, "the lease could not be renewed"),
            }
        }
        self.lease.fence.set(None);
    }

    /// False if another holds it.
    async fn renew(&mut self) -> Result<bool, Error> {
        if let Some(spec) = self.object.spec.as_mut() {
            spec.renew_time = Some(MicroTime(context::now().0));
        }
        match self.write().await {
            Ok(object) => self.object = object,
            Err(error) if error.is_conflict() && !self.is_still_ours().await => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    /// Somebody has written it: perhaps only a label, perhaps another holder.
    async fn is_still_ours(&mut self) -> bool {
        match answered(self.lease.api.get_opt(&self.lease.name)).await {
            Ok(Some(found)) => {
                self.object = found;
                let holder = self.object.spec.as_ref().and_then(|s| s.holder_identity.as_deref());
                holder == Some(&self.lease.identity)
            }
            Ok(None) => false,
            // Not known: it is asked again, until its end.
            Err(_) => true,
        }
    }

    /// Lets another have it at once. Nothing may be written after this.
    pub(crate) async fn release(mut self) {
        self.lease.fence.set(None);
        // A renewal may have been under way: what is there now counts.
        if !self.is_still_ours().await {
            return;
        }
        if let Some(spec) = self.object.spec.as_mut() {
            (spec.holder_identity, spec.renew_time) = (None, Some(MicroTime(context::now().0)));
        }
        if let Err(error) = self.write().await {
            tracing::warn!(%error, lease = self.lease.name, "the lease could not be released: it ends by itself");
        }
    }

    async fn write(&self) -> Result<Object, Error> {
        let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        answered(self.lease.api.replace(&self.lease.name, &params, &self.object)).await
    }
}

async fn answered<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match timeout(PATIENCE, request).await {
        Ok(answer) => answer.map_err(|e| Error::Api(Box::new(e))),
        Err(_) => Err(Error::Silent),
    }
}

#[cfg(test)]
mod tests;
