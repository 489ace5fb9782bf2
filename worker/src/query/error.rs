//! What can be wrong with one event or one result row. It costs that event or row and nothing else.

/// An error of the data, never of the worker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// The body is not JSON, or not an object, an array of objects or lines of objects.
    #[error("the event cannot be read: {0}")]
    Decode(String),
    /// CAST of a value that has no counterpart in the type.
    #[error("{value} cannot be cast to {to}")]
    Cast {
        /// The value, shortened.
        value: String,
        /// The type.
        to: String,
    },
    /// A result does not fit its type.
    #[error("overflow in {0}")]
    Overflow(String),
    /// Division or remainder by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// A date that does not exist or is out of the years 1 to 9999.
    #[error("{0} is no valid date")]
    Date(String),
    /// A value of the wrong type.
    #[error("{operation} does not take {found}")]
    Type {
        /// What was computed.
        operation: String,
        /// The type found.
        found: &'static str,
    },
    /// An argument out of its range.
    #[error("{0}")]
    Argument(String),
    /// The event has no time: TIMESTAMP BY is NULL.
    #[error("TIMESTAMP BY is NULL")]
    NoTime,
}
