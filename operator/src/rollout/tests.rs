//! Tests of rollouts, without pods, hubs or clocks.

mod claims;
mod facts;
mod properties;
