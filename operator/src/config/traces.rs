//! Where workers send spans.

use drover_worker::{
    settings as var,
    tls::{self, Material},
};
use url::Url;

/// Share of the messages that are traced where nobody says: one in a hundred.
const RATIO: f64 = 0.01;

/// Where workers send spans, and of which messages.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Traces {
    /// Base URL of a collector of OpenTelemetry to which workers send spans by OTLP over HTTP; none where it is empty
    #[arg(long, env = "DROVER_TRACES_ENDPOINT", value_parser = endpoint, hide_default_value = true, default_value = "")]
    pub traces_endpoint: String,
    /// Share of the messages that are traced, from 0 to 1, where the publisher has not decided
    #[arg(long, env = "DROVER_TRACES_RATIO", value_parser = ratio, default_value_t = RATIO)]
    pub traces_ratio: f64,
    /// Authorities of the collector, PEM, in place of the system's
    #[arg(long, env = "DROVER_TRACES_CA", value_parser = ca, hide_default_value = true, default_value = "")]
    pub traces_ca: String,
}

/// What workers need to know of a collector.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Collector {
    /// Their environment; empty where there is none.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// The port that they may connect to.
    pub(crate) port: Option<u16>,
}

impl Traces {
    pub(crate) fn collector(&self) -> Collector {
        let Ok(url) = Url::parse(&self.traces_endpoint) else { return Collector::default() };
        let mut environment = vec![
            (var::TRACES_ENDPOINT, self.traces_endpoint.clone()),
            (var::TRACES_RATIO, self.traces_ratio.to_string()),
        ];
        if !self.traces_ca.is_empty() {
            environment.push((var::TRACES_CA, self.traces_ca.clone()));
        }
        Collector { environment, port: url.port_or_known_default() }
    }
}

fn endpoint(text: &str) -> Result<String, String> {
    let fits = text.is_empty() || (drover_crds::resolved::is_web(text) && Url::parse(text).is_ok());
    let expected = "a URL of http:// or https://, such as http://collector.observability:4318";
    if fits { Ok(text.to_owned()) } else { Err(expected.to_owned()) }
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "a number from 0 to 1".to_owned())
}

fn ca(text: &str) -> Result<String, String> {
    let material = Material { ca: (!text.is_empty()).then(|| text.to_owned()), ..Material::default() };
    let fits = tls::client_config(&material).map(|_| text.to_owned());
    fits.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_told_of_a_collector_where_there_is_one() {
        assert_eq!(Traces::default().collector(), Collector::default());
        let traces = |endpoint: &str| Traces {
            traces_endpoint: endpoint.to_owned(),
            traces_ratio: 0.25,
            traces_ca: String::new(),
        };
        let collector = traces("http://collector.observability:4318").collector();
        let environment = vec![
            (var::TRACES_ENDPOINT, "http://collector.observability:4318".to_owned()),
            (var::TRACES_RATIO, "0.25".to_owned()),
        ];
        assert_eq!(collector, Collector { environment, port: Some(4318) });
        assert_eq!(traces("https://collector").collector().port, Some(443));
        let with_ca = Traces { traces_ca: "PEM".to_owned(), ..traces("https://collector/otlp") }.collector();
        assert_eq!(with_ca.environment.last(), Some(&(var::TRACES_CA, "PEM".to_owned())));
    }

    #[test]
    fn what_is_no_collector_is_refused() {
        for text in ["", "http://c:4318", "https://c/otlp"] {
            assert_eq!(endpoint(text).as_deref(), Ok(text));
        }
        for text in ["collector:4318", "grpc://c:4317", "http://user:password@c", "http://", "http://c:99999"] {
            assert!(endpoint(text).is_err(), "{text}");
        }
        assert_eq!(ca("").as_deref(), Ok(""));
        assert!(ca("PEM").unwrap_err().contains("certificate"));
        assert_eq!([ratio("0"), ratio("0.5"), ratio("1")], [Ok(0.0), Ok(0.5), Ok(1.0)]);
        for text in ["-0.1", "1.1", "NaN", "all", ""] {
            assert!(ratio(text).is_err(), "{text}");
        }
    }
}
