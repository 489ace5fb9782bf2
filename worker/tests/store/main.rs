//! Tests against a real PostgreSQL, named by `DROVER_TEST_STORE_URI`.

mod connect;
mod surroundings;
mod table;

#[path = "../services/variables.rs"]
mod variables;
