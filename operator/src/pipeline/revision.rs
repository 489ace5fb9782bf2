//! A revision: one immutable version of what the workers do and of their pods, named by a hash. Pure.

use drover_worker::settings as var;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Length of a revision's name, in hexadecimal digits: 40 bits tell the few revisions of one pipeline apart.
pub(crate) const DIGITS: usize = 10;

/// The name of a revision. The template must not carry the name yet.
pub(crate) fn name(environment: &BTreeMap<String, String>, template: &PodTemplateSpec) -> String {
    let text = serde_json::to_vec(&(environment, template)).expect("maps with text as keys are valid JSON");
    digest(&text, DIGITS)
}

/// Changes with what a preview can tell something of: image, query, handler, what is read and how, and where it goes. How many
/// messages are fetched at once and all else of the pods is not that.
pub(crate) fn work(environment: &BTreeMap<String, String>, template: &PodTemplateSpec) -> String {
    const READ: [&str; 8] = [
        var::TRANSFORM_QUERY,
        var::HANDLER_PORT,
        var::HANDLER_TIMEOUT_SECONDS_VAR,
        var::SOURCE_QUEUE,
        var::SOURCE_ADOPT,
        var::SOURCE_ID,
        var::SOURCE_MAX_BYTES,
        var::SINK,
    ];
    let read: Vec<_> = READ.iter().map(|name| environment.get(*name)).collect();
    let spec = template.spec.as_ref();
    let image = spec.and_then(|spec| spec.containers.first()?.image.as_ref());
    let handler = spec.and_then(|spec| spec.init_containers.as_ref());
    let text = serde_json::to_vec(&(read, image, handler)).expect("containers are valid JSON");
    digest(&text, DIGITS)
}

/// The first hexadecimal digits of a hash.
pub(crate) fn digest(bytes: &[u8], digits: usize) -> String {
    let nibbles = Sha256::digest(bytes).into_iter().flat_map(|b| [b >> 4, b & 15]);
    nibbles.filter_map(|n| char::from_digit(u32::from(n), 16)).take(digits).collect()
}
