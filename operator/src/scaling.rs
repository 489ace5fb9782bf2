//! How many workers there should be: from samples and a policy to a number and its reason. Pure: no client, no clock, nothing of
//! pipelines; time is a field of the sample, and what is remembered is a value that is passed in and handed back.
//!
//! `n = (λ / targetUtilization + backlog / catchUpSeconds) / μ`: Little's law for what arrives, plus what it takes to be done with
//! the backlog in time. λ is what arrives per second, μ what one replica does per second of being busy.

mod arrivals;
mod decide;
mod flow;
mod policy;
mod rate;
mod sample;
mod sink_limit;

pub use decide::{Decision, Numbers, Reason, State, decide};
pub use policy::Policy;
pub use sample::{Batches, Depth, Sample, Worker};

/// A count as a number to calculate with; above 2^53 it is rounded, which no rate can tell.
#[expect(clippy::cast_precision_loss, reason = "rounded above 2^53, which no rate can tell")]
pub(crate) const fn real(count: u64) -> f64 {
    count as f64
}

/// The next whole number; what is no number is zero, what is too large the largest.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates, and NaN is zero")]
pub(crate) fn whole(number: f64) -> u32 {
    number.ceil() as u32
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers of tests")]
mod tests;
