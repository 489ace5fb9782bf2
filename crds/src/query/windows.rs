//! Windows: their forms in GROUP BY.

use sqlparser::ast::{Expr as Ast, Function as Call, Spanned, UnaryOperator, Value};

use super::{
    Unit,
    calls::{arguments, function_name},
    error::{Position, QueryError},
    plan::{Window, WindowDef},
    scalars::Lowering,
};

/// Longest window: partial aggregates are kept for as long as a window is open.
const MAX_TICKS: i64 = 7 * 86_400 * super::TICKS_PER_SECOND;
/// Most windows that one event may fall into; each one's end is a row to compute.
const MAX_OVERLAP: i64 = 100_000;
/// Most windows in a set.
const MAX_SET: usize = 16;

const NAMES: &[&str] = &[
    "TUMBLINGWINDOW",
    "TUMBLING",
    "HOPPINGWINDOW",
    "HOPPING",
    "SLIDINGWINDOW",
    "SLIDING",
    "SESSIONWINDOW",
    "SESSION",
    "WINDOWS",
];

/// Whether a function names a window.
pub(crate) fn is_window(name: &str) -> bool {
    NAMES.contains(&name)
}

/// The window that an expression of GROUP BY is, if it is one.
pub(crate) fn windows(
    lowering: &mut Lowering<'_>,
    expr: &Ast,
    at: Position,
) -> Result<Option<Vec<WindowDef>>, QueryError> {
    let Ast::Function(call) = expr else { return Ok(None) };
    let name = function_name(call);
    if name == "WINDOWS" {
        return set(lowering, call, at).map(Some);
    }
    if !is_window(&name) {
        return match name.as_str() {
            "TUMBLE" | "HOP" | "WINDOW" | "SNAPSHOT" | "SNAPSHOTWINDOW" => Err(QueryError::new(at, format!("unknown window {name}"))
                .hint("TUMBLINGWINDOW(unit, size), HOPPINGWINDOW, SLIDINGWINDOW, SESSIONWINDOW, or System.Timestamp() for snapshots")),
            _ => Ok(None),
        };
    }
    Ok(Some(vec![WindowDef { id: None, window: window(lowering, call, &name, at)? }]))
}

fn set(lowering: &mut Lowering<'_>, call: &Call, at: Position) -> Result<Vec<WindowDef>, QueryError> {
    let mut defs: Vec<WindowDef> = Vec::new();
    for member in arguments(call, at)? {
        let here = Position::of(member.span(), at);
        let def = member_of_set(lowering, member, here)?;
        check_member(&defs, &def, here)?;
        defs.push(def);
    }
    match defs.len() {
        0 => Err(QueryError::new(at, "the set of windows is empty")
            .hint("Windows(Window('id', TumblingWindow(minute, 1)), …)")),
        n if n > MAX_SET => Err(QueryError::new(at, format!("a set holds at most {MAX_SET} windows"))),
        _ => Ok(defs),
    }
}

/// All windows of a set have ids, which are compared in any case, or none has; without ids equal windows give equal rows.
fn check_member(defs: &[WindowDef], def: &WindowDef, at: Position) -> Result<(), QueryError> {
    if defs.iter().any(|d| d.id.is_some() != def.id.is_some()) {
        return Err(QueryError::new(at, "some windows of the set have an id and some have none")
            .hint("Windows(Window('a', …), Window('b', …)) or Windows(…, …)"));
    }
    match &def.id {
        Some(id) if defs.iter().flat_map(|d| &d.id).any(|d| d.to_lowercase() == id.to_lowercase()) => {
            Err(QueryError::new(at, format!("two windows have the id '{id}'")))
        }
        None if defs.iter().any(|d| d.window == def.window) => {
            Err(QueryError::new(at, "the set holds this window twice").hint("Window('id', …) tells them apart"))
        }
        _ => Ok(()),
    }
}

