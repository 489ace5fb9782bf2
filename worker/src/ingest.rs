//! Messages of a queue through a transform to a sink: everything between a delivery and its acknowledgement.

pub mod status;
