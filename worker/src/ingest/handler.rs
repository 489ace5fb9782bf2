//! The user's container that transforms: one message at a time is sent to it, and what came of it is told. What to do about a
//! failure is the slot's to decide.

use std::{
    borrow::Cow,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use axum::{
    body::Bytes,
    http::{HeaderMap, Uri},
};
use lapin::message::Delivery;
use opentelemetry_sdk::trace::Span;

use super::{
    envelope::Sender,
    event::{self, Event},
    outage::Likeness,
    ramp::Ramp,
    reject::Rejection,
    spans::{self, Onward},
    web::{Answer, Meaning, Reply, Server},
};
use crate::{
    settings::{self, Role, Settings},
    tls,
};

/// A handler that answers nothing for so long, not even a look, answers nothing.
const LOOK: Duration = Duration::from_secs(2);

/// What the handler says of a message.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It goes on, with another body if there is one.
    Passed(Option<Bytes>),
    /// There is nothing to go on with.
    Dropped,
    /// It is refused for what it is.
    Refused { why: Rejection, likeness: Likeness },
    /// It is to be tried again, after so many seconds at least.
    Later { why: Rejection, likeness: Likeness, at_least: u32 },
    /// The handler is not there, and was sent nothing.
    Absent(String),
    /// The handler died of it, or hangs.
    Died { exit: String },
}

impl Verdict {
    /// Why it did not go well, if it did not.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Passed(_) | Self::Dropped => None,
            Self::Refused { why, .. } | Self::Later { why, .. } => Some(why.reason),
            Self::Absent(_) => Some("HandlerUnreachable"),
            Self::Died { .. } => Some("HandlerDied"),
        }
    }
}

/// The handler.
#[derive(Debug)]
pub(crate) struct Handler {
    server: Server,
    preview: bool,
    hangs: AtomicBool,
    unnamed: AtomicU64,
    ramp: Ramp,
}

impl Handler {
    pub(crate) fn new(handler: settings::Handler, settings: &Settings) -> Self {
        let uri = Uri::builder()
            .scheme("http")
            .authority(format!("127.0.0.1:{}", handler.port))
            .path_and_query("/")
            .build()
            .expect("an address with a port is a URI");
        // With one in flight each has a connection of its own: a death is then never that of the one before.
        let idle = if settings.role == Role::Suspects2 { 0 } else { usize::from(settings.concurrency) };
        Self {
            server: Server::new(uri, HeaderMap::new(), tls::nobody(), handler.timeout, idle),
            preview: settings.preview.is_some(),
            hangs: AtomicBool::new(false),
            unnamed: AtomicU64::new(0),
            ramp: Ramp::new(settings.concurrency.into()),
        }
    }

    /// It had a message for too long and has not answered since.
    pub(crate) fn hangs(&self) -> bool {
        self.hangs.load(Relaxed)
    }

    /// Sends it a message, when its turn comes; then `begin` makes the span of it.
    pub(crate) async fn call(
        &self,
        sender: &Sender,
        delivery: &Delivery,
        id: Option<&str>,
        begin: impl FnOnce() -> Option<Span>,
    ) -> Verdict {
        let turn = self.ramp.turn().await;
        let id = id.map_or_else(|| Cow::Owned(self.fresh_id(sender)), Cow::Borrowed);
        let mut span = begin();
        // A copy is of no trace.
        let trace = if self.preview { None } else { Onward::of(span.as_ref(), delivery) };
        let event = Event { sender, delivery, id: &id, preview: self.preview, trace };
        let headers = event.headers(event::content_type(delivery));
        let reply = self.server.post(&headers, Bytes::copy_from_slice(&delivery.data)).await;
        match &reply {
            Reply::Answered(_) => turn.went_well(),
            Reply::Broken(_) | Reply::Silent(_) => turn.went_wrong(),
            Reply::Unreachable(_) => {}
        }
        self.hangs.store(matches!(reply, Reply::Silent(_)), Relaxed);
        if let (Some(span), Reply::Answered(answer)) = (&mut span, &reply) {
            spans::answered(span, answer.status);
        }
        let verdict = verdict(reply);
        if let (Some(span), Some(reason)) = (&mut span, verdict.reason()) {
            spans::failed(span, reason);
        }
        verdict
    }

