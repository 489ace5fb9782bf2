//! Whether a query may be: its spec is sound, and its results go where they can. Pure.

use drover_crds::{
    api::WindowQuery,
    resolved_query::{InvalidQuery, Query},
};
use drover_worker::store::StoreIdentity;

use crate::problem::Problem;

/// Reads the spec.
pub(crate) fn resolve(object: &WindowQuery) -> Result<Query, Problem> {
    Query::resolve(&object.spec).map_err(|e| {
        let reason = match e {
            InvalidQuery::Query(_) | InvalidQuery::Alias { .. } => "InvalidQuery",
            _ => "InvalidSpec",
        };
        Problem::new(reason, e.to_string())
    })
}

/// Results are written in the transaction that closes their window, so they are where the state is.
pub(super) fn together(store: &StoreIdentity, table: &str, sink: &StoreIdentity) -> Result<(), Problem> {
    let place = |i: &StoreIdentity| (i.host.clone(), i.port, i.database.clone());
    if place(store) == place(sink) {
        return Ok(());
    }
    let message = format!(
        "table {table}: its secret names {sink}, and the store is {store}: results are exactly once in the store's own database; \
         name the same, or send them to the hub"
    );
    Err(Problem::new("SinkElsewhere", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(host: &str, user: &str) -> StoreIdentity {
        StoreIdentity { host: host.to_owned(), port: 5432, database: "d".to_owned(), user: user.to_owned() }
    }

    #[test]
    fn results_are_in_the_database_of_the_state_whoever_writes_them() {
        assert_eq!(together(&identity("a", "x"), "t", &identity("a", "y")), Ok(()));
        let problem = together(&identity("a", "x"), "t", &identity("b", "x")).unwrap_err();
        assert_eq!(problem.reason, "SinkElsewhere");
        assert!(problem.message.contains("postgres://b:5432/d"), "{}", problem.message);
    }
}
