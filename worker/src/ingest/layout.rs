//! Which field of a message goes to which column, and the rows that come of it. Pure.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use drover_crds::{
    api::{PostgresMode, PostgresSink, UnknownFields},
    resolved,
};

use super::{
    cell::{self, Cell},
    decode::Fields,
    reject::Rejection,
};
use crate::store::table::{Column, TableShape};

/// A sink's view of its table.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The table that rows go to, quoted.
    pub(crate) table: String,
    /// The sink's table, quoted: another one where rows go to a copy.
    pub(crate) original: String,
    /// The columns that can be written.
    pub(crate) columns: Vec<Column>,
    pub(crate) mode: Mode,
    /// Columns by field name, for columns without a path of their own.
    by_name: HashMap<String, usize>,
    by_folded_name: HashMap<String, usize>,
    by_path: Vec<(usize, Vec<String>)>,
    /// Fields that some path begins with.
    heads: HashSet<String>,
    refuse_unknown: bool,
}

/// How rows are written; columns by their index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Append { id: Option<usize> },
    Upsert { key: Vec<usize>, order: usize },
}

/// A row on its way to a table.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    /// The message that it comes from, by its place in the batch.
    pub(crate) message: usize,
    pub(crate) cells: Vec<Cell<'a>>,
}

impl Layout {
    /// The same for a table like it.
    pub(crate) fn into_copy(self, table: String) -> Self {
        Self { table, ..self }
    }

    /// Rows go to a table like the sink's.
    pub(crate) fn is_copy(&self) -> bool {
        self.table != self.original
    }

    /// For a table that fits the sink.
    pub(crate) fn new(shape: &TableShape, sink: &PostgresSink) -> Self {
        let columns: Vec<Column> = shape.columns.iter().filter(|c| !c.generated).cloned().collect();
        let index = |name: &str| {
            let wanted = shape.column(name)?;
            columns.iter().position(|c| c.name == wanted.name)
        };
        let id = sink.id_column.as_deref().and_then(index);
        let mode = match (&sink.key, sink.order_by.as_deref().and_then(index)) {
            (Some(key), Some(order)) if sink.mode == Some(PostgresMode::Upsert) => {
                Mode::Upsert { key: key.iter().filter_map(|name| index(name)).collect(), order }
            }
            _ => Mode::Append { id },
        };
        let by_path: Vec<(usize, Vec<String>)> = sink
            .columns
            .iter()
            .filter_map(|(name, path)| Some((index(name)?, resolved::path(path)?)))
            .filter(|(column, _)| Some(*column) != id)
            .collect();
        let free = || columns.iter().enumerate().filter(|(n, _)| by_path.iter().all(|(taken, _)| taken != n));
        Self {
            table: shape.name.clone(),
            original: shape.name.clone(),
            by_name: free().map(|(n, c)| (c.name.clone(), n)).collect(),
            by_folded_name: free().map(|(n, c)| (c.name.to_ascii_lowercase(), n)).collect(),
            heads: by_path.iter().map(|(_, path)| path[0].clone()).collect(),
            by_path,
            mode,
            refuse_unknown: sink.unknown_fields == Some(UnknownFields::DeadLetter),
            columns,
        }
    }

    /// The row of a message's object, and how many of its fields no column takes.
    pub(crate) fn row<'a>(
        &self,
        message: usize,
        fields: &Fields<'a>,
        id: Option<Cow<'a, str>>,
    ) -> Result<(Row<'a>, u64), Rejection> {
        let mut cells = vec![Cell::Absent; self.columns.len()];
        let unknown = self.fill(fields, &mut cells)?;
        match &self.mode {
            Mode::Append { id: Some(column) } => {
                let id = id.ok_or_else(|| Rejection::decode("NoId", "the message has no id"))?;
                cells[*column] = Cell::Text(id);
            }
            Mode::Append { id: None } => {}
            Mode::Upsert { key, order } => {
                for column in key.iter().chain([order]) {
                    if cells[*column].as_text().is_none() {
                        let why = format!("the message has no value for column {}", self.columns[*column].name);
                        return Err(Rejection::decode("NoKey", why));
                    }
                }
            }
        }
        if cells.iter().all(|cell| *cell == Cell::Absent) {
            return Err(Rejection::decode("NoFields", "no field of the message is a column of the table"));
        }
        Ok((Row { message, cells }, unknown))
    }

    fn fill<'a>(&self, fields: &Fields<'a>, cells: &mut [Cell<'a>]) -> Result<u64, Rejection> {
        for (column, path) in &self.by_path {
            if let Some(raw) = fields.path(path) {
                cells[*column] = cell::of(raw, &self.columns[*column])?;
            }
        }
        let mut unknown = 0;
        for (name, raw) in &fields.0 {
            let exact = self.by_name.get(&**name);
            let column = match exact {
                Some(column) => Some(*column),
                None => self.folded(name).filter(|column| cells[*column] == Cell::Absent),
            };
            if let Some(column) = column {
                if self.mode != (Mode::Append { id: Some(column) }) {
                    cells[column] = cell::of(raw, &self.columns[column])?;
                }
            } else if !self.heads.contains(&**name) {
                unknown += 1;
                if self.refuse_unknown {
                    return Err(Rejection::decode("UnknownField", format!("no column takes field {name}")));
                }
            }
        }
        Ok(unknown)
    }

    fn folded(&self, name: &str) -> Option<usize> {
        self.by_folded_name.get(&*name.to_ascii_lowercase()).copied()
    }

    /// Rows that have values for the same of the columns that matter: those with a default, where a value that is absent and
    /// NULL are not the same. Of the others those are written that any row of the group has.
    pub(crate) fn groups(&self, rows: &[Row<'_>]) -> Vec<Group> {
        let mut groups: Vec<(Vec<bool>, Group)> = Vec::new();
        for (n, row) in rows.iter().enumerate() {
            let present = row.cells.iter().map(|cell| *cell != Cell::Absent);
            let mask: Vec<bool> = present.clone().zip(&self.columns).map(|(p, c)| p && c.default).collect();
            let place = groups.iter().position(|(m, _)| *m == mask).unwrap_or_else(|| {
                groups.push((mask, Group { rows: Vec::new(), columns: Vec::new() }));
                groups.len() - 1
            });
            groups[place].1.rows.push(n);
        }
        for (_, group) in &mut groups {
            let written = |column: &usize| group.rows.iter().any(|n| rows[*n].cells[*column] != Cell::Absent);
            group.columns = (0..self.columns.len()).filter(written).collect();
        }
        groups.into_iter().map(|(_, group)| group).collect()
    }
}

/// Rows that one statement writes, and the columns that it names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) rows: Vec<usize>,
    pub(crate) columns: Vec<usize>,
}

#[cfg(test)]
mod tests;
