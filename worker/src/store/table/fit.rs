//! Whether a sink fits a table. Pure: it judges a [`TableShape`].

use drover_crds::api::{PostgresMode, PostgresSink};

use super::{Column, Kind, TableProblem, TableReason, TableShape, quoted};

impl TableShape {
    /// Checks that rows of the sink can be written.
    ///
    /// # Errors
    /// The first thing that is in the way, with what to do about it.
    pub fn fits(&self, sink: &PostgresSink) -> Result<(), TableProblem> {
        if !self.ordinary {
            let why = format!("{} is not a table: name a table, partitioned or not", self.name);
            return Err(problem(TableReason::TableNotFound, why));
        }
        for name in named(sink) {
            self.usable(name)?;
        }
        let upsert = sink.mode == Some(PostgresMode::Upsert);
        if upsert {
            self.fits_upsert(sink)?;
        } else if let Some(id) = &sink.id_column {
            let column = self.usable(id)?;
            if matches!(column.kind, Kind::Bool | Kind::Time | Kind::Json | Kind::Array) {
                return Err(unfit(column, "an id is text"));
            }
            self.unique_on(&[column])?;
        }
        self.granted(sink, upsert)?;
        if self.read_only {
            let why = format!(
                "{} is read-only for {}: name the primary in the secret, or lift default_transaction_read_only",
                self.name, self.user
            );
            return Err(problem(TableReason::ReadOnly, why));
        }
        Ok(())
    }

    fn fits_upsert(&self, sink: &PostgresSink) -> Result<(), TableProblem> {
        let key = sink.key.iter().flatten().map(|name| self.usable(name)).collect::<Result<Vec<_>, _>>()?;
        let order = self.usable(sink.order_by.as_deref().unwrap_or_default())?;
        for column in key.iter().chain([&order]) {
            if !column.ordered {
                return Err(unfit(column, "values of that type have no order"));
            }
        }
        self.unique_on(&key)
    }

    fn usable(&self, name: &str) -> Result<&Column, TableProblem> {
        let Some(column) = self.column(name) else {
            let why = format!("{} has no column {name}: add it, or correct the sink", self.name);
            return Err(problem(TableReason::ColumnNotFound, why));
        };
        if column.generated { Err(unfit(column, "the database generates it")) } else { Ok(column) }
    }

    fn unique_on(&self, columns: &[&Column]) -> Result<(), TableProblem> {
        let fits =
            |index: &&Vec<String>| index.len() == columns.len() && columns.iter().all(|c| index.contains(&c.name));
        if self.unique.iter().any(|index| fits(&index)) {
            return Ok(());
        }
        let list = columns.iter().map(|c| quoted(&c.name)).collect::<Vec<_>>().join(", ");
        let why = format!(
            "{} has no unique index on exactly ({list}): run CREATE UNIQUE INDEX ON {} ({list});",
            self.name, self.name
        );
        Err(problem(TableReason::NoUniqueIndex, why))
    }

    /// INSERT always; SELECT where a conflict is decided and looked at; UPDATE where a row is replaced.
    fn granted(&self, sink: &PostgresSink, upsert: bool) -> Result<(), TableProblem> {
        let written = || self.columns.iter().filter(|c| !c.generated);
        let mut lacking = Vec::new();
        if !written().all(|c| c.insert) {
            lacking.push("INSERT");
        }
        if (upsert || sink.id_column.is_some()) && !written().all(|c| c.select) {
            lacking.push("SELECT");
        }
        if upsert && !written().all(|c| c.update) {
            lacking.push("UPDATE");
        }
        if lacking.is_empty() {
            return Ok(());
        }
        let rights = lacking.join(", ");
        let why = format!(
            "{} lacks {rights} on {}: run GRANT {rights} ON {} TO {};",
            self.user,
            self.name,
            self.name,
            quoted(&self.user)
        );
        Err(problem(TableReason::PrivilegeMissing, why))
    }
}

