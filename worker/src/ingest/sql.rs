//! The statements of a PostgreSQL sink. Pure: text from a layout.
//!
//! Values come as one array of texts a column and are cast by the server: first to the type without its limit, since a cast
//! to `varchar(5)` would cut what an assignment refuses.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::layout::{Layout, Mode};
use crate::store::table::{TableShape, quoted};

/// Prepares a connection: the server ends itself what waits for too long. An attempt is given up after 30 s, and must leave
/// nothing behind that still waits.
pub(crate) const PREPARE: &str = "SET statement_timeout = '25s'";

/// Begins a transaction in which times without a zone mean UTC. A pool may give it another connection than the one that was
/// prepared.
const BEGIN: &str = "BEGIN; SET LOCAL TimeZone = 'UTC'; SET LOCAL statement_timeout = '25s'";

/// The table of a preview: the connection's own, gone with it. A pool may give a connection that had another one, so its
/// name is made from what it is like.
pub(crate) fn name_of_copy(shape: &TableShape) -> String {
    let mut hasher = DefaultHasher::new();
    format!("{shape:?}").hash(&mut hasher);
    format!("pg_temp.drover_preview_{:016x}", hasher.finish())
}

/// Makes the table of a preview like that of the sink, with its types, checks, defaults and indexes, if it is not there. It
/// forgets its rows at each commit: nothing is locked that others write to.
pub(crate) fn copy(layout: &Layout) -> String {
    let Layout { table, original, .. } = layout;
    format!("CREATE TEMPORARY TABLE IF NOT EXISTS {table} (LIKE {original} INCLUDING ALL) ON COMMIT DELETE ROWS")
}

/// Begins a transaction. A pool may give it another connection than the last one had.
pub(crate) fn begin(layout: &Layout) -> String {
    if layout.is_copy() { format!("{BEGIN}; {}", copy(layout)) } else { BEGIN.to_owned() }
}

/// Plans the writing of all columns to the sink's table, and asks for the rights that it needs, without doing it.
pub(crate) fn explain(layout: &Layout, columns: &[usize]) -> String {
    format!("EXPLAIN {}", write(layout, &layout.original, columns))
}

/// Writes a group of rows to a table: one array parameter for each of `columns`.
pub(crate) fn write(layout: &Layout, table: &str, columns: &[usize]) -> String {
    let names = list(columns, |c| name(layout, c));
    match &layout.mode {
        Mode::Append { id } => {
            let values = list(columns, |c| cast(layout, c));
            let conflict = id.map_or_else(String::new, |id| format!(" ON CONFLICT ({}) DO NOTHING", name(layout, id)));
            format!("INSERT INTO {table} ({names}) SELECT {values} FROM {}{conflict}", rows(columns, false))
        }
        Mode::Upsert { key, order } => {
            let keys = list(key, |c| name(layout, c));
            let distinct = list(key, column);
            let values = list(columns, |c| format!("{} AS {}", cast(layout, c), column(c)));
            let newest = format!(
                "SELECT DISTINCT ON ({distinct}) * FROM (SELECT {values}, n FROM {}) w ORDER BY {distinct}, {} DESC, n DESC",
                rows(columns, true),
                column(*order)
            );
            let chosen = list(columns, column);
            let action = replace(layout, columns, key, *order);
            format!(
                "INSERT INTO {table} AS t ({names}) SELECT {chosen} FROM ({newest}) s ON CONFLICT ({keys}) {action}"
            )
        }
    }
}

/// What is absent and has no default becomes NULL, as in a new row; a default is for new rows only.
fn replace(layout: &Layout, columns: &[usize], key: &[usize], order: usize) -> String {
    let replaced = |c: &usize| !key.contains(c) && (columns.contains(c) || !layout.columns[*c].default);
    let set: Vec<usize> = (0..layout.columns.len()).filter(replaced).collect();
    if set.is_empty() {
        return "DO NOTHING".to_owned();
    }
    let order = name(layout, order);
    let set = list(&set, |c| format!("{0} = EXCLUDED.{0}", name(layout, c)));
    format!("DO UPDATE SET {set} WHERE t.{order} IS NULL OR EXCLUDED.{order} >= t.{order}")
}

/// Looks at the rows that stand where rows of a group were to go: for each its number, the id found, whether this
/// transaction wrote it, and whether it says the same.
pub(crate) fn look(layout: &Layout, columns: &[usize], id: usize) -> String {
    let same = columns.iter().map(|c| {
        let full = &layout.columns[*c].full_type;
        format!("t.{}::text IS NOT DISTINCT FROM ({}::{full})::text", name(layout, *c), cast(layout, *c))
    });
    format!(
        "SELECT v.n, t.{0}::text, t.xmin = pg_current_xact_id()::xid, {1} FROM {2} LEFT JOIN {3} t ON t.{0} = {4} ORDER BY v.n",
        name(layout, id),
        same.collect::<Vec<_>>().join(" AND "),
        rows(columns, true),
        layout.table,
        cast(layout, id),
    )
}

fn rows(columns: &[usize], numbered: bool) -> String {
    let parameters: Vec<String> = (1..=columns.len()).map(|n| format!("${n}::text[]")).collect();
    let (ordinality, n) = if numbered { (" WITH ORDINALITY", ", n") } else { ("", "") };
    format!("unnest({}){ordinality} AS v ({}{n})", parameters.join(", "), list(columns, column))
}

fn cast(layout: &Layout, index: usize) -> String {
    format!("v.{}::{}", column(index), layout.columns[index].base_type)
}

fn name(layout: &Layout, index: usize) -> String {
    quoted(&layout.columns[index].name)
}

fn column(index: usize) -> String {
    format!("c{index}")
}

fn list(columns: &[usize], mut text: impl FnMut(usize) -> String) -> String {
    columns.iter().map(|c| text(*c)).collect::<Vec<_>>().join(", ")
}
