//! What this process knows of bindings. AMQP has no look at one, and making one that is there changes nothing: it is taken for made where
//! one of its ends was, or where an object asks for it for the first time. Data only.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::topology::Bind;

/// What is known of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It is not there, as far as can be known.
    Missing,
    /// This process has made it.
    There,
    /// This process has taken it away.
    Gone,
}

/// Those of one hub of which more is known than that they are asked for.
#[derive(Debug, Default)]
pub(super) struct Bindings(Mutex<HashMap<Bind, Known>>);

impl Bindings {
    /// One of its ends is made now: it cannot be there.
    pub(super) fn lacks(&self, binding: &Bind) {
        self.lock().insert(binding.clone(), Known::Missing);
    }

    /// An object asks for it for the first time: it is not there, unless this process has made it already.
    pub(super) fn asked(&self, binding: &Bind) {
        let mut known = self.lock();
        let state = known.entry(binding.clone()).or_insert(Known::Missing);
        if *state == Known::Gone {
            *state = Known::Missing;
        }
    }

    /// True if it is missing.
    pub(super) fn is_missing(&self, binding: &Bind) -> bool {
        self.lock().get(binding) == Some(&Known::Missing)
    }

    /// It is there now.
    pub(super) fn bound(&self, binding: &Bind) {
        if let Some(state) = self.lock().get_mut(binding) {
            *state = Known::There;
        }
    }

    /// It is not there now; true if that is news.
    pub(super) fn unbound(&self, binding: &Bind) -> bool {
        self.lock().insert(binding.clone(), Known::Gone) != Some(Known::Gone)
    }

    /// A queue, or an exchange that something is bound to, is gone with its bindings.
    pub(super) fn forget(&self, to: &str) {
        self.lock().retain(|binding, _| binding.queue != to);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Bind, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_made_once_until_one_of_its_ends_is_made_again() {
        let (known, [queue, exchange, routing_key]) = (Bindings::default(), ["q", "x", "k"].map(str::to_owned));
        let bind = Bind { queue, exchange, routing_key };
        known.bound(&bind);
        assert!(!known.is_missing(&bind), "nothing is known of it: it may have been there");
        known.asked(&bind);
        assert!(known.is_missing(&bind));
        known.bound(&bind);
        known.asked(&bind);
        assert!(!known.is_missing(&bind), "asked for twice, made once");
        known.lacks(&bind);
        assert!(known.is_missing(&bind));
        assert!(known.unbound(&bind) && !known.unbound(&bind), "taken away once");
        known.asked(&bind);
        assert!(known.is_missing(&bind), "asked for again");
        known.forget("q");
        assert!(!known.is_missing(&bind));
    }
}
