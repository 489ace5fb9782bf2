//! Objects that are gone and that nobody has seen going: one without a finalizer is deleted at once, and is reconciled no more.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kube::ResourceExt as _;
use kube_runtime::reflector::Store;

use crate::{context::Context, reconcile::Kind};

/// How often they are looked for.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

type Forget = Box<dyn Fn(&Context) + Send + Sync>;

/// The objects that something is remembered of, by UID.
#[derive(Default)]
pub(crate) struct Gone(Mutex<HashMap<String, Forget>>);

impl fmt::Debug for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gone").finish_non_exhaustive()
    }
}

impl Gone {
    /// Something is remembered of an object, unless it is about to go: then it is seen going.
    pub(crate) fn remembers<K: Kind>(&self, object: Arc<K>) {
        let Some(uid) = object.uid().filter(|_| object.meta().deletion_timestamp.is_none()) else { return };
        self.remember(uid, Box::new(move |ctx| object.forget(ctx)));
    }

    fn remember(&self, uid: String, forget: Forget) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, forget);
    }

    /// Those that are not among the living; they are asked for once.
    fn take(&self, living: &HashSet<String>) -> Vec<Forget> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extract_if(|uid, _| !living.contains(uid)).map(|(_, forget)| forget).collect()
    }

    /// Forgets all that are gone.
    pub(crate) fn forget(ctx: &Context) {
        let pipelines = ctx.pipelines.iter().flat_map(Store::state).filter_map(|object| object.uid());
        let queries = ctx.queries.iter().flat_map(Store::state).filter_map(|object| object.uid());
        ctx.gone.take(&pipelines.chain(queries).collect()).iter().for_each(|forget| forget(ctx));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_any_more_is_forgotten_once() {
        let gone = Gone::default();
        for uid in ["a", "b", "b"] {
            gone.remember(uid.to_owned(), Box::new(|_| {}));
        }
        let living = |uids: &[&str]| uids.iter().map(|uid| (*uid).to_owned()).collect();
        assert_eq!(gone.take(&living(&["a", "b", "c"])).len(), 0);
        assert_eq!(gone.take(&living(&["a"])).len(), 1);
        assert_eq!(gone.take(&living(&["a"])).len(), 0);
        assert_eq!(gone.take(&living(&[])).len(), 1);
    }
}
