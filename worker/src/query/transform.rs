//! `transform.query` of an IngestPipeline: the language without windows, one message at a time.

use drover_crds::query::{Plan, QueryError, parse_transform};

use super::{
    decode::{Decoder, Event},
    engine::Engine,
    error::DataError,
    value::Value,
};

/// A compiled transform. Its time, System.Timestamp, is the arrival that the caller gives.
#[derive(Debug)]
pub struct Transform {
    decoder: Decoder,
    plan: Plan,
}

impl Transform {
    /// Parses and compiles a query.
    ///
    /// # Errors
    /// As [`parse_transform`].
    pub fn new(query: &str) -> Result<Self, QueryError> {
        let plan = parse_transform(query)?;
        Ok(Self { decoder: Decoder::new(&plan, None), plan })
    }

    /// The rows of a message, which arrived at `arrival` (ticks since 1970). All or none.
    ///
    /// # Errors
    /// The first event that is in error.
    pub fn apply(&self, body: &[u8], arrival: i64) -> Result<Vec<Value>, DataError> {
        let events: Vec<Event> = self.decoder.message(body)?;
        let mut engine = Engine::new(&self.plan);
        let mut out = Vec::new();
        for event in &events {
            engine.push(event, arrival, 0, &mut out)?;
        }
        Ok(out.into_iter().map(|o| o.row).collect())
    }
}
