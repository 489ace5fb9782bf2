//! Why a message is dead-lettered for what it is.

use std::borrow::Cow;

/// Where a message failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    Decode,
    Transform,
    Sink,
}

impl Stage {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Transform => "transform",
            Self::Sink => "sink",
        }
    }
}

/// A message that can never be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) stage: Stage,
    /// In `CamelCase`, of a closed set: it labels a metric.
    pub(crate) reason: &'static str,
    /// What a person needs to know.
    pub(crate) error: Cow<'static, str>,
}

impl Rejection {
    pub(crate) fn decode(reason: &'static str, error: impl Into<Cow<'static, str>>) -> Self {
        Self { stage: Stage::Decode, reason, error: error.into() }
    }

    pub(crate) fn sink(reason: &'static str, error: impl Into<Cow<'static, str>>) -> Self {
        Self { stage: Stage::Sink, reason, error: error.into() }
    }
}
