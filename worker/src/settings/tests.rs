//! Claims about the environment.

use super::*;

const LEAST: &[(&str, &str)] =
    &[(HUB_URI, "amqps://u:sesame@hub/v"), (SOURCE_QUEUE, "telemetry"), (SINK, r#"{"discard":{}}"#)];

fn read(more: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let all: Vec<(&str, &str)> = more.iter().chain(LEAST).copied().collect();
    Settings::from_env(|name| all.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
}

#[test]
fn three_variables_are_enough() {
    let settings = read(&[]).unwrap();
    assert_eq!(settings.exchange, "telemetry.drover");
    assert_eq!(settings.source.prefetch, PREFETCH);
    assert_eq!(settings.source.id, MessageId::Property);
    assert_eq!(settings.concurrency, CONCURRENCY);
    assert_eq!(settings.grace, Duration::from_secs(30));
    assert!(settings.store.is_none() && settings.handler.is_none());
    assert_eq!((settings.role, settings.suspects, settings.retry), (Role::Main, false, Retry::default()));
}

#[test]
fn a_role_reads_a_queue_of_its_own() {
    let queue = |role| read(&[(ROLE, role)]).unwrap().role.queue("telemetry");
    assert_eq!(
        ["main", "suspects-1", "suspects-2"].map(queue),
        ["telemetry", "telemetry.suspects-1", "telemetry.suspects-2"]
    );
}

#[test]
fn a_preview_reads_copies_and_nothing_else() {
    let preview = read(&[(PREVIEW, "true"), (REVISION, "ab12"), (PREVIEW_PERCENT, "10")]).unwrap();
    assert_eq!((preview.queue(), preview.preview), ("telemetry.mirror-ab12".to_owned(), Some(10)));
    assert_eq!(read(&[(PREVIEW, "true")]).unwrap().preview, Some(100));
    assert_eq!(read(&[(PREVIEW, "false")]).unwrap().queue(), "telemetry");
    assert_eq!(read(&[(PREVIEW, "true"), (ROLE, "suspects-1")]).unwrap_err().variable, ROLE);
}

#[test]
fn a_handler_takes_the_place_of_a_query() {
    let handler = read(&[(HANDLER_PORT, "8080"), (HANDLER_TIMEOUT_SECONDS_VAR, "2")]).unwrap().handler;
    assert_eq!(handler, Some(Handler { port: 8080, timeout: Duration::from_secs(2) }));
    let both = [(HANDLER_PORT, "8080"), (TRANSFORM_QUERY, "SELECT a FROM input")];
    assert_eq!(read(&both).unwrap_err().variable, HANDLER_PORT);
}

#[test]
fn traces_go_to_the_collector_that_is_named() {
    let endpoint = (TRACES_ENDPOINT, "http://collector:4318");
    assert_eq!(read(&[(TRACES_RATIO, "0.5")]).unwrap().traces, None);
    assert_eq!(read(&[endpoint, (TRACES_OFF, "true")]).unwrap().traces, None);
    let traces = |more: &[(&str, &str)]| read(&[&[endpoint], more].concat()).map(|settings| settings.traces.unwrap());
    let all = Traces { endpoint: endpoint.1.to_owned(), ratio: 1.0, ca: None };
    assert_eq!(traces(&[]).unwrap(), all);
    let some = traces(&[(TRACES_RATIO, "0.25"), (TRACES_CA, "PEM")]).unwrap();
    assert_eq!(some, Traces { ratio: 0.25, ca: Some("PEM".to_owned()), ..all });
    for ratio in ["-0.1", "1.1", "NaN", "all"] {
        assert_eq!(traces(&[(TRACES_RATIO, ratio)]).unwrap_err().variable, TRACES_RATIO, "{ratio}");
    }
    let another = [(TRACES_OTHER_ENDPOINT, "https://otlp.example"), (TRACES_CA, "PEM")];
    let another = traces(&another).unwrap();
    assert_eq!((another.endpoint.as_str(), another.ca), ("https://otlp.example", None));
    for variable in [TRACES_ENDPOINT, TRACES_OTHER_ENDPOINT] {
        for endpoint in ["collector:4317", "https://user:sesame@collector"] {
            let error = read(&[(variable, endpoint)]).unwrap_err();
            assert!(error.variable == variable && !error.to_string().contains("sesame"), "{error}");
        }
    }
}

#[test]
fn a_missing_variable_is_named_with_what_it_should_be() {
    let error = Settings::from_env(|_| None).unwrap_err();
    assert_eq!(error.variable, SOURCE_QUEUE);
    let error = read(&[(HUB_URI, "")]).unwrap_err();
    assert_eq!(error.to_string(), "DROVER_HUB_URI: is missing: amqps://user:password@host:port/vhost");
}

#[test]
fn a_wrong_variable_is_named() {
    for (variable, value) in [
        (SOURCE_ADOPT, "yes"),
        (SOURCE_PREFETCH, "0"),
        (SOURCE_PREFETCH, "70000"),
        (SOURCE_ID, "id"),
        (SOURCE_MAX_BYTES, "-1"),
        (CONSUMER_PRIORITY, "high"),
        (PREVIEW, "1"),
        (PREVIEW_PERCENT, "0"),
        (PREVIEW_PERCENT, "101"),
        (PREVIEW_PERCENT, "10"),
        (WORKER_CONCURRENCY, "0"),
        (GRACE_SECONDS, "30s"),
        (MEMORY_LIMIT_BYTES, "1Gi"),
        (LISTEN, ":8080"),
        (HUB_URI, "http://hub"),
        (SINK, "postgres"),
        (SINK, "{}"),
        (ROLE, "suspects"),
        (SUSPECTS, "1"),
        (HANDLER_PORT, "http"),
        (RETRY_ATTEMPTS_VAR, "0"),
        (RETRY_INITIAL_SECONDS_VAR, "1s"),
        (SINK, r#"{"http":{"url":"ftp://host"}}"#),
        (SINK, r#"{"discard":{},"hub":{"exchange":"e"}}"#),
    ] {
        assert_eq!(read(&[(variable, value)]).unwrap_err().variable, variable, "{value}");
    }
}

#[test]
fn a_name_without_room_in_amqp_is_refused() {
    let (fits, long) = ("é".repeat(127), "é".repeat(128));
    let sink = format!(r#"{{"hub":{{"exchange":"{long}"}}}}"#);
    for (variable, value) in [(SOURCE_QUEUE, &long), (EXCHANGE, &long), (SINK, &sink)] {
        assert_eq!(read(&[(variable, value)]).unwrap_err().variable, variable);
    }
    assert_eq!(read(&[(SOURCE_QUEUE, &fits)]).unwrap_err().variable, EXCHANGE);
    assert_eq!(read(&[(SOURCE_QUEUE, &fits), (EXCHANGE, &fits)]).unwrap().exchange, fits);
}

#[test]
fn a_postgres_sink_needs_an_address_and_no_secret() {
    let sink = (SINK, r#"{"postgres":{"table":"t"}}"#);
    assert_eq!(read(&[sink]).unwrap_err().variable, SINK_URI);
    let settings = read(&[sink, (SINK_URI, "postgres://u@db/d")]).unwrap();
    assert_eq!(settings.store.unwrap().identity().host, "db");
    let parts = [sink, (SINK_HOST, "db"), (SINK_PORT, "5433"), (SINK_USERNAME, "u"), (SINK_DATABASE, "d")];
    assert_eq!(read(&parts).unwrap().store.unwrap().identity().to_string(), "postgres://db:5433/d");
    assert_eq!(read(&[sink, (SINK_HOST, "db")]).unwrap_err().variable, SINK_USERNAME);
}

#[test]
fn debug_shows_no_secret() {
    let settings = read(&[(SINK, r#"{"postgres":{"table":"t"}}"#), (SINK_URI, "postgres://u:sesame@db/d")]).unwrap();
    assert!(!format!("{settings:?}").contains("sesame"));
    assert!(!format!("{:?}", read(&[(SINK_TOKEN, "sesame")]).unwrap()).contains("sesame"));
}

#[test]
fn the_log_is_text_or_json() {
    assert_eq!(LogFormat::from_env(|_| None).unwrap(), LogFormat::Text);
    assert_eq!(LogFormat::from_env(|_| Some("json".into())).unwrap(), LogFormat::Json);
    assert_eq!(LogFormat::from_env(|_| Some("xml".into())).unwrap_err().variable, LOG_FORMAT);
}
