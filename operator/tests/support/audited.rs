//! What the audit's lines tell of some work of a test.

use std::sync::{Arc, Mutex, Once};

use drover_operator::audit::TARGET;
use serde_json::Value;
use tracing::instrument::WithSubscriber as _;

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Tests beside each other listen one by one. A place in the code that nobody listened to when it was first come by is asked no more, so
/// somebody always does.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap());
}

/// What the audit's lines tell of some work, in order of the alphabet.
pub(crate) async fn audited(work: impl Future) -> Vec<String> {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    work.with_subscriber(subscriber).await;
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told = lines.filter(|line| line["target"] == TARGET).map(|line| {
        let field = |name: &str| line["fields"][name].as_str().unwrap_or_default().to_owned();
        ["verb", "resource", "resource_name", "outcome"].map(field).join(" ")
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    told
}
