use std::{io, sync::Once};

use drover_crds::api::{IngestPipeline, IngestPipelineSpec};
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// Keeps what is logged.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        locked(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The lines that something writes, as the operator logs JSON.
pub(crate) fn lines(work: impl FnOnce()) -> Vec<Value> {
    // A place in the code that nobody listened to when it was first come by is asked no more, so somebody always does.
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(tracing_subscriber::registry()).unwrap());
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().json().with_writer(log.clone()).finish();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = locked(&log.0).clone();
    String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn object() -> IngestPipeline {
    let spec: IngestPipelineSpec = serde_json::from_value(json!({
        "hub": {"secretRef": {"name": "hub"}}, "source": {"queue": "q"}, "sink": {"discard": {}},
    }))
    .unwrap();
    let mut object = IngestPipeline::new("telemetry", spec);
    object.metadata.namespace = Some("plant".into());
    object.metadata.uid = Some("u-1".into());
    object
}

#[test]
fn a_line_says_who_did_what_to_what_for_whom_and_how_it_ended() {
    let cause = Cause::of(&object(), "a person asked").asked(Some("r-1"));
    let effect = Effect { revision: Some("ab12"), messages: Some(3), ..Effect::new(Verb::Redrive, "queue", "q.dead") };
    let written = lines(|| cause.tell(&effect, Outcome::Failed("RedriveFailed")));
    let [line] = written.as_slice() else { panic!("one line: {written:?}") };
    assert_eq!(line["target"], "drover::audit");
    assert_eq!(
        line["fields"],
        json!({
            "message": "audit", "kind": "IngestPipeline", "namespace": "plant", "name": "telemetry", "uid": "u-1",
            "revision": "ab12", "request": "r-1", "verb": "redrive", "resource": "queue", "resource_name": "q.dead",
            "messages": 3, "why": "a person asked", "outcome": "failed", "reason": "RedriveFailed",
        })
    );
}

#[test]
fn what_is_not_known_is_left_out() {
    let written = lines(|| Cause::of(&object(), "it was missing").done(Verb::Create, "queue", "q"));
    let fields = written[0]["fields"].as_object().unwrap();
    assert_eq!(fields["outcome"], "done");
    assert!(
        ["revision", "request", "messages", "reason"].iter().all(|field| !fields.contains_key(*field)),
        "{fields:?}"
    );
}

#[test]
fn nobody_writes_a_line_of_their_own_by_the_id_of_a_request() {
    let id = format!("x\n{{\"target\":\"drover::audit\"}}{}", "y".repeat(10_000));
    let written = lines(|| Cause::of(&object(), "").asked(Some(&id)).done(Verb::Answer, "IngestPipeline", "telemetry"));
    assert_eq!(written.len(), 1);
    assert_eq!(written[0]["fields"]["request"].as_str().map(|id| id.chars().count()), Some(LONGEST_REQUEST));
}

#[test]
fn a_refusal_is_named_and_says_nothing_of_what_was_written() {
    let status = |reason: &str| kube::core::Status::failure("env[0].value: Invalid value: \"hunter2\"", reason);
    assert_eq!(refusal(&kube::Error::Api(status("Invalid").boxed())), "Invalid");
    assert_eq!(refusal(&kube::Error::Api(status("").boxed())), "Refused");
    assert_eq!(refusal(&kube::Error::LinesCodecMaxLineLengthExceeded), "Unreachable");
}

#[test]
fn what_is_done_is_kept_for_one_event_and_what_has_failed_is_not() {
    let journal = Arc::new(Journal::default());
    let cause = Cause::of(&object(), "it was missing").noted(&journal);
    cause.done(Verb::Create, "queue", "q");
    cause.tell(&Effect::new(Verb::Create, "queue", "p"), Outcome::Failed("PermissionMissing"));
    assert_eq!(journal.take("u-1"), ["made queue q"]);
    let effect = Effect { revision: Some("ab12"), ..Effect::new(Verb::Redrive, "queue", "q.dead") };
    cause.clone().asked(Some("friday")).tell(&effect, Outcome::Done);
    assert_eq!(journal.take("u-1"), ["redrove queue q.dead of revision ab12 as asked by friday"]);
    assert!(journal.take("u-1").is_empty());
}

#[test]
fn the_same_written_twice_is_one_effect() {
    let journal = Journal::default();
    let is_news = |version: &str| journal.is_news("u-1", "Deployment a".into(), Some(version.into()));
    assert!(is_news("1") && !is_news("1") && is_news("2"));
    journal.forget("u-1");
    assert!(is_news("2"));
}
