//! Tests against a real RabbitMQ, named by `DROVER_TEST_HUB_URI`, and PostgreSQL, named by `DROVER_TEST_STORE_URI`.

mod append;
mod bad_bodies;
mod connect;
mod drain;
mod envelope;
mod failover;
mod faults;
mod handler;
mod http_sink;
mod hub_sink;
mod killers;
mod node_loss;
mod poison_bodies;
mod preview;
mod priority;
mod process;
mod restarts;
mod server;
mod slow;
mod surroundings;
mod traces;
mod upsert;

#[path = "../services/reach.rs"]
mod reach;
#[path = "../services/variables.rs"]
mod variables;
