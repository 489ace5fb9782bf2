//! The catalog's facts about one table.

use drover_crds::api::PostgresSink;
use tokio_postgres::{Client, Row};

use super::{TableProblem, TableReason, quoted_table};
use crate::store::StoreReason;

/// A table as the role that asks sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableShape {
    /// The table, quoted, with its schema.
    pub name: String,
    /// The role that asked.
    pub user: String,
    /// False for views, foreign tables and so on.
    pub ordinary: bool,
    /// The database or the role takes no writes.
    pub read_only: bool,
    /// The columns, in their order.
    pub columns: Vec<Column>,
    /// The columns of each unique index that a conflict can be decided by: valid, immediate, of plain columns, not partial.
    pub unique: Vec<Vec<String>>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent facts of the catalog")]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type without a limit, such as `character varying`. What is cast to it is not cut or rounded.
    pub base_type: String,
    /// Its type with its limit, such as `character varying(20)`.
    pub full_type: String,
    /// What JSON it takes.
    pub kind: Kind,
    /// It takes no NULL.
    pub not_null: bool,
    /// It has a default, an identity among them.
    pub default: bool,
    /// The database alone writes it.
    pub generated: bool,
    /// Values of the type have an order.
    pub ordered: bool,
    /// The role may SELECT it.
    pub select: bool,
    /// The role may INSERT it.
    pub insert: bool,
    /// The role may UPDATE it.
    pub update: bool,
}

/// What JSON a column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text of any kind.
    Text,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// True or false.
    Bool,
    /// A time: ISO 8601 text, or milliseconds since 1970.
    Time,
    /// A time of day: ISO 8601 text.
    TimeOfDay,
    /// JSON as it is.
    Json,
    /// An array whose elements are JSON as they are.
    JsonArray,
    /// An array of anything else.
    Array,
    /// Any other type, from its text form.
    Other,
}

impl TableShape {
    /// A column by its name: in its own case, else in any, as SQL folds names that are not quoted.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns
            .iter()
            .find(|c| c.name == name)
            .or_else(|| self.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name)))
    }
}

const TABLE: &str = "
    SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relkind IN ('r', 'p'), current_user::text,
           pg_is_in_recovery() OR current_setting('transaction_read_only')::bool
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass($1)";

const COLUMNS: &str = "
    SELECT a.attname::text, format_type(a.atttypid, -1), format_type(a.atttypid, a.atttypmod),
           b.typname::text, b.typcategory = 'A', a.attnotnull OR t.typnotnull,
           d.oid IS NOT NULL OR a.attidentity <> '' OR t.typdefault IS NOT NULL,
           a.attgenerated <> '' OR a.attidentity = 'a',
           b.typtype = 'e' OR b.typcategory IN ('A', 'R') OR EXISTS (
               SELECT FROM pg_opclass o WHERE o.opcdefault AND o.opcmethod = (SELECT oid FROM pg_am WHERE amname = 'btree')
                 AND (o.opcintype = b.oid OR EXISTS (SELECT FROM pg_cast k
                        WHERE k.castsource = b.oid AND k.casttarget = o.opcintype AND k.castmethod = 'b' AND k.castcontext = 'i'))),
           has_column_privilege(a.attrelid, a.attnum, 'SELECT'), has_column_privilege(a.attrelid, a.attnum, 'INSERT'),
           has_column_privilege(a.attrelid, a.attnum, 'UPDATE')
    FROM pg_attribute a
    JOIN pg_type t ON t.oid = a.atttypid
    JOIN pg_type b ON b.oid = COALESCE(NULLIF(t.typbasetype, 0), t.oid)
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attnum";

const UNIQUE: &str = "
    SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, n)
                 JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                 WHERE k.n <= i.indnkeyatts ORDER BY k.n)
    FROM pg_index i
    WHERE i.indrelid = $1 AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL";

pub(super) async fn read(client: &Client, sink: &PostgresSink) -> Result<TableShape, TableProblem> {
    use tokio_postgres::types::Type;
    let missing = || TableProblem {
        reason: TableReason::TableNotFound,
        message: format!("table {} does not exist: create it, or correct sink.postgres.table", sink.table),
        source: None,
    };
    let name = quoted_table(&sink.table).ok_or_else(missing)?;
    let failed = |error| unreadable(sink, error);
    let found = client.query_typed(TABLE, &[(&name, Type::TEXT)]).await.map_err(failed)?;
    let Some(table) = found.first() else { return Err(missing()) };
    let oid: u32 = table.get(0);
    let columns = client.query_typed(COLUMNS, &[(&oid, Type::OID)]).await.map_err(failed)?;
    let unique = client.query_typed(UNIQUE, &[(&oid, Type::OID)]).await.map_err(failed)?;
    Ok(TableShape {
        name: table.get(1),
        ordinary: table.get(2),
        user: table.get(3),
        read_only: table.get(4),
        columns: columns.iter().map(column).collect(),
        unique: unique.iter().map(|row| row.get(0)).collect(),
    })
}

fn unreadable(sink: &PostgresSink, error: tokio_postgres::Error) -> TableProblem {
    let reason = match StoreReason::of(&error) {
        StoreReason::PrivilegeMissing => TableReason::PrivilegeMissing,
        StoreReason::TableNotFound => TableReason::TableNotFound,
        other => TableReason::Store(other),
    };
    let detail = error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned());
    TableProblem { reason, message: format!("table {} cannot be read: {detail}", sink.table), source: Some(error) }
}

fn column(row: &Row) -> Column {
    let type_name: String = row.get(3);
    Column {
        name: row.get(0),
        base_type: row.get(1),
        full_type: row.get(2),
        kind: kind(&type_name, row.get(4)),
        not_null: row.get(5),
        default: row.get(6),
        generated: row.get(7),
        ordered: row.get(8),
        select: row.get(9),
        insert: row.get(10),
        update: row.get(11),
    }
}

fn kind(type_name: &str, array: bool) -> Kind {
    match type_name {
        "_json" | "_jsonb" => Kind::JsonArray,
        _ if array => Kind::Array,
        "text" | "varchar" | "bpchar" | "char" | "name" | "citext" => Kind::Text,
        "int2" | "int4" | "int8" | "oid" => Kind::Integer,
        "numeric" | "float4" | "float8" => Kind::Number,
        "bool" => Kind::Bool,
        "timestamptz" | "timestamp" | "date" => Kind::Time,
        "time" | "timetz" => Kind::TimeOfDay,
        "json" | "jsonb" => Kind::Json,
        _ => Kind::Other,
    }
}
