//! What keeps an object from working, as a person reads it: data, not an error.

/// A reason in CamelCase and one line that says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Reason of the condition.
    pub reason: String,
    /// What is the matter, and what to do.
    pub message: String,
}

impl Problem {
    /// A problem.
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

/// What is known of something outside the cluster.
#[derive(Debug, Clone, PartialEq)]
pub enum External<T> {
    /// It was not looked at: something before it is missing, or it is not needed.
    Unseen,
    /// It does not do, for a reason.
    Problem(Problem),
    /// It does.
    Fine(T),
}

impl<T> External<T> {
    /// True if it was looked at and does.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        matches!(self, Self::Fine(_))
    }
}

impl<T> From<Result<T, Problem>> for External<T> {
    fn from(result: Result<T, Problem>) -> Self {
        match result {
            Ok(value) => Self::Fine(value),
            Err(problem) => Self::Problem(problem),
        }
    }
}
