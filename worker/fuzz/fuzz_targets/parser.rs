//! Any text is a plan or an error with a place, for window queries and for transforms; a plan can be explained.
#![no_main]

use drover_crds::query::{parse, parse_transform};
use drover_worker::query::explain;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for result in [parse(text), parse_transform(text)] {
        match result {
            Ok(plan) => assert!(!explain(&plan).is_empty()),
            Err(error) => assert!(error.line >= 1 && error.column >= 1 && !error.message.is_empty()),
        }
    }
});
