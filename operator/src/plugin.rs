//! `kubectl drover`: what a person asks of pipelines and queries by hand.
//!
//! It acts with the rights of who runs it. What it does to dead letters is in [`dead`], which needs no cluster.

mod action;
mod advice;
mod args;
mod cause;
mod cluster;
mod command;
mod confirm;
pub mod dead;
mod dead_command;
mod fault;
mod lanes;
mod progress;
mod reader;
mod reading;
mod rollout;
mod run;
mod seen;
mod status;
mod table;
mod told;
mod watch;
mod why;
mod worker;

pub use args::Cli;
pub use run::main;
