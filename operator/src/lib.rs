//! Drover's operator as a library: reconciles `IngestPipeline` and `WindowQuery`.
//!
//! observe → decide → act: what is read is a value, what follows from it is a pure function of that value, and what is written
//! leaves nothing to choose.

pub mod audit;
mod claims;
pub mod condition;
pub mod config;
pub mod context;
pub mod crds;
pub mod drift;
mod ending;
mod finding;
mod gone;
mod hosts;
pub mod http;
pub mod hub;
mod lag_history;
mod lease;
pub mod metrics;
pub mod minted;
pub mod names;
pub mod pipeline;
pub mod plugin;
mod probe;
pub mod problem;
mod reconcile;
pub mod redrive;
mod rollout;
pub mod run;
pub mod scales;
pub mod scaling;
pub mod secrets;
pub mod store;
mod template;
pub mod windows;
pub mod workers;
