//! End-to-end tests: nothing to run yet.
fn main() {}
