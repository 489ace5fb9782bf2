//! What goes with an object of either kind before it is gone: its workers, then the users of the hub that were made for it. Bounded in
//! time: a hub that is gone blocks nothing for ever.

use std::{sync::Arc, time::Duration};

use drover_crds::api::HubSpec;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, ResourceExt as _, api::DeleteParams};

use crate::{
    audit::{Cause, Effect, Outcome, Verb, refusal},
    context::{Context, now},
    minted::{self, Management, Role},
    pipeline::{act::tell, observe::hub_and_management, plan::Notice, snapshot::Owned},
    problem::Problem,
    reconcile::Kind,
};

/// Workers that do not end, and a management API that does not answer, are given up after this long: more than a pod has to end.
const LIMIT: Duration = Duration::from_mins(2);
/// A management API that does not answer within this is asked again.
const PATIENCE: Duration = Duration::from_secs(15);

/// Tells all workers to end; an error, to be tried again, until they have.
pub(crate) async fn end_workers(ctx: &Context, owned: &Owned, namespace: &str, cause: &Cause) -> Result<(), Problem> {
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), namespace);
    let all = || owned.deployments.iter().chain(&owned.previews).chain(&owned.suspects);
    for deployment in all().filter(|d| d.metadata.deletion_timestamp.is_none()) {
        let name = deployment.name_any();
        ctx.metrics.wrote("Deployment", "delete");
        let effect = Effect::new(Verb::Delete, "Deployment", &name);
        match api.delete(&name, &DeleteParams::foreground()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => {
                cause.tell(&effect, Outcome::Failed(refusal(&error)));
                return Err(Problem::new("WorkersEnding", format!("Deployment {name}: {error}")));
            }
            Ok(_) => cause.tell(&effect, Outcome::Done),
        }
    }
    if all().next().is_none() && owned.pods.is_empty() {
        return Ok(());
    }
    Err(Problem::new("WorkersEnding", "workers end before what they work with is deleted"))
}

/// Takes away the users that were made for an object, once its workers have ended; an error, to be tried again, until that is done or
/// given up.
pub(crate) async fn end_users<K: Kind>(
    ctx: &Context,
    object: &K,
    hub: &HubSpec,
    owned: &Owned,
    roles: &[Role],
) -> Result<(), Problem> {
    if !hub.is_minted() {
        return Ok(());
    }
    // Not since the deletion: draining may take longer, and an operator that was away must not cut off workers.
    let age = ctx.minted.ending(&object.uid().unwrap_or_default(), now().1);
    let cause = Cause::of(object, "the object that they were made for is deleted");
    let namespace = object.namespace().unwrap_or_default();
    if age < LIMIT {
        end_workers(ctx, owned, &namespace, &cause).await?;
    }
    let remove = async {
        let management = management(ctx, object, hub, &namespace).await?;
        let (name, uid) = (object.name_any(), object.uid().unwrap_or_default());
        minted::remove(&management, (&namespace, &name, &uid), roles, &cause).await
    };
    let silent = |_| Err(Problem::new("ManagementUnreachable", "the hub's management API: no answer in time"));
    match tokio::time::timeout(PATIENCE, remove).await.unwrap_or_else(silent) {
        Err(problem) if age >= LIMIT => {
            let note = format!("users of the hub that were made for it may be left: {}", problem.message);
            let notice = Notice { warning: true, reason: "UsersLeft".to_owned(), action: "Delete", note };
            tell(ctx, object, &notice).await;
            Ok(())
        }
        removed => removed,
    }
}

/// Where the users are: as the secret tells, or as it did, where a whole namespace is deleted and the secret went first.
async fn management<K: Kind>(
    ctx: &Context,
    object: &K,
    hub: &HubSpec,
    namespace: &str,
) -> Result<Arc<Management>, Problem> {
    let secret = &hub.secret_ref;
    let read = async {
        let data = ctx.secrets.get(&ctx.client, namespace, &secret.name, now().1).await?;
        let (hub, management) = hub_and_management(&ctx.config.allowed_hosts, secret, &data, true);
        hub?;
        management.unwrap_or_else(|| Err(Problem::new("SecretKeyMissing", "no management API is named")))
    };
    match read.await {
        Ok(address) => ctx.minted.management(address),
        Err(problem) => ctx.minted.hub_of(&object.uid().unwrap_or_default()).ok_or(problem),
    }
}
