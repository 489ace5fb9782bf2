//! From what is known of a role's two users to the next step. Pure: no client, no clock, nothing random.
//!
//! A password is in the secret before the hub knows it, and pods hear of a user that the hub has been seen to have: wherever this is
//! interrupted, it goes on from what is found. A user goes when nothing can be using it any more.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::role::Generation;

/// Who has read a password just now may still be on the way to the hub.
const OVERLAP: SignedDuration = SignedDuration::from_mins(1);
/// Devices that are switched off, and gateways that somebody has to tell, have so long.
const OVERLAP_OUTSIDE: SignedDuration = SignedDuration::from_hours(24);

/// A user that goes on being used for so long after that is told of.
const LATE: SignedDuration = SignedDuration::from_hours(1);

/// What is known of one of the two users.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Side {
    /// When its password was made; `None` where the secret has none.
    pub minted: Option<Timestamp>,
    /// What the hub has; `None` where it has no such user.
    pub user: Option<User>,
    /// A pod, or what makes pods, is told of it, or may have been told of it in place of the other.
    pub used: bool,
    /// Its open connections; `None` where that was not asked.
    pub connections: Option<usize>,
}

impl Side {
    /// Its open connections, as many as there may be where that was not asked.
    fn open(&self) -> usize {
        self.connections.unwrap_or(usize::MAX)
    }
}

/// A user that the hub has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// Its password is the secret's, and it has no rights at the management API.
    pub fits: bool,
    /// It may do what its role needs, and nothing else.
    pub granted: bool,
}

/// What is known of a role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// The one that new pods are told of.
    pub current: Option<Generation>,
    /// The addresses in the secret are of the hub as the object names it.
    pub addressed: bool,
    /// When pods began to be told of it; where nobody wrote that down, when its password was made.
    pub turned: Option<Timestamp>,
    /// The first user.
    pub a: Side,
    /// The other one.
    pub b: Side,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A new password into the secret.
    Write(Generation),
    /// The secret's addresses anew, with the passwords that it has.
    Address,
    /// The user at the hub, with the secret's password.
    Make(Generation),
    /// Its rights.
    Grant(Generation),
    /// From now on new pods are told of this one.
    Turn(Generation),
    /// The user goes from the hub.
    Delete(Generation),
    /// Its password goes from the secret.
    Drop(Generation),
}

/// How long users of a role live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lives {
    /// A user is followed by another after so long.
    pub rotate: SignedDuration,
    /// The one before stays at least so long.
    pub overlap: SignedDuration,
    /// Who has the passwords is not told anew by the operator.
    pub outside: bool,
}

impl Lives {
    /// Of a role, where users are followed after so many days.
    #[must_use]
    pub fn new(days: u32, outside: bool) -> Self {
        let rotate = SignedDuration::from_hours(24 * i64::from(days));
        Self { rotate, overlap: if outside { OVERLAP_OUTSIDE } else { OVERLAP }, outside }
    }
}

impl Seen {
    /// Of one of the two.
    #[must_use]
    pub fn side(&self, generation: Generation) -> &Side {
        match generation {
            Generation::A => &self.a,
            Generation::B => &self.b,
        }
    }

    /// The one that new pods are told of, where the secret has its password.
    #[must_use]
    pub fn current(&self) -> Option<Generation> {
        self.current.filter(|current| self.side(*current).minted.is_some())
    }

    /// What is to be done next; `None` where nothing is, or where something has to be waited for.
    #[must_use]
    pub fn next(&self, lives: Lives, now: Timestamp) -> Option<Step> {
        let written = [self.a, self.b].iter().any(|side| side.minted.is_some());
        if written && !self.addressed {
            return Some(Step::Address);
        }
        let Some(current) = self.current() else { return self.begin(lives) };
        self.mend(current).or_else(|| self.beside(current, lives, now))
    }

    /// What the hub lacks of a user whose password the secret has.
    fn mend(&self, generation: Generation) -> Option<Step> {
        match self.side(generation).user {
            Some(User { fits: true, granted: true }) => None,
            Some(User { fits: true, granted: false }) => Some(Step::Grant(generation)),
            Some(User { fits: false, .. }) | None => Some(Step::Make(generation)),
        }
    }

    /// Nobody is told of a user yet, or the secret was deleted: pods may have its passwords all the same.
    fn begin(&self, lives: Lives) -> Option<Step> {
        if let Some(begun) =
            Generation::BOTH.into_iter().filter(|g| self.side(*g).minted.is_some()).max_by_key(|g| self.side(*g).minted)
        {
            return Some(self.mend(begun).unwrap_or(Step::Turn(begun)));
        }
        let idle = |g: &Generation| self.side(*g).user.is_none() || self.side(*g).connections == Some(0);
        // The one that the fewest have: none at the hub, then none that pods are told of.
        let free = Generation::BOTH.into_iter().filter(idle);
        let free = free.min_by_key(|g| (self.side(*g).user.is_some(), self.side(*g).used));
        // Open connections outlive their password, and pods of ours are followed by others that are told of the new one.
        let fewest = || Generation::BOTH.into_iter().min_by_key(|g| (self.side(*g).used, self.side(*g).open()));
        let chosen = free.or_else(|| if lives.outside { None } else { fewest() }).map(Step::Write);
        chosen.or_else(|| Generation::BOTH.into_iter().find_map(|g| self.grant(g)))
    }

    /// Its rights are others than they should be: no password is needed to mend that.
    fn grant(&self, generation: Generation) -> Option<Step> {
        self.side(generation).user.filter(|user| !user.granted).map(|_| Step::Grant(generation))
    }

    /// What becomes of the one beside the current: it is to follow, or to go, or there is none and the time for it has come.
    fn beside(&self, current: Generation, lives: Lives, now: Timestamp) -> Option<Step> {
        let (own, other) = (self.side(current), self.side(current.other()));
        let since = own.minted?;
        let follows = other.minted.is_some_and(|minted| minted > since);
        if follows {
            return Some(self.mend(current.other()).unwrap_or(Step::Turn(current.other())));
        }
        if other.minted.is_none() && other.user.is_none() {
            return (now.duration_since(since) >= lives.rotate).then_some(Step::Write(current.other()));
        }
        let settled = now.duration_since(self.turned.unwrap_or(since)) >= lives.overlap;
        let idle = other.user.is_none() || other.connections == Some(0);
        if settled && idle && !other.used {
            let gone = other.user.is_none();
            return Some(if gone { Step::Drop(current.other()) } else { Step::Delete(current.other()) });
        }
        // Who still has its password goes on with it. Without it, there is nothing that it could be mended with.
        if other.minted.is_some() { self.mend(current.other()) } else { self.grant(current.other()) }
    }

    /// The user that another has followed for long and that something is still told of, or connected as.
    #[must_use]
    pub fn held_up(&self, lives: Lives, now: Timestamp) -> Option<Generation> {
        let current = self.current()?;
        let since = self.turned.or(self.side(current).minted)?;
        let late = now.duration_since(since) >= lives.overlap.saturating_add(LATE);
        let other = self.side(current.other());
        (late && self.next(lives, now).is_none() && other.user.is_some()).then(|| current.other())
    }
}

#[cfg(test)]
mod tests;
