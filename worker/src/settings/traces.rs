//! Where spans go, and of which messages. Where OpenTelemetry has a variable it is read.

use drover_crds::resolved;

use super::{Env, SettingsError, wrong};

/// Base URL of a collector that takes OTLP over HTTP; without one there are no traces.
pub const TRACES_ENDPOINT: &str = "DROVER_TRACES_ENDPOINT";
/// Authorities of that collector, PEM.
pub const TRACES_CA: &str = "DROVER_TRACES_CA";
/// Base URL of another collector, which is used in place of it; the system's authorities are trusted.
pub const TRACES_OTHER_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// `true`: there are no traces, whatever else is set.
pub const TRACES_OFF: &str = "OTEL_SDK_DISABLED";
/// Share of the messages that are traced, from 0 to 1, where the publisher has not decided.
pub const TRACES_RATIO: &str = "OTEL_TRACES_SAMPLER_ARG";

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
        if env.text(TRACES_OFF).as_deref() == Some("true") {
            return Ok(None);
        }
        let other = env.text(TRACES_OTHER_ENDPOINT).map(|endpoint| (TRACES_OTHER_ENDPOINT, endpoint, None));
        let named = || env.text(TRACES_ENDPOINT).map(|endpoint| (TRACES_ENDPOINT, endpoint, env.text(TRACES_CA)));
        let Some((variable, endpoint, ca)) = other.or_else(named) else { return Ok(None) };
        if !resolved::is_web(&endpoint) {
            // Not told: it may have a password in it.
            let expected = "a URL of a collector for OTLP over HTTP, without a user, such as http://collector:4318";
            return Err(wrong(variable, expected.to_owned()));
        }
        let ratio = env.number(TRACES_RATIO, RATIO, 1.0)?;
        if !(0.0..=1.0).contains(&ratio) {
            return Err(wrong(TRACES_RATIO, format!("{RATIO}, not {ratio}")));
        }
        Ok(Some(Self { endpoint, ratio, ca }))
    }
}
