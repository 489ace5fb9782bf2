//! Tests against a real RabbitMQ, named by `DROVER_TEST_HUB_URI`, and PostgreSQL, named by `DROVER_TEST_STORE_URI`.

mod append;
mod bad_bodies;
mod connect;
mod drain;
mod faults;
mod hub_sink;
mod process;
mod restarts;
mod surroundings;
mod upsert;
