//! A revision: one immutable version of what the workers do and of their pods, named by a hash. Pure.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Length of a revision's name, in hexadecimal digits: 40 bits tell the few revisions of one pipeline apart.
const DIGITS: usize = 10;

/// The name of a revision. The template must not carry the name yet.
pub(crate) fn name(environment: &BTreeMap<String, String>, template: &PodTemplateSpec) -> String {
    let text = serde_json::to_vec(&(environment, template)).expect("maps with text as keys are valid JSON");
    digest(&text, DIGITS)
}

/// The first hexadecimal digits of a hash.
pub(crate) fn digest(bytes: &[u8], digits: usize) -> String {
    let nibbles = Sha256::digest(bytes).into_iter().flat_map(|b| [b >> 4, b & 15]);
    nibbles.filter_map(|n| char::from_digit(u32::from(n), 16)).take(digits).collect()
}
