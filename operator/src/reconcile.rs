//! What is around the reconcile of either kind: its time, its defects, the finalizer, and when it is tried again.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use drover_crds::api::{Phase, Status};
use futures::FutureExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Resource as _, ResourceExt as _,
    core::{DeserializeGuard, error_boundary::InvalidObject},
};
use kube_runtime::{
    controller::Action,
    finalizer::{self, Event, finalizer},
};
use serde::Serialize;
use tracing::{Instrument as _, Span};

use crate::{
    audit::{Cause, Effect, Outcome, Verb, refusal},
    condition::find,
    context::{Caches, Context, now},
    metrics::ObjectLabels,
    names::FINALIZER,
    pipeline::{
        act::{self, tell},
        plan::Notice,
        report::is_ready,
    },
};

/// No reconcile takes longer.
const LIMIT: Duration = Duration::from_mins(1);
/// After a look at an object that was out of date.
const SOON: Duration = Duration::from_millis(200);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_secs(2);
/// After a failure it is tried again this soon.
const AGAIN: Duration = Duration::from_secs(5);

/// Could not read, or could not write.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A write failed.
    #[error("a write failed")]
    Act(#[source] act::Error),
    /// The finalizer could not be set or removed.
    #[error("the finalizer could not be changed")]
    Finalizer(#[source] Box<finalizer::Error<Error>>),
    /// A defect of the operator.
    #[error("a defect of the operator, which this object brings to light: please report it, with the log")]
    Panicked,
    /// It took too long.
    #[error("not done within {} s", LIMIT.as_secs())]
    Timeout,
    /// Deletion waits for something; not a failure, but the finalizer stays.
    #[error("deletion waits")]
    Deleting(Duration),
}

/// A kind of ours.
pub(crate) trait Kind: act::Object + Serialize + Send + Sync + 'static {
    /// What its log lines are in.
    fn span(&self) -> Span;

    /// Nothing is to be done when it is deleted.
    fn is_retained(&self) -> bool;

    /// Brings cluster, hub and store in line with it.
    fn apply(ctx: &Context, caches: &Caches, object: Arc<Self>) -> impl Future<Output = Result<Action, Error>> + Send;

    /// What is to be done when it is deleted; it is gone once this is `Ok`.
    fn cleanup(ctx: &Context, caches: &Caches, object: Arc<Self>)
    -> impl Future<Output = Result<Action, Error>> + Send;

    /// It is gone: nothing is remembered of it.
    fn forget(&self, ctx: &Context);
}

/// Brings the cluster, the hub and the store in line with an object.
///
/// # Errors
/// If something could not be read or written; a spec that is wrong is a condition, not an error.
pub(crate) async fn reconcile<K: Kind>(
    object: Arc<DeserializeGuard<K>>,
    ctx: Arc<(Context, Caches)>,
) -> Result<Action, Error> {
    let (context, caches) = &*ctx;
    let object = match &object.0 {
        Ok(whole) => Arc::new(whole.clone()),
        Err(unreadable) => {
            // Not told in time, it is told at the next occasion.
            let _ = tokio::time::timeout(LIMIT, tell(context, &*object, &unread(unreadable))).await;
            context.metrics.failures.inc();
            return Ok(Action::await_change());
        }
    };
    caches.ready().await;
    let start = now().1;
    let span = object.span();
    let work = async {
        let guarded = AssertUnwindSafe(guarded(context, caches, Arc::clone(&object))).catch_unwind();
        let done = tokio::time::timeout(LIMIT, guarded).await.unwrap_or(Ok(Err(Error::Timeout)));
        // One object must not end the work on all others.
        done.unwrap_or(Err(Error::Panicked))
    };
    let result = work.instrument(span).await;
    // Whatever was remembered of it meanwhile, also where it has gone meanwhile.
    context.gone.remembers(object);
    context.metrics.duration.observe(now().1.duration_since(start).as_secs_f64());
    if result.is_ok() {
        context.metrics.reconciles.inc();
    }
    result
}