/// Every column that the sink names.
fn named(sink: &PostgresSink) -> impl Iterator<Item = &String> {
    sink.columns.keys().chain(&sink.id_column).chain(sink.key.iter().flatten()).chain(&sink.order_by)
}

fn problem(reason: TableReason, message: String) -> TableProblem {
    TableProblem { reason, message, source: None }
}

fn unfit(column: &Column, why: &str) -> TableProblem {
    let message = format!("column {} ({}) cannot be used: {why}", column.name, column.full_type);
    problem(TableReason::ColumnTypeUnfit, message)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use drover_crds::api::SecretRef;

    use super::*;

    fn column(name: &str, kind: Kind) -> Column {
        Column {
            name: name.into(),
            base_type: "text".into(),
            full_type: "text".into(),
            kind,
            not_null: false,
            default: false,
            generated: false,
            ordered: kind != Kind::Json,
            select: true,
            insert: true,
            update: true,
        }
    }

    fn shape() -> TableShape {
        TableShape {
            name: "public.telemetry".into(),
            user: "drover".into(),
            ordinary: true,
            read_only: false,
            columns: vec![
                column("message_id", Kind::Text),
                column("deviceid", Kind::Text),
                column("ts", Kind::Time),
                column("body", Kind::Json),
            ],
            unique: vec![vec!["message_id".into()], vec!["ts".into(), "deviceid".into()]],
        }
    }

    fn append() -> PostgresSink {
        PostgresSink {
            secret_ref: SecretRef { name: String::new(), keys: BTreeMap::new() },
            table: "telemetry".into(),
            mode: None,
            columns: BTreeMap::new(),
            id_column: Some("message_id".into()),
            key: None,
            order_by: None,
            unknown_fields: None,
        }
    }

    fn upsert(key: &[&str], order: &str) -> PostgresSink {
        PostgresSink {
            mode: Some(PostgresMode::Upsert),
            id_column: None,
            key: Some(key.iter().map(|k| (*k).to_owned()).collect()),
            order_by: Some(order.into()),
            ..append()
        }
    }

    fn refused(shape: &TableShape, sink: &PostgresSink) -> (TableReason, String) {
        let problem = shape.fits(sink).unwrap_err();
        (problem.reason, problem.message)
    }

    #[test]
    fn a_sink_fits_a_table_with_the_right_index() {
        shape().fits(&append()).unwrap();
        shape().fits(&upsert(&["deviceId", "ts"], "ts")).unwrap();
    }

    #[test]
    fn a_missing_index_comes_with_the_statement_that_makes_it() {
        let (reason, message) = refused(&shape(), &upsert(&["deviceId"], "ts"));
        assert_eq!(reason, TableReason::NoUniqueIndex);
        assert!(message.contains("CREATE UNIQUE INDEX ON public.telemetry (\"deviceid\");"), "{message}");
    }

    #[test]
    fn a_missing_right_comes_with_its_grant() {
        let mut shape = shape();
        shape.columns[1].insert = false;
        let (reason, message) = refused(&shape, &append());
        assert_eq!(reason, TableReason::PrivilegeMissing);
        assert!(message.contains("GRANT INSERT ON public.telemetry TO \"drover\";"), "{message}");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let mut view = shape();
        view.ordinary = false;
        assert_eq!(refused(&view, &append()).0, TableReason::TableNotFound);
        let mut sink = append();
        sink.columns.insert("pref".into(), "$.payloads.pref".into());
        assert_eq!(refused(&shape(), &sink).0, TableReason::ColumnNotFound);
        assert_eq!(refused(&shape(), &upsert(&["deviceId"], "body")).0, TableReason::ColumnTypeUnfit);
        let mut sink = append();
        sink.id_column = Some("ts".into());
        assert_eq!(refused(&shape(), &sink).0, TableReason::ColumnTypeUnfit);
        let mut standby = shape();
        standby.read_only = true;
        assert_eq!(refused(&standby, &append()).0, TableReason::ReadOnly);
    }
}
