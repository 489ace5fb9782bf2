//! Drover's worker as a library: what the binary runs, and what the operator shares with it (hub and store connections).

pub mod query;