/// With a finalizer only where something is to be done at the end.
async fn guarded<K: Kind>(ctx: &Context, caches: &Caches, object: Arc<K>) -> Result<Action, Error> {
    let held = object.finalizers().iter().any(|f| f == FINALIZER);
    if object.is_retained() && !held {
        if object.meta().deletion_timestamp.is_some() {
            object.forget(ctx);
            return Ok(Action::await_change());
        }
        return K::apply(ctx, caches, object).await;
    }
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
    let change = Finalizing::of(&*object, held);
    let done = finalizer(&api, FINALIZER, object, |event| async {
        match event {
            Event::Apply(object) => K::apply(ctx, caches, object).await,
            Event::Cleanup(object) => K::cleanup(ctx, caches, object).await,
        }
    });
    let done = done.await;
    change.tell(&done);
    match done {
        Ok(action) => Ok(action),
        Err(finalizer::Error::CleanupFailed(Error::Deleting(again))) => Ok(Action::requeue(again)),
        Err(finalizer::Error::ApplyFailed(e) | finalizer::Error::CleanupFailed(e)) => Err(e),
        Err(e) => Err(Error::Finalizer(Box::new(e))),
    }
}

/// One that cannot be read is left alone until it is changed.
fn unread(object: &InvalidObject) -> Notice {
    let note = format!(
        "the operator cannot read this object and leaves it as it is: {}. Its custom resource definition is of another version than the operator: upgrade both",
        object.error
    );
    Notice { warning: true, reason: "Unreadable".to_owned(), action: "Read", note }
}

/// What is about to become of the finalizer, if anything.
struct Finalizing(Option<(Verb, Cause)>);

impl Finalizing {
    fn of<K: Kind>(object: &K, held: bool) -> Self {
        let verb = match (held, object.meta().deletion_timestamp.is_some()) {
            (false, false) => Verb::Create,
            (true, true) => Verb::Delete,
            _ => return Self(None),
        };
        let why = if held { "what was to be done at its end is done" } else { "something is to be done at its end" };
        Self(Some((verb, Cause::of(object, why))))
    }

    /// What has become of it; nothing while the end waits for something.
    fn tell(self, done: &Result<Action, finalizer::Error<Error>>) {
        let Some((verb, cause)) = self.0 else { return };
        let outcome = match done {
            Ok(_) => Outcome::Done,
            Err(finalizer::Error::AddFinalizer(e) | finalizer::Error::RemoveFinalizer(e)) => {
                Outcome::Failed(refusal(e))
            }
            Err(_) => return,
        };
        cause.tell(&Effect::new(verb, "finalizer", FINALIZER), outcome);
    }
}

/// What a status says, as metrics.
pub(crate) fn measure(ctx: &Context, object: &impl Kind, status: Option<&Status>) {
    let Some(status) = status else { return };
    let labels = ObjectLabels::of(object);
    ctx.metrics.ready.get_or_create(&labels).set(i64::from(is_ready(status)));
    // Not known while the hub is not looked at.
    if let Some(hub) = find(&status.conditions, "HubReady").filter(|c| c.status == "True") {
        ctx.metrics.users_in_use.get_or_create(&labels).set((hub.reason == "UsersInUse").into());
    }
    ctx.metrics.replicas.get_or_create(&labels).set(i64::from(status.replicas.unwrap_or(0)));
    ctx.metrics.scale.wanted(&labels, status.scale.as_ref().map(|scale| scale.desired));
    if let Some(dead) = status.dead_letters {
        ctx.metrics.dead_letters.get_or_create(&labels).set(dead);
    }
}

/// For how long an object has been told to go.
pub(crate) fn deleted_for(object: &impl Kind, now: Timestamp) -> Duration {
    let since = object.meta().deletion_timestamp.as_ref().map_or(now, |t| t.0);
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// While it is being deleted: says what is waited for, once, and asks to be called again.
pub(crate) async fn wait(ctx: &Context, object: &impl Kind, mut status: Status, message: &str) -> Error {
    let said = (Some(Phase::Deleting), Some(message.to_owned()));
    if (status.phase, status.message.clone()) != said {
        (status.phase, status.message) = said;
        if let Err(error) = act::write_status(ctx, object, &status).await {
            return Error::Act(error);
        }
    }
    Error::Deleting(LOOK)
}

/// Says what went wrong, and when it is tried again.
#[expect(clippy::needless_pass_by_value, reason = "the controller passes it so")]
pub(crate) fn error_policy<K: Kind>(
    object: Arc<DeserializeGuard<K>>,
    error: &Error,
    ctx: Arc<(Context, Caches)>,
) -> Action {
    if let Error::Act(e) = error
        && e.is_conflict()
    {
        // The cache was behind: the object as it is now is on its way.
        return Action::requeue(SOON);
    }
    ctx.0.metrics.failures.inc();
    let meta = object.meta();
    tracing::warn!(namespace = meta.namespace, name = meta.name, error = %chain(error), "reconcile failed");
    Action::requeue(AGAIN)
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(": ");
        text.push_str(&e.to_string());
        cause = e.source();
    }
    text
}
