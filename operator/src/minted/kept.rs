//! The secret of a role: passwords of its users, and which of them is the current one. Reads and writes it; it decides nothing.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams},
};
use url::Url;

use super::role::Generation;
use crate::{
    audit::{Cause, Effect, Outcome, Verb, refusal},
    metrics::Metrics,
    names::MANAGER,
    problem::Problem,
};

/// Annotation of the secret: the user that new pods are told of.
const GENERATION: &str = "drover.dev/generation";
/// Annotation of the secret: since when they are told of it.
const TURNED: &str = "drover.dev/generation-since";
/// Annotation of the secret, with the generation behind it: when the password was made.
const MINTED: &str = "drover.dev/minted-";

/// A password, and when it was made.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Password {
    pub text: String,
    pub minted: Timestamp,
    /// The address that it is in.
    pub uri: String,
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Password").field("minted", &self.minted).finish_non_exhaustive()
    }
}

/// What a secret has.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// It is there.
    pub exists: bool,
    /// The user that new pods are told of.
    pub current: Option<Generation>,
    /// Since when.
    pub(super) turned: Option<Timestamp>,
    pub(super) passwords: BTreeMap<Generation, Password>,
    /// Addresses with the current user for pods that are told of one that has no password any more.
    pub(super) aliases: BTreeMap<Generation, String>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exists, current, turned, passwords, aliases } = self;
        let mut shown = f.debug_struct("Kept");
        shown.field("exists", exists).field("current", current).field("turned", turned).field("passwords", passwords);
        shown.field("aliases", &aliases.keys()).finish()
    }
}

/// Where a secret is, and whose it is.
#[derive(Debug, Clone)]
pub(super) struct Place<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    pub owner: &'a OwnerReference,
}

/// The hub's address with another user in it.
pub(super) fn address(hub: &str, user: &str, password: &str) -> String {
    let Ok(mut uri) = Url::parse(hub.trim()) else { return String::new() };
    // Cannot fail: it has a host, or it would not have been taken for a hub's.
    let _ = (uri.set_username(user), uri.set_password(Some(password)));
    uri.into()
}

impl Kept {
    /// Reads a secret.
    ///
    /// # Errors
    /// If it is not the object's, or the API server did not answer.
    pub(super) async fn look(client: &Client, place: &Place<'_>) -> Result<Self, Problem> {
        let api = Api::<Secret>::namespaced(client.clone(), place.namespace);
        let found = api
            .get_opt(place.name)
            .await
            .map_err(|e| Problem::new("SecretUnreadable", format!("secret {} cannot be read: {e}", place.name)))?;
        let Some(secret) = found else { return Ok(Self::default()) };
        if !secret.owner_references().iter().any(|owner| owner.uid == place.owner.uid) {
            let message = format!(
                "secret {} is somebody else's, and passwords that the operator makes go there: delete it",
                place.name
            );
            return Err(Problem::new("SecretTaken", message));
        }
        Ok(Self::read(&secret))
    }

    fn read(secret: &Secret) -> Self {
        let text = |key: String| {
            let bytes = &secret.data.as_ref()?.get(&key)?.0;
            String::from_utf8(bytes.clone()).ok().filter(|text| !text.is_empty())
        };
        let passwords = Generation::BOTH.into_iter().filter_map(|generation| {
            let told = secret.annotations().get(&format!("{MINTED}{}", generation.as_str()));
            // One that tells no time is older than any.
            let minted = told.and_then(|at| at.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH);
            let uri = text(generation.key()).unwrap_or_default();
            Some((generation, Password { text: text(password_key(generation))?, minted, uri }))
        });
        let lost = Generation::BOTH.into_iter().filter(|g| text(password_key(*g)).is_none());
        Self {
            exists: true,
            aliases: lost.filter_map(|g| Some((g, text(g.key())?))).collect(),
            current: secret.annotations().get(GENERATION).and_then(|text| Generation::parse(text)),
            turned: secret.annotations().get(TURNED).and_then(|at| at.parse().ok()),
            passwords: passwords.collect(),
        }
    }

