//! The harness of the tests on a real cluster, and of the benchmarks.
//!
//! Each test has a [`trial::Trial`]: a namespace, a virtual host of the hub and a database of its own, with users and passwords of
//! their own. The operator is the one thing that they share; it is installed once, by its chart ([`operator`]).
//! Nothing here knows how Drover works inside: it sees what a user sees.

pub mod bench;
pub mod cluster;
pub mod dump;
pub mod hub;
pub mod management;
pub mod metrics;
pub mod operator;
pub mod pipeline;
pub mod publisher;
pub mod query;
pub mod secrecy;
pub mod shell;
pub mod sigkill;
pub mod store;
pub mod surroundings;
pub mod trial;
pub mod until;
