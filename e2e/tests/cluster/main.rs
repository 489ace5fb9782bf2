//! What only shows on a real cluster. `make test-cluster` runs it.

mod adoption;
mod api;
mod bad_bodies;
mod bad_manifests;
mod chain;
mod dead;
mod deletion;
mod drift;
mod faults;
mod flow;
mod ha;
mod idempotence;
mod install;
mod killers;
mod ledger;
mod revisions;
mod rollout;
mod scale;
mod scaling;
mod security;
mod setup_hub;
mod setup_store;
mod setup_tls;
mod setup_topology;
mod sink_faults;
mod windows;
