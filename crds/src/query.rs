//! The query language: parser and typed plan.
