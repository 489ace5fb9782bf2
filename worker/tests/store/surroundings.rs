//! The store of the tests, and tables of a test's own.

use drover_worker::store::{self, StoreAddress};
use tokio_postgres::Client;

pub(crate) fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: make test-hub sets it"))
}

pub(crate) fn file(name: &str) -> String {
    std::fs::read_to_string(env(name)).unwrap()
}

pub(crate) fn address(variable: &str) -> StoreAddress {
    StoreAddress::from_uri(&env(variable), Some(file("DROVER_TEST_CA"))).unwrap()
}

pub(crate) async fn owner() -> Client {
    store::connect(&address("DROVER_TEST_STORE_URI"), "drover-test").await.unwrap()
}

pub(crate) async fn worker() -> Client {
    store::connect(&address("DROVER_TEST_STORE_WORKER_URI"), "drover-test").await.unwrap()
}
