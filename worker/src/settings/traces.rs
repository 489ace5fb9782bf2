//! Where spans go, and of which messages. The variables are those of OpenTelemetry.

use drover_crds::resolved;

use super::{Env, SettingsError, wrong};

/// Base URL of a collector that takes OTLP over HTTP; without it there are no traces.
pub const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Share of the messages that are traced, from 0 to 1, where the publisher has not decided.
pub const TRACES_RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";
/// Authorities of the collector, PEM.
pub const TRACES_CA: &str = "DROVER_TRACES_CA";

/// Where spans go, and of which messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// Base URL of the collector.
    pub endpoint: String,
    /// Share of the messages that are traced where the publisher has not decided.
    pub ratio: f64,
    /// Authorities that are trusted, in place of the system's.
    pub ca: Option<String>,
}

impl Traces {
    pub(super) fn from_env(env: &Env<'_>) -> Result<Option<Self>, SettingsError> {
        const RATIO: &str = "a number from 0 to 1";
        let Some(endpoint) = env.text(TRACES_ENDPOINT) else { return Ok(None) };
        if !resolved::is_web(&endpoint) {
            let expected = "a URL of a collector for OTLP over HTTP, such as http://collector:4318";
            return Err(wrong(TRACES_ENDPOINT, format!("{expected}, not {endpoint:?}")));
        }
        let ratio = env.number(TRACES_RATIO, RATIO, 1.0)?;
        if !(0.0..=1.0).contains(&ratio) {
            return Err(wrong(TRACES_RATIO, format!("{RATIO}, not {ratio}")));
        }
        Ok(Some(Self { endpoint, ratio, ca: env.text(TRACES_CA) }))
    }
}
