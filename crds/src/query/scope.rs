//! Names: what a column means in a SELECT.

use sqlparser::ast::Ident;

use super::{
    error::{Position, QueryError},
    functions,
    plan::{ApplyKind, Expr, Input},
};

/// The fields of the event that a query reads, shared by its steps.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    pub(crate) paths: Vec<Vec<String>>,
    pub(crate) whole: bool,
}

impl Fields {
    fn slot(&mut self, path: Vec<String>) -> usize {
        if let Some(at) = self.paths.iter().position(|p| same_path(p, &path)) {
            return at;
        }
        self.paths.push(path);
        self.paths.len() - 1
    }
}

fn same_path(a: &[String], b: &[String]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.eq_ignore_ascii_case(y))
}

/// What the names of one SELECT refer to.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) input: Input,
    /// The name after FROM and its alias.
    pub(crate) names: Vec<String>,
    /// The columns of the input, where it is a step without `*`.
    pub(crate) columns: Option<Vec<String>>,
    pub(crate) applies: Vec<(String, ApplyKind)>,
}

impl ApplyKind {
    pub(crate) fn columns(self) -> [&'static str; 2] {
        match self {
            Self::ArrayElements => ["ArrayIndex", "ArrayValue"],
            Self::RecordProperties => ["PropertyName", "PropertyValue"],
        }
    }
}

impl Scope {
    /// The meaning of `a.b.c`.
    pub(crate) fn resolve(&self, fields: &mut Fields, parts: &[Ident], at: Position) -> Result<Expr, QueryError> {
        let path: Vec<String> = parts.iter().map(|p| p.value.clone()).collect();
        if is_timestamp(&path) {
            return Ok(Expr::Timestamp);
        }
        if path.first().is_some_and(|p| p.eq_ignore_ascii_case("System")) && path.len() > 1 {
            return Err(QueryError::new(at, format!("unknown name {}", path.join(".")))
                .hint("System.Timestamp() and System.Window().Id exist"));
        }
        if let Some(apply) = self.applies.iter().position(|(name, _)| name.eq_ignore_ascii_case(&path[0])) {
            return self.applied(apply, &path[1..], at);
        }
        if self.names.iter().any(|n| n.eq_ignore_ascii_case(&path[0])) {
            return self.column(fields, path[1..].to_vec(), at);
        }
        if let Some(apply) =
            self.applies.iter().position(|(_, kind)| kind.columns().iter().any(|c| c.eq_ignore_ascii_case(&path[0])))
        {
            return self.applied(apply, &path, at);
        }
        self.column(fields, path, at)
    }

    /// A field of the row, or the row itself.
    pub(crate) fn column(&self, fields: &mut Fields, path: Vec<String>, at: Position) -> Result<Expr, QueryError> {
        match self.input {
            Input::Source if path.is_empty() => {
                fields.whole = true;
                Ok(Expr::Event)
            }
            Input::Source => Ok(Expr::Slot(fields.slot(path))),
            Input::Step(_) => {
                self.check_column(&path, at)?;
                Ok(Expr::Column(path))
            }
        }
    }

    fn check_column(&self, path: &[String], at: Position) -> Result<(), QueryError> {
        let (Some(columns), Some(first)) = (&self.columns, path.first()) else { return Ok(()) };
        if columns.iter().any(|c| c.eq_ignore_ascii_case(first)) {
            return Ok(());
        }
        let error = QueryError::new(at, format!("step {} has no column {first}", self.names[0]));
        let near =
            columns.iter().min_by_key(|c| functions::distance(&c.to_ascii_lowercase(), &first.to_ascii_lowercase()));
        Err(match near {
            Some(column) => error.hint(format!("it has {column}")),
            None => error,
        })
    }

    fn applied(&self, apply: usize, path: &[String], at: Position) -> Result<Expr, QueryError> {
        let columns = self.applies[apply].1.columns();
        if let Some(first) = path.first()
            && !columns.iter().any(|c| c.eq_ignore_ascii_case(first))
        {
            return Err(QueryError::new(at, format!("{} has no column {first}", self.applies[apply].0))
                .hint(format!("its columns are {} and {}", columns[0], columns[1])));
        }
        Ok(Expr::Applied(apply, path.to_vec()))
    }
}

pub(crate) fn is_timestamp(path: &[String]) -> bool {
    path.len() == 2 && path[0].eq_ignore_ascii_case("System") && path[1].eq_ignore_ascii_case("Timestamp")
}
