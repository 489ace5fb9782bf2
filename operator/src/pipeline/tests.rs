//! Decisions about pipelines against a model of the cluster: what a plan writes is there at the next look.

mod claims;
mod model;
mod properties;
mod redriving;
mod rendering;
mod rollouts;
mod sizing;
