//! Types of the Drover API.

pub mod query;
