//! The hub of the tests.

use drover_worker::{hub::HubAddress, tls::Material};

pub(crate) fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: make test-hub sets it"))
}

pub(crate) fn file(name: &str) -> String {
    std::fs::read_to_string(env(name)).unwrap()
}

pub(crate) fn hub(uri: &str) -> HubAddress {
    HubAddress { uri: uri.to_owned(), tls: Material { ca: Some(file("DROVER_TEST_CA")), ..Material::default() } }
}
