//! `transform.query` of an IngestPipeline: the language without windows, one message at a time.

use drover_crds::query::{QueryError, parse_transform};

use super::{
    decode::Decoder,
    engine::{self, OutputRow},
    error::DataError,
    step::Compiled,
    value::Value,
};

/// A compiled transform: made once for a pipeline and shared by its tasks; a message changes nothing in it.
///
/// ```
/// # use drover_worker::query::Transform;
/// let transform = Transform::new("SELECT UPPER(city) AS city FROM input WHERE temp > 20").unwrap();
/// let rows = transform.apply(br#"[{"city":"Kyoto","temp":25},{"city":"Nara","temp":15}]"#, 0).unwrap();
/// assert_eq!(serde_json::to_string(&rows).unwrap(), r#"[{"city":"KYOTO"}]"#);
/// ```
#[derive(Debug)]
pub struct Transform {
    decoder: Decoder,
    steps: Vec<Compiled>,
}

impl Transform {
    /// Parses and compiles a query.
    ///
    /// # Errors
    /// As [`parse_transform`]: line and column of what is wrong.
    pub fn new(query: &str) -> Result<Self, QueryError> {
        let plan = parse_transform(query)?;
        Ok(Self { decoder: Decoder::new(&plan, None), steps: plan.steps.iter().map(Compiled::new).collect() })
    }

    /// The rows of a message: none where WHERE keeps nothing, several where the body holds several events or an array is applied.
    /// All or none. The body is one JSON object, an array of objects, or objects line by line; a row is a [`Value::Record`], which
    /// serializes to a JSON object. `arrival`, in ticks of 100 ns since 1970 UTC, is what `System.Timestamp()` gives.
    ///
    /// # Errors
    /// The first event that is in error: it cannot be read, or something in its evaluation fails.
    pub fn apply(&self, body: &[u8], arrival: i64) -> Result<Vec<Value>, DataError> {
        let events = self.decoder.message(body)?;
        let mut rows: Vec<OutputRow> = Vec::with_capacity(events.len());
        for event in &events {
            engine::rows(&self.steps, event, arrival, &mut rows)?;
        }
        Ok(rows.into_iter().map(|o| o.row).collect())
    }
}
