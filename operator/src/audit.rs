//! Who changed what: a line for each effect on the cluster, the hub and dead letters, under a target of its own. What was found as it should
//! be is no effect.
//!
//! A line names things and never holds what is in them: no body, no field of a spec, no secret, and of a failure its reason alone.

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use drover_crds::api::LONGEST_REQUEST;
use kube::{Resource, ResourceExt as _};

/// Target of the lines.
pub const TARGET: &str = "drover::audit";

/// What is done to something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It was not there.
    Create,
    /// Fields of it are set.
    Apply,
    /// It is written anew, without what somebody else has set.
    Replace,
    /// It is taken away.
    Delete,
    /// A binding is made.
    Bind,
    /// A binding is taken away.
    Unbind,
    /// A mark is put on it.
    Annotate,
    /// Dead letters of it are sent back.
    Redrive,
    /// A person's request about it is answered.
    Answer,
}

impl Verb {
    /// As it is in a line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Apply => "apply",
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::Bind => "bind",
            Self::Unbind => "unbind",
            Self::Annotate => "annotate",
            Self::Redrive => "redrive",
            Self::Answer => "answer",
        }
    }

    /// As people say that it has been done.
    fn done(self) -> &'static str {
        match self {
            Self::Create => "made",
            Self::Apply => "set",
            Self::Replace => "put back",
            Self::Delete => "deleted",
            Self::Bind => "bound",
            Self::Unbind => "unbound",
            Self::Annotate => "marked",
            Self::Redrive => "redrove",
            Self::Answer => "answered",
        }
    }
}

/// How an effect has ended, or that it has begun where it takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It has begun; its end is told by another line.
    Begun,
    /// It is done.
    Done,
    /// It is not done, for a reason in `CamelCase`.
    Failed(&'a str),
}

/// What is done.
#[derive(Debug, Clone, Copy)]
pub struct Effect<'a> {
    /// What.
    pub verb: Verb,
    /// To what kind of thing.
    pub resource: &'a str,
    /// To which one.
    pub name: &'a str,
    /// Of which revision, where it is of one.
    pub revision: Option<&'a str>,
    /// How many messages it is about, where that is known.
    pub messages: Option<i64>,
}

impl<'a> Effect<'a> {
    /// An effect on one thing.
    #[must_use]
    pub fn new(verb: Verb, resource: &'a str, name: &'a str) -> Self {
        Self { verb, resource, name, revision: None, messages: None }
    }
}

/// On whose behalf something is done, and why.
#[derive(Debug, Clone, Default)]
pub struct Cause {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    request: Option<String>,
    why: Cow<'static, str>,
    journal: Option<Arc<Journal>>,
}

impl Cause {
    /// An object asks for it.
    #[must_use]
    pub fn of<K: Resource<DynamicType = ()>>(object: &K, why: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: K::kind(&()).into_owned(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            uid: object.uid().unwrap_or_default(),
            request: None,
            why: why.into(),
            journal: None,
        }
    }

    /// The object's UID.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// The same, for another reason.
    #[must_use]
    pub fn because(&self, why: impl Into<Cow<'static, str>>) -> Self {
        Self { why: why.into(), ..self.clone() }
    }

    /// A person has asked for it with this id. What is longer than any id that is kept is cut.
    #[must_use]
    pub fn asked(self, request: Option<&str>) -> Self {
        Self { request: request.map(|id| id.chars().take(LONGEST_REQUEST).collect()), ..self }
    }

    /// What is done is also kept for an Event.
    #[must_use]
    pub(crate) fn noted(self, journal: &Arc<Journal>) -> Self {
        Self { journal: Some(Arc::clone(journal)), ..self }
    }

    /// Something is done.
    pub fn done(&self, verb: Verb, resource: &str, name: &str) {
        self.tell(&Effect::new(verb, resource, name), Outcome::Done);
    }

    /// Writes the line.
    pub fn tell(&self, effect: &Effect<'_>, outcome: Outcome<'_>) {
        let (ended, reason) = match outcome {
            Outcome::Begun => ("begun", None),
            Outcome::Done => ("done", None),
            Outcome::Failed(reason) => ("failed", Some(reason)),
        };
        tracing::info!(
            target: TARGET,
            kind = self.kind,
            namespace = self.namespace,
            name = self.name,
            uid = self.uid,
            revision = effect.revision,
            request = self.request,
            verb = effect.verb.as_str(),
            resource = effect.resource,
            resource_name = effect.name,
            messages = effect.messages,
            why = &*self.why,
            outcome = ended,
            reason,
            "audit"
        );
        if let (Some(journal), Outcome::Done) = (&self.journal, outcome) {
            let of = effect.revision.map(|revision| format!(" of revision {revision}")).unwrap_or_default();
            let asked = self.request.as_ref().map(|request| format!(" as asked by {request}")).unwrap_or_default();
            journal.note(&self.uid, format!("{} {} {}{of}{asked}", effect.verb.done(), effect.resource, effect.name));
        }
    }
}

/// Why a write to the API server has failed: what the server calls it, and nothing of what was written.
#[must_use]
pub fn refusal(error: &kube::Error) -> &str {
    match error {
        kube::Error::Api(status) if !status.reason.is_empty() => &status.reason,
        kube::Error::Api(_) => "Refused",
        _ => "Unreachable",
    }
}

/// What was done for each object and no Event has told yet, and which of its writes have changed something. By UID.
#[derive(Debug, Default)]
pub struct Journal {
    notes: Mutex<HashMap<String, Vec<String>>>,
    versions: Mutex<HashMap<String, HashMap<String, String>>>,
}

impl Journal {
    fn note(&self, uid: &str, note: String) {
        locked(&self.notes).entry(uid.to_owned()).or_default().push(note);
    }

    /// What has not been told yet; it is from now on.
    pub(crate) fn take(&self, uid: &str) -> Vec<String> {
        locked(&self.notes).remove(uid).unwrap_or_default()
    }

    /// True if what a write has given is another version than the last write has: who looks at an old state writes the same twice.
    pub(crate) fn is_news(&self, uid: &str, what: String, version: Option<String>) -> bool {
        let Some(version) = version else { return true };
        let mut versions = locked(&self.versions);
        let before = versions.entry(uid.to_owned()).or_default().insert(what, version.clone());
        before.is_none_or(|before| before != version)
    }

    /// Something that was written for an object is told to end.
    pub(crate) fn ended(&self, uid: &str, what: &str) {
        if let Some(versions) = locked(&self.versions).get_mut(uid) {
            versions.remove(what);
        }
    }

    /// The object is gone.
    pub(crate) fn forget(&self, uid: &str) {
        locked(&self.notes).remove(uid);
        locked(&self.versions).remove(uid);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests;
