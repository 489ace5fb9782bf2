//! `kubectl drover`: what a person asks of pipelines and queries by hand.
//!
//! It acts with the rights of who runs it. What it does to dead letters is in [`dead`], which needs no cluster.

mod action;
mod advice;
mod args;
mod cluster;
mod confirm;
pub mod dead;
mod dead_command;
mod lanes;
mod progress;
mod rollout;
mod run;
mod seen;
mod status;
mod table;
mod why;

pub use args::Cli;
pub use run::main;
