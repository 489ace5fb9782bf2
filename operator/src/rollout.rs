//! How a new revision takes over: one state, one total function that says what follows, and nothing of pods, hubs or clocks.
//!
//! The state is `status.rollout`: all that must survive the operator's death. It is written before it is acted on, so whoever comes
//! next finds what was meant, and does the rest.

mod enter;
mod facts;
mod ledger;
mod next;
mod requests;
mod sizes;
mod turns;
pub(crate) mod verdict;

pub(crate) use facts::{Command, Facts, Mirror, Side, Wanted};
pub(crate) use ledger::Ledgers;
pub(crate) use ledger::{Knowledge, Of, Reading};
pub(crate) use next::next;
pub(crate) use requests::{remember, request};
pub(crate) use sizes::{Live, Sizes, has_started, is_on_source, sizes};
pub(crate) use turns::{Turns, is_under_way};

#[cfg(test)]
mod tests;
