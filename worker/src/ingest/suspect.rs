//! Which way a delivery goes that may have killed a worker or its handler. Pure.
//!
//! What was in flight at a crash is handled apart from the stream, in steps with fewer in flight each. That a message was
//! delivered before is no crash yet: drains, restarts of the broker and lost connections do that too. So the way costs it
//! a hop, and only starts at the last step count, where it is alone. Each of these is written down before it is made: the
//! message is published again with it, and only that copy is started.

use drover_crds::resolved::{Retry, SUSPECT_STEPS, delay_key, suspects_key};
use lapin::message::Delivery;

use super::{
    envelope::{self, EXIT, Mark, Sender},
    identity,
    reject::{Class, Rejection, Stage},
};
use crate::settings::Role;

/// Messages in flight at the first step: 200 innocents of a lost worker are done in 15 goes, and a killer among them takes
/// no more than 13 along.
const FIRST_STEP: u16 = 14;
/// Messages in flight at the last step: whatever dies there died of this one.
const LAST_STEP: u16 = 1;

/// Most messages in flight in a role, whatever the spec permits.
pub(crate) fn most_in_flight(role: Role) -> u16 {
    match role {
        Role::Main => u16::MAX,
        Role::Suspects1 => FIRST_STEP,
        Role::Suspects2 => LAST_STEP,
    }
}

/// To another queue of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transfer {
    /// The key of that queue.
    pub(crate) key: String,
    pub(crate) mark: Mark,
}

/// What becomes of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is worked on here.
    Process,
    Transfer(Transfer),
    Dead(Rejection),
}

/// How suspects are told and how often they are tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suspicion {
    /// There are workers for suspects.
    pub(crate) active: bool,
    pub(crate) role: Role,
    pub(crate) retry: Retry,
}

impl Suspicion {
    /// What to do with a delivery before anything else. `exit` is how a worker or handler ended last, where that is known.
    pub(crate) fn way(&self, sender: &Sender, delivery: &Delivery, exit: Option<&str>) -> Way {
        let crashed = envelope::was_in_flight(delivery);
        if !self.active {
            return Way::Process;
        }
        if self.role != Role::Suspects2 {
            return if crashed { Way::Transfer(self.suspect(exit.map(str::to_owned))) } else { Way::Process };
        }
        match envelope::start(delivery) {
            // It was in this process's hands, which is alive: no crash.
            Some(process) if !crashed || process == sender.process => Way::Process,
            _ => self.start(sender, delivery, exit),
        }
    }

    /// To the next step: it was in flight when its handler died, or is thought to.
    pub(crate) fn suspect(&self, exit: Option<String>) -> Transfer {
        let step = self.role.step().map_or(1, |step| step + 1).min(SUSPECT_STEPS);
        Transfer { key: suspects_key(step), mark: Mark::Suspect { exit } }
    }

    fn start(&self, sender: &Sender, delivery: &Delivery, exit: Option<&str>) -> Way {
        let attempts = envelope::attempts(sender, delivery);
        if attempts >= i64::from(self.retry.attempts) {
            return Way::Dead(killer(delivery, attempts, exit));
        }
        let mark = Mark::Start { attempts: attempts + 1 };
        Way::Transfer(Transfer { key: suspects_key(SUSPECT_STEPS), mark })
    }

    /// Where a message goes that failed in passing: to wait, or to the dead letters after enough tries. `at_least` is how
    /// long it was asked to wait, in seconds.
    pub(crate) fn failed(&self, sender: &Sender, delivery: &Delivery, why: Rejection, at_least: u32) -> Way {
        let attempts = envelope::attempts_now(sender, delivery);
        match self.retry.wait_after(attempts, at_least) {
            None => Way::Dead(Rejection { class: Class::Passing, ..why }),
            Some(wait) => Way::Transfer(Transfer {
                key: delay_key(wait),
                mark: Mark::Failed { attempts, reason: why.reason, error: why.error.into_owned() },
            }),
        }
    }
}

/// All that is known of its end: how a container of the pipeline ended last, and what its handler's death left on the message. Where the
/// worker died the former comes first, for the latter is older.
fn killer(delivery: &Delivery, attempts: i64, last: Option<&str>) -> Rejection {
    let headers = delivery.properties.headers().as_ref();
    let kept = headers.and_then(|h| identity::header(h, EXIT));
    let (first, second) = if delivery.redelivered { (last, kept.as_deref()) } else { (kept.as_deref(), last) };
    let exit = match (first, second) {
        (Some(first), Some(second)) if first != second => format!("{first}; {second}"),
        (one, other) => one.or(other).unwrap_or("not known").to_owned(),
    };
    let error =
        format!("started {attempts} times alone, and its worker or handler died of it each time; last exit: {exit}");
    Rejection { stage: Stage::Worker, class: Class::Killer, reason: "KilledWorker", error: error.into() }
}

#[cfg(test)]
mod tests;