fn member_of_set(lowering: &mut Lowering<'_>, member: &Ast, at: Position) -> Result<WindowDef, QueryError> {
    let Ast::Function(call) = member else {
        return Err(
            QueryError::new(at, "a set of windows holds windows").hint("Window('id', TumblingWindow(minute, 1))")
        );
    };
    let name = function_name(call);
    if name != "WINDOW" {
        return match windows(lowering, member, at)? {
            Some(defs) if name != "WINDOWS" => Ok(defs.into_iter().next().expect("a window has one definition")),
            _ => {
                Err(QueryError::new(at, "a set of windows holds windows")
                    .hint("Window('id', TumblingWindow(minute, 1))"))
            }
        };
    }
    let args = arguments(call, at)?;
    let [id, Ast::Function(inner)] = args.as_slice() else {
        return Err(
            QueryError::new(at, "Window takes an id and a window").hint("Window('id', TumblingWindow(minute, 1))")
        );
    };
    let Some(id) = text(id) else {
        return Err(
            QueryError::new(Position::of(id.span(), at), "the id of a window is a text").hint("Window('id', …)")
        );
    };
    let inner_name = function_name(inner);
    let here = Position::of(args[1].span(), at);
    if !is_window(&inner_name) || inner_name == "WINDOWS" {
        return Err(QueryError::new(here, format!("{inner_name} is not a window")));
    }
    Ok(WindowDef { id: Some(id), window: window(lowering, inner, &inner_name, here)? })
}

fn window(lowering: &mut Lowering<'_>, call: &Call, name: &str, at: Position) -> Result<Window, QueryError> {
    let args = arguments(call, at)?;
    let session = name.starts_with("SESSION");
    if call.over.is_some() && !session {
        return Err(
            QueryError::new(at, format!("{name} takes no OVER")).hint("only SESSIONWINDOW has OVER (PARTITION BY …)")
        );
    }
    let form = Form { call, name, at };
    match name {
        "TUMBLINGWINDOW" | "TUMBLING" => {
            let (sizes, offset) = form.lengths(&args, &["DURATION"], 1)?;
            form.hopping(sizes[0], sizes[0], offset)
        }
        "HOPPINGWINDOW" | "HOPPING" => {
            let (sizes, offset) = form.lengths(&args, &["DURATION", "HOP"], 2)?;
            form.hopping(sizes[0], sizes[1], offset)
        }
        "SLIDINGWINDOW" | "SLIDING" => {
            let (sizes, offset) = form.lengths(&args, &["DURATION"], 1)?;
            form.no_offset(offset)?;
            Ok(Window::Sliding { size: sizes[0] })
        }
        _ => {
            let (sizes, offset) = form.lengths(&args, &["TIMEOUT", "MAXDURATION"], 2)?;
            form.no_offset(offset)?;
            if sizes[1] < sizes[0] {
                return Err(QueryError::new(at, "the longest duration of a session is shorter than its timeout")
                    .hint("SESSIONWINDOW(unit, timeout, maxDuration)"));
            }
            Ok(Window::Session { timeout: sizes[0], max: sizes[1], partition: lowering.session_partition(call, at)? })
        }
    }
}

/// A window's call while its arguments are read.
struct Form<'a> {
    call: &'a Call,
    name: &'a str,
    at: Position,
}

