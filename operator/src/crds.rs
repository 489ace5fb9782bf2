//! The custom resource definitions as YAML.

use drover_crds::api::{IngestPipeline, WindowQuery};
use kube::CustomResourceExt as _;

/// Both definitions, one YAML document each.
///
/// # Errors
/// If one cannot be written as YAML.
pub fn yaml() -> anyhow::Result<String> {
    let mut text = String::new();
    for crd in [IngestPipeline::crd(), WindowQuery::crd()] {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&crd)?);
    }
    Ok(text)
}
