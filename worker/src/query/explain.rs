//! The plan as text, for people.

use std::fmt::Write;

use drover_crds::query::{Expr, Input, Item, Plan, StepKind, Window};

use super::clock;

/// Writes a plan.
#[must_use]
pub fn explain(plan: &Plan) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "input {}", plan.source);
    let time = plan.timestamp_by.as_ref().map_or_else(|| "arrival".to_owned(), |e| expr(plan, e));
    let _ = writeln!(out, "  time {time}");
    for key in &plan.over {
        let _ = writeln!(out, "  time per {}", expr(plan, key));
    }
    let fields: Vec<String> = plan.paths.iter().map(|p| p.join(".")).collect();
    let _ =
        writeln!(out, "  reads {}", if plan.whole_event { "the whole event".to_owned() } else { fields.join(", ") });
    for (index, step) in plan.steps.iter().enumerate() {
        let from = match step.input {
            Input::Source => plan.source.clone(),
            Input::Step(i) => plan.steps[i].name.clone().unwrap_or_else(|| format!("step {}", i + 1)),
        };
        let name =
            step.name.as_ref().map_or_else(|| format!("step {}", index + 1), |n| format!("step {} {n}", index + 1));
        let _ = writeln!(out, "{name} from {from}");
        for apply in &step.applies {
            let _ = writeln!(
                out,
                "  apply {:?}{} to {}",
                apply.kind,
                if apply.outer { " (outer)" } else { "" },
                expr(plan, &apply.argument)
            );
        }
        if let Some(filter) = &step.filter {
            let _ = writeln!(out, "  where {}", expr(plan, filter));
        }
        kind(plan, &step.kind, &mut out);
        if let Some(output) = &step.output {
            let _ = writeln!(out, "  into {output}");
        }
    }
    out
}

fn kind(plan: &Plan, kind: &StepKind, out: &mut String) {
    let items = match kind {
        StepKind::Project(items) => items,
        StepKind::Group(group) => {
            for def in &group.windows {
                let id = def.id.as_ref().map_or_else(String::new, |id| format!(" '{id}'"));
                let _ = writeln!(out, "  window{id} {}", window(plan, &def.window));
            }
            for (index, key) in group.keys.iter().enumerate() {
                let _ = writeln!(out, "  key {index} {}", expr(plan, key));
            }
            for (index, aggregate) in group.aggregates.iter().enumerate() {
                let distinct = if aggregate.distinct { " distinct" } else { "" };
                let argument =
                    aggregate.argument.as_ref().map_or_else(String::new, |a| format!(" of {}", expr(plan, a)));
                let _ = writeln!(out, "  aggregate {index} {:?}{distinct}{argument}", aggregate.kind);
            }
            if let Some(having) = &group.having {
                let _ = writeln!(out, "  having {}", expr(plan, having));
            }
            &group.items
        }
    };
    for item in items {
        let _ = match item {
            Item::Named(name, e) => writeln!(out, "  column {name} = {}", expr(plan, e)),
            Item::Star(e) => writeln!(out, "  columns of {}", expr(plan, e)),
        };
    }
}

fn window(plan: &Plan, window: &Window) -> String {
    let seconds = |ticks: i64| {
        let span = clock::format(ticks);
        let day = ticks.div_euclid(864_000_000_000);
        format!("{}{}", if day > 0 { format!("{day}d ") } else { String::new() }, &span[11..span.len() - 1])
    };
    match window {
        Window::Hopping { size, hop, offset } if size == hop => {
            format!("tumbling {} offset {} ticks", seconds(*size), offset)
        }
        Window::Hopping { size, hop, offset } => {
            format!("hopping {} every {} offset {} ticks", seconds(*size), seconds(*hop), offset)
        }
        Window::Sliding { size } => format!("sliding {}", seconds(*size)),
        Window::Session { timeout, max, partition } => {
            let by: Vec<String> = partition.iter().map(|e| expr(plan, e)).collect();
            let by = if by.is_empty() { String::new() } else { format!(" per {}", by.join(", ")) };
            format!("session timeout {} at most {}{by}", seconds(*timeout), seconds(*max))
        }
        Window::Snapshot => "snapshot".to_owned(),
    }
}

fn list(plan: &Plan, exprs: &[Expr]) -> String {
    exprs.iter().map(|e| expr(plan, e)).collect::<Vec<_>>().join(", ")
}

fn expr(plan: &Plan, e: &Expr) -> String {
    match e {
        Expr::Literal(literal) => format!("{literal:?}"),
        Expr::Slot(slot) => format!("event.{}", plan.paths[*slot].join(".")),
        Expr::Event => "event".to_owned(),
        Expr::Column(path) => format!("row.{}", path.join(".")),
        Expr::Applied(index, path) => format!("applied {index}.{}", path.join(".")),
        Expr::Timestamp => "System.Timestamp()".to_owned(),
        Expr::WindowId => "System.Window().Id".to_owned(),
        Expr::Key(index) => format!("key {index}"),
        Expr::Aggregate(index) => format!("aggregate {index}"),
        Expr::Member(inner, name) => format!("{}.{name}", expr(plan, inner)),
        Expr::Unary(op, inner) => format!("{op:?}({})", expr(plan, inner)),
        Expr::Binary(op, a, b) => format!("({} {op:?} {})", expr(plan, a), expr(plan, b)),
        Expr::IsNull(inner) => format!("({} is null)", expr(plan, inner)),
        Expr::In(inner, items) => format!("({} in {})", expr(plan, inner), list(plan, items)),
        Expr::Like(a, b, _) => format!("({} like {})", expr(plan, a), expr(plan, b)),
        Expr::Case(branches, otherwise) => {
            let branches: Vec<String> =
                branches.iter().map(|(c, r)| format!("when {} then {}", expr(plan, c), expr(plan, r))).collect();
            let otherwise = otherwise.as_ref().map_or_else(String::new, |o| format!(" else {}", expr(plan, o)));
            format!("case {}{otherwise} end", branches.join(" "))
        }
        Expr::Cast(inner, to, safe) => {
            format!("{}({} as {to})", if *safe { "try_cast" } else { "cast" }, expr(plan, inner))
        }
        Expr::Call(function, args) => format!("{}({})", function.name(), list(plan, args)),
        Expr::DateCall(function, unit, args) => format!("{}({}, {})", function.name(), unit.name(), list(plan, args)),
    }
}
