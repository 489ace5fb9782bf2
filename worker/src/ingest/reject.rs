//! Why a message is dead-lettered.

use std::borrow::Cow;

/// Where a message failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Decode,
    Transform,
    Sink,
    /// The worker or its handler died.
    Worker,
}

impl Stage {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Transform => "transform",
            Self::Sink => "sink",
            Self::Worker => "worker",
        }
    }
}

/// Whose fault it is, as a dead letter tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// What the message is.
    Content,
    /// Something that passes did not pass, in all tries.
    Passing,
    /// The worker or its handler died with it each time.
    Killer,
}

impl Class {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Passing => "passing",
            Self::Killer => "killer",
        }
    }
}

/// A message that is dead-lettered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) stage: Stage,
    pub(crate) class: Class,
    /// In `CamelCase`, of a closed set: it labels a metric.
    pub(crate) reason: &'static str,
    /// What a person needs to know.
    pub(crate) error: Cow<'static, str>,
}

impl Rejection {
    pub(crate) fn decode(reason: &'static str, error: impl Into<Cow<'static, str>>) -> Self {
        Self { stage: Stage::Decode, class: Class::Content, reason, error: error.into() }
    }

    pub(crate) fn sink(reason: &'static str, error: impl Into<Cow<'static, str>>) -> Self {
        Self { stage: Stage::Sink, class: Class::Content, reason, error: error.into() }
    }

    pub(crate) fn transform(reason: &'static str, error: impl Into<Cow<'static, str>>) -> Self {
        Self { stage: Stage::Transform, class: Class::Content, reason, error: error.into() }
    }
}