impl Form<'_> {
    /// The lengths in ticks and the offset, from `(unit, n, …[, offset])` or `(Duration(unit, n), …[, Offset(unit, n)])`.
    fn lengths(&self, args: &[&Ast], names: &[&str], count: usize) -> Result<(Vec<i64>, Option<i64>), QueryError> {
        let (values, offset) = match args.first() {
            Some(Ast::Function(_)) => self.named(args, names)?,
            _ => self.plain(args, count)?,
        };
        for (value, at) in &values {
            if *value <= 0 {
                return Err(QueryError::new(*at, "the length of a window is at least 1"));
            }
            if *value > MAX_TICKS {
                return Err(QueryError::new(*at, "a window is at most 7 days long"));
            }
        }
        Ok((values.into_iter().map(|v| v.0).collect(), offset))
    }

    fn usage(&self) -> QueryError {
        let hint = match self.name {
            "TUMBLINGWINDOW" | "TUMBLING" => "TUMBLINGWINDOW(unit, size[, offset])",
            "HOPPINGWINDOW" | "HOPPING" => "HOPPINGWINDOW(unit, size, hop[, offset])",
            "SLIDINGWINDOW" | "SLIDING" => "SLIDINGWINDOW(unit, size)",
            _ => "SESSIONWINDOW(unit, timeout, maxDuration)",
        };
        QueryError::new(self.at, format!("{} has the wrong arguments", function_name(self.call))).hint(hint)
    }

    fn plain(&self, args: &[&Ast], count: usize) -> Result<Lengths, QueryError> {
        if args.len() != count + 1 && args.len() != count + 2 {
            return Err(self.usage());
        }
        let unit = self.unit(args[0])?;
        let mut values = Vec::new();
        for arg in &args[1..=count] {
            values.push((self.ticks(unit, arg)?, Position::of(arg.span(), self.at)));
        }
        let offset = match args.get(count + 1) {
            Some(Ast::Function(call)) if function_name(call) == "OFFSET" => Some(self.length(call)?),
            Some(arg) => Some(self.ticks(unit, arg)?),
            None => None,
        };
        Ok((values, offset))
    }

    fn named(&self, args: &[&Ast], names: &[&str]) -> Result<Lengths, QueryError> {
        let mut values = Vec::new();
        let mut offset = None;
        for (index, arg) in args.iter().enumerate() {
            let Ast::Function(call) = arg else { return Err(self.usage()) };
            let name = function_name(call);
            match names.get(index) {
                Some(expected) if *expected == name || (index == 0 && name == "DURATION") => {
                    values.push((self.length(call)?, Position::of(arg.span(), self.at)));
                }
                None if name == "OFFSET" && offset.is_none() => offset = Some(self.length(call)?),
                _ => return Err(self.usage()),
            }
        }
        if values.len() != names.len() {
            return Err(self.usage());
        }
        Ok((values, offset))
    }

    fn length(&self, call: &Call) -> Result<i64, QueryError> {
        let args = arguments(call, self.at)?;
        let [unit, count] = args.as_slice() else { return Err(self.usage()) };
        self.ticks(self.unit(unit)?, count)
    }

    fn unit(&self, arg: &Ast) -> Result<Unit, QueryError> {
        let at = Position::of(arg.span(), self.at);
        let Ast::Identifier(word) = arg else { return Err(self.usage()) };
        match Unit::parse(&word.value) {
            Some(unit) if unit.measures_windows() => Ok(unit),
            _ => Err(QueryError::new(at, format!("{} is no unit of a window", word.value))
                .hint("day, hour, minute, second, millisecond or microsecond")),
        }
    }

    fn ticks(&self, unit: Unit, arg: &Ast) -> Result<i64, QueryError> {
        let at = Position::of(arg.span(), self.at);
        let Some(count) = integer(arg) else {
            return Err(QueryError::new(at, "the length of a window is a whole number"));
        };
        count
            .checked_mul(unit.ticks().unwrap_or(i64::MAX))
            .filter(|t| t.checked_abs().is_some_and(|t| t <= MAX_TICKS))
            .ok_or_else(|| QueryError::new(at, "a window is at most 7 days long"))
    }

    fn no_offset(&self, offset: Option<i64>) -> Result<(), QueryError> {
        match offset {
            Some(_) => Err(self.usage()),
            None => Ok(()),
        }
    }

    fn hopping(&self, size: i64, hop: i64, offset: Option<i64>) -> Result<Window, QueryError> {
        if hop > size {
            return Err(QueryError::new(self.at, "the hop is longer than the window")
                .hint("HOPPINGWINDOW(unit, size, hop) with hop ≤ size"));
        }
        if size / hop > MAX_OVERLAP {
            return Err(QueryError::new(self.at, format!("an event would fall into more than {MAX_OVERLAP} windows"))
                .hint("use a longer hop"));
        }
        Ok(Window::Hopping { size, hop, offset: offset.unwrap_or(0) })
    }
}

type Lengths = (Vec<(i64, Position)>, Option<i64>);

/// A whole number, with a sign or without.
pub(crate) fn integer(expr: &Ast) -> Option<i64> {
    match expr {
        Ast::Value(v) => match &v.value {
            Value::Number(n, _) => n.parse().ok(),
            _ => None,
        },
        Ast::UnaryOp { op: UnaryOperator::Minus, expr } => integer(expr)?.checked_neg(),
        Ast::UnaryOp { op: UnaryOperator::Plus, expr } | Ast::Nested(expr) => integer(expr),
        _ => None,
    }
}

pub(crate) fn text(expr: &Ast) -> Option<String> {
    match expr {
        Ast::Value(v) => match &v.value {
            Value::SingleQuotedString(s) | Value::NationalStringLiteral(s) => Some(s.clone()),
            _ => None,
        },
        _ => None,
    }
}
