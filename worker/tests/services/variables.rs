//! The environment that the tests are run in.

pub(crate) fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: make test-hub sets it"))
}

pub(crate) fn file(name: &str) -> String {
    std::fs::read_to_string(env(name)).unwrap()
}
