//! Claims and properties of decisions.

mod claims;
mod properties;
