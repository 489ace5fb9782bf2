//! The operator: nothing to run yet.
fn main() {}
