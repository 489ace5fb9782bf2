//! Types of the Drover API, what they resolve to, and the query language.
//!
//! Pure: no client, no clock. `api` holds what a person writes; [`resolved`] what it means once defaults are filled in.

#[expect(unreachable_pub, reason = "kube's derive of the schema copies each type into a private module")]
pub mod api;
pub mod query;
pub mod resolved;
pub mod resolved_query;

/// API group of both kinds.
pub const GROUP: &str = "drover.dev";
