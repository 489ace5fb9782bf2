//! Whom users of the hub are made for, and how they and their secrets are called. Pure.

use crate::pipeline::revision::digest;

/// Digits of an object's UID in the names of its users: another cluster, or the next object of this name, has others.
const DIGITS: usize = 8;

/// Whom a user is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Workers of a pipeline that read its source, and those for suspects.
    Worker,
    /// Workers that try a revision on copies.
    Mirror,
    /// Whoever publishes to a pipeline: the devices' side.
    Publisher,
    /// Workers of a query.
    Query,
    /// Whoever publishes to a query.
    QueryPublisher,
}

impl Role {
    /// Those of a pipeline.
    pub(crate) const OF_PIPELINE: [Self; 3] = [Self::Worker, Self::Mirror, Self::Publisher];
    /// Those of a query.
    pub(crate) const OF_QUERY: [Self; 2] = [Self::Query, Self::QueryPublisher];

    /// All roles of the kind of object that it is of.
    pub(super) fn siblings(self) -> &'static [Self] {
        if Self::OF_QUERY.contains(&self) { &Self::OF_QUERY } else { &Self::OF_PIPELINE }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Mirror => "mirror",
            Self::Publisher => "publisher",
            Self::Query => "query",
            Self::QueryPublisher => "query-publisher",
        }
    }

    /// True where it is not for pods of ours: nobody here knows when the last has the new password.
    pub(super) fn is_outside(self) -> bool {
        matches!(self, Self::Publisher | Self::QueryPublisher)
    }

    /// Name of the secret with its passwords.
    #[must_use]
    pub fn secret(self, object: &str) -> String {
        format!("{object}-hub-{}", self.as_str())
    }
}

/// One of the two users of a role that follow each other in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// The first.
    A,
    /// The one after it.
    B,
}

impl Generation {
    pub(super) const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one whose turn it is not.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// As it is in names.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|generation| generation.as_str() == text)
    }

    /// Key of the secret with the address that has its user in it.
    #[must_use]
    pub fn key(self) -> String {
        format!("uri-{}", self.as_str())
    }
}

/// Name of a user. No two objects have the same: a namespace has no dot in it, and the UID tells one object from the next.
#[must_use]
pub fn user(namespace: &str, object: &str, uid: &str, role: Role, generation: Generation) -> String {
    let uid = digest(uid.as_bytes(), DIGITS);
    format!("drover.{namespace}.{object}.{uid}.{}-{}", role.as_str(), generation.as_str())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_roles_generations_or_objects_share_a_user_or_a_secret() {
        let roles = Role::OF_PIPELINE.into_iter().chain(Role::OF_QUERY);
        let objects = [("a", "b-c", "1"), ("a-b", "c", "1"), ("a", "b.c", "1"), ("a", "b-c", "2")];
        let all: Vec<_> = roles
            .flat_map(|role| {
                let both = Generation::BOTH.into_iter();
                both.flat_map(move |g| objects.map(|(namespace, name, uid)| user(namespace, name, uid, role, g)))
            })
            .collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
        assert!(all.iter().all(|name| !name.contains([':', '/'])), "MQTT would read a virtual host from it");
        let secrets = |roles: &[Role]| roles.iter().map(|r| r.secret("x")).collect::<BTreeSet<_>>();
        assert!(
            secrets(&Role::OF_PIPELINE).is_disjoint(&secrets(&Role::OF_QUERY)),
            "both kinds may have the same name"
        );
    }
}
