//! What file mode reads of a WindowQuery manifest; other fields and other documents are let be.

use drover_crds::{
    api::{OrderingPolicy, OrderingSpec},
    query::TICKS_PER_SECOND,
};
use serde::{Deserialize, de::IgnoredAny};

use super::ordering::{Policy, Tolerance};

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is no YAML, or not of the expected shape.
    #[error("the manifest cannot be read: {0}")]
    Yaml(String),
    /// No document is a WindowQuery.
    #[error("the manifest holds no WindowQuery")]
    NoQuery,
    /// A tolerance is out of range.
    #[error("{0} is out of range")]
    Range(&'static str),
}

#[derive(Debug, Deserialize)]
struct Head {
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Document {
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    query: String,
    input: Option<InputSpec>,
    ordering: Option<OrderingSpec>,
}

#[derive(Debug, Deserialize)]
struct InputSpec {
    alias: Option<String>,
}

/// A WindowQuery as file mode needs it.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The query.
    pub query: String,
    /// The input's alias.
    pub alias: Option<String>,
    /// How time is ordered.
    pub tolerance: Tolerance,
}

impl Manifest {
    /// Finds the WindowQuery among the documents of a YAML text.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn parse(yaml: &str) -> Result<Self, ManifestError> {
        for document in documents(yaml) {
            let Ok(head) = serde_saphyr::from_str::<Head>(&document) else { continue };
            if head.kind.as_deref() == Some("WindowQuery") {
                let document: Document =
                    serde_saphyr::from_str(&document).map_err(|e| ManifestError::Yaml(e.to_string()))?;
                return document.spec.resolve();
            }
        }
        let unreadable = documents(yaml).iter().find_map(|d| serde_saphyr::from_str::<IgnoredAny>(d).err());
        Err(unreadable.map_or(ManifestError::NoQuery, |e| ManifestError::Yaml(e.to_string())))
    }
}

/// The documents, each after as many empty lines as stand before it, so that errors name the lines of the file.
fn documents(yaml: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for (number, line) in yaml.lines().enumerate() {
        if line.trim_end() == "---" || line.starts_with("--- ") {
            documents.push("\n".repeat(number + 1));
            continue;
        }
        if let Some(document) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    documents
}

impl Spec {
    fn resolve(self) -> Result<Manifest, ManifestError> {
        let tolerance = resolve_tolerance(&self.ordering.unwrap_or_default())?;
        Ok(Manifest { query: self.query, alias: self.input.and_then(|i| i.alias), tolerance })
    }
}

/// The tolerances of `spec.ordering`, with the defaults filled in.
///
/// # Errors
/// If one is out of range.
pub fn resolve_tolerance(spec: &OrderingSpec) -> Result<Tolerance, ManifestError> {
    let default = Tolerance::default();
    let seconds = |value: Option<i64>, name, default| match value {
        None => Ok(default),
        Some(s) => s.checked_mul(TICKS_PER_SECOND).filter(|t| *t >= 0).ok_or(ManifestError::Range(name)),
    };
    Ok(Tolerance {
        policy: match spec.policy.unwrap_or_default() {
            OrderingPolicy::Adjust => Policy::Adjust,
            OrderingPolicy::Drop => Policy::Drop,
            OrderingPolicy::DeadLetter => Policy::DeadLetter,
        },
        late: seconds(spec.late_arrival_seconds, "lateArrivalSeconds", default.late)?,
        out_of_order: seconds(spec.out_of_order_seconds, "outOfOrderSeconds", default.out_of_order)?,
    })
}
