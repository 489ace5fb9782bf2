//! The store of the tests, and tables of a test's own.

use drover_worker::store::{self, StoreAddress};
use tokio_postgres::Client;

pub(crate) use crate::variables::{env, file};

pub(crate) fn address(variable: &str) -> StoreAddress {
    StoreAddress::from_uri(&env(variable), Some(file("DROVER_TEST_CA"))).unwrap()
}

pub(crate) async fn owner() -> Client {
    store::connect(&address("DROVER_TEST_STORE_URI"), "drover-test").await.unwrap()
}

pub(crate) async fn worker() -> Client {
    store::connect(&address("DROVER_TEST_STORE_WORKER_URI"), "drover-test").await.unwrap()
}