    /// As it is to be: both users' addresses for pods, and the current one's for whoever reads it by other means.
    fn secret(&self, place: &Place<'_>, user: impl Fn(Generation) -> String) -> Secret {
        let mut data = BTreeMap::new();
        let mut annotations = BTreeMap::new();
        for (generation, password) in &self.passwords {
            data.insert(password_key(*generation), password.text.clone());
            data.insert(generation.key(), password.uri.clone());
            annotations.insert(format!("{MINTED}{}", generation.as_str()), password.minted.to_string());
        }
        data.extend(self.aliases.iter().map(|(generation, uri)| (generation.key(), uri.clone())));
        if let Some((current, password)) = self.current.and_then(|g| Some((g, self.passwords.get(&g)?))) {
            annotations.insert(GENERATION.to_owned(), current.as_str().to_owned());
            annotations.extend(self.turned.map(|at| (TURNED.to_owned(), at.to_string())));
            let read = [("uri", &password.uri), ("username", &user(current)), ("password", &password.text)];
            data.extend(read.map(|(key, text)| (key.to_owned(), text.clone())));
        }
        Secret {
            metadata: ObjectMeta {
                name: Some(place.name.to_owned()),
                namespace: Some(place.namespace.to_owned()),
                labels: Some(place.labels.clone()),
                annotations: Some(annotations),
                owner_references: Some(vec![place.owner.clone()]),
                ..ObjectMeta::default()
            },
            data: Some(data.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))).collect()),
            ..Secret::default()
        }
    }

    /// Writes the secret.
    ///
    /// # Errors
    /// If the operator may not, or the API server did not answer.
    pub(super) async fn write(
        &self,
        client: &Client,
        place: &Place<'_>,
        user: impl Fn(Generation) -> String,
        metrics: &Metrics,
        cause: &Cause,
    ) -> Result<(), Problem> {
        let verb = if self.exists { Verb::Apply } else { Verb::Create };
        metrics.wrote("Secret", verb.as_str());
        let api = Api::<Secret>::namespaced(client.clone(), place.namespace);
        let secret = Patch::Apply(self.secret(place, user));
        let written = api.patch(place.name, &PatchParams::apply(MANAGER).force(), &secret).await;
        let outcome = written.as_ref().map_or_else(|e| Outcome::Failed(refusal(e)), |_| Outcome::Done);
        cause.tell(&Effect::new(verb, "Secret", place.name), outcome);
        written.map(drop).map_err(|e| {
            let message = match &e {
                kube::Error::Api(status) if status.is_forbidden() => format!(
                    "the operator may not write secret {}: install its chart with rbac.mintedSecrets: true",
                    place.name
                ),
                e => format!("secret {} cannot be written: {e}", place.name),
            };
            Problem::new("SecretNotWritten", message)
        })
    }
}

fn password_key(generation: Generation) -> String {
    format!("password-{}", generation.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let password = |text: &str, second| Password {
            text: text.to_owned(),
            minted: Timestamp::from_second(second).unwrap(),
            uri: address("amqps://admin:x@hub:5671/%2fv", text, text),
        };
        let kept = Kept {
            exists: true,
            current: Some(Generation::B),
            turned: Some(Timestamp::from_second(3).unwrap()),
            passwords: [(Generation::A, password("one", 1)), (Generation::B, password("two", 2))].into(),
            aliases: BTreeMap::new(),
        };
        let labels = BTreeMap::new();
        let owner = OwnerReference { uid: "u".to_owned(), ..OwnerReference::default() };
        let place = Place { name: "s", namespace: "n", labels: &labels, owner: &owner };
        let secret = kept.secret(&place, |g| format!("user-{}", g.as_str()));
        assert_eq!(Kept::read(&secret), kept);
        let text = |key: &str| String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap();
        assert_eq!(text("uri-a"), "amqps://one:one@hub:5671/%2fv");
        assert_eq!([text("uri"), text("username"), text("password")], [text("uri-b"), "user-b".into(), "two".into()]);
        assert!(!format!("{kept:?}").contains("two"), "no password is shown");
        let b = kept.passwords[&Generation::B].clone();
        let alias = Kept {
            aliases: [(Generation::A, b.uri.clone())].into(),
            passwords: [(Generation::B, b)].into(),
            ..kept.clone()
        };
        assert_eq!(Kept::read(&alias.secret(&place, |_| String::new())), alias);
        assert!(!format!("{alias:?}").contains("two"), "no password is shown");
        let none =
            Kept { current: None, turned: None, passwords: BTreeMap::new(), ..kept }.secret(&place, |_| String::new());
        assert_eq!(none.data, Some(BTreeMap::new()));
    }
}
