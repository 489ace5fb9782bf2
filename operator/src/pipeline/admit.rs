//! Whether a pipeline may be: its spec is sound. Pure.

use drover_crds::{
    api::IngestPipeline,
    resolved::{Invalid, Pipeline},
};

use crate::problem::Problem;

/// Reads the spec.
pub(crate) fn resolve(object: &IngestPipeline) -> Result<Pipeline, Problem> {
    Pipeline::resolve(&object.spec).map_err(|e| {
        let reason = match e {
            Invalid::Query(_) | Invalid::Alias(_) => "InvalidQuery",
            _ => "InvalidSpec",
        };
        Problem::new(reason, e.to_string())
    })
}