    /// Whether it answers at all.
    pub(crate) async fn is_there(&self) -> bool {
        let reply = self.server.look(LOOK).await;
        self.hangs.store(matches!(reply, Reply::Silent(_)), Relaxed);
        matches!(reply, Reply::Answered(_))
    }

    /// A message without an id is an event of its own at each try.
    fn fresh_id(&self, sender: &Sender) -> String {
        format!("{}-{}", sender.process, self.unnamed.fetch_add(1, Relaxed))
    }
}

fn verdict(reply: Reply) -> Verdict {
    let answer = match reply {
        Reply::Answered(answer) => answer,
        Reply::Unreachable(error) => return Verdict::Absent(error),
        Reply::Broken(error) => return Verdict::Died { exit: format!("the handler ended the connection: {error}") },
        Reply::Silent(time) => {
            return Verdict::Died { exit: format!("timeout: the handler did not answer within {} s", time.as_secs()) };
        }
    };
    let likeness = format!("handler {}", answer.status);
    match answer.meaning() {
        Meaning::Taken => taken(answer),
        Meaning::Refused => {
            Verdict::Refused { why: Rejection::transform("RefusedByHandler", answer.quote()), likeness }
        }
        Meaning::Later => Verdict::Later {
            why: Rejection::transform("HandlerFailed", answer.quote()),
            likeness,
            at_least: answer.retry_after,
        },
    }
}

fn taken(answer: Answer) -> Verdict {
    match answer.body {
        _ if answer.status == 204 => Verdict::Dropped,
        None => Verdict::Refused {
            why: Rejection::transform("HandlerAnswer", "the handler's answer is too large"),
            likeness: "handler answer".to_owned(),
        },
        Some(body) if answer.json && !body.is_empty() => Verdict::Passed(Some(body)),
        Some(_) => Verdict::Passed(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, json: bool, body: &'static str) -> Verdict {
        verdict(Reply::Answered(Answer {
            status,
            json,
            retry_after: 7,
            body: Some(Bytes::from_static(body.as_bytes())),
        }))
    }

    #[test]
    fn a_json_body_replaces_the_message_and_204_drops_it() {
        assert!(matches!(answered(200, true, "{}"), Verdict::Passed(Some(body)) if body == "{}"));
        assert!(matches!(answered(200, true, ""), Verdict::Passed(None)));
        assert!(matches!(answered(202, false, "OK"), Verdict::Passed(None)));
        assert!(matches!(answered(204, false, ""), Verdict::Dropped));
        let large = Reply::Answered(Answer { status: 200, ..Answer::default() });
        assert!(matches!(verdict(large), Verdict::Refused { .. }));
    }

    #[test]
    fn refusals_are_final_and_failures_pass() {
        let Verdict::Refused { why, likeness } = answered(422, false, "no pref") else { panic!() };
        assert_eq!(
            (&*why.error, why.reason, likeness.as_str()),
            ("HTTP 422: no pref", "RefusedByHandler", "handler 422")
        );
        assert!(matches!(answered(503, false, ""), Verdict::Later { at_least: 7, .. }));
    }

    #[test]
    fn who_ends_midway_or_says_nothing_died_of_it_and_who_is_not_there_did_not() {
        assert!(matches!(verdict(Reply::Unreachable("refused".to_owned())), Verdict::Absent(_)));
        assert!(matches!(verdict(Reply::Broken("reset".to_owned())), Verdict::Died { .. }));
        let Verdict::Died { exit } = verdict(Reply::Silent(Duration::from_secs(2))) else { panic!() };
        assert_eq!(exit, "timeout: the handler did not answer within 2 s");
    }
}
