//! The plan as text, for people: what is read, and step by step what becomes of it.

use std::fmt::Write;

use drover_crds::query::{
    Aggregate, AggregateKind, ApplyKind, BinaryOp, Expr, Group, Input, Item, Literal, Order, Plan, Step, StepKind,
    TICKS_PER_SECOND, UnaryOp, Window,
};

/// Writes a plan.
#[must_use]
pub fn explain(plan: &Plan) -> String {
    let mut out = format!("input {}\n", plan.source);
    let event = Names { plan, group: None };
    let time = plan.timestamp_by.as_ref().map_or_else(|| "the arrival".to_owned(), |e| event.expr(e));
    line(&mut out, "time", &time);
    if !plan.over.is_empty() {
        line(&mut out, "time per", &event.list(&plan.over));
    }
    let fields: Vec<String> = plan.paths.iter().map(|p| p.join(".")).collect();
    line(&mut out, "reads", &if plan.whole_event { "the whole event".to_owned() } else { fields.join(", ") });
    for (index, step) in plan.steps.iter().enumerate() {
        let _ = writeln!(out, "{} from {}", title(plan, index), source(plan, step));
        write_step(plan, step, &mut out);
    }
    out
}

fn line(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "  {name:<9} {text}");
}

fn title(plan: &Plan, index: usize) -> String {
    plan.steps[index].name.as_ref().map_or_else(|| format!("select {}", index + 1), |n| format!("step {n}"))
}

fn source(plan: &Plan, step: &Step) -> String {
    match step.input {
        Input::Source => plan.source.clone(),
        Input::Step(index) => title(plan, index),
    }
}

fn write_step(plan: &Plan, step: &Step, out: &mut String) {
    let names = Names { plan, group: None };
    for apply in &step.applies {
        let function = match apply.kind {
            ApplyKind::ArrayElements => "GetArrayElements",
            ApplyKind::RecordProperties => "GetRecordProperties",
        };
        let kept = if apply.outer { ", rows without any are kept" } else { "" };
        line(out, "apply", &format!("{function}({}){kept}", names.expr(&apply.argument)));
    }
    if let Some(filter) = &step.filter {
        line(out, "where", &names.expr(filter));
    }
    match &step.kind {
        StepKind::Project(items) => write_items(&names, items, out),
        StepKind::Group(group) => write_group(plan, group, out),
    }
    if let Some(output) = &step.output {
        line(out, "into", output);
    }
}

fn write_group(plan: &Plan, group: &Group, out: &mut String) {
    let names = Names { plan, group: None };
    for def in &group.windows {
        let id = def.id.as_ref().map_or_else(String::new, |id| format!("'{id}': "));
        line(out, "window", &format!("{id}{}", window(&names, &def.window)));
    }
    if !group.keys.is_empty() {
        line(out, "group by", &names.list(&group.keys));
    }
    let names = Names { plan, group: Some(group) };
    if let Some(having) = &group.having {
        line(out, "having", &names.expr(having));
    }
    write_items(&names, &group.items, out);
}

fn write_items(names: &Names<'_>, items: &[Item], out: &mut String) {
    for item in items {
        let text = match item {
            Item::Named(name, e) => format!("{} = {}", if name.is_empty() { "(no name)" } else { name }, names.expr(e)),
            Item::Star(e) => format!("all fields of {}", names.expr(e)),
        };
        line(out, "column", &text);
    }
}

fn window(names: &Names<'_>, window: &Window) -> String {
    match window {
        Window::Hopping { size, hop, offset } => {
            let hops = if size == hop { String::new() } else { format!(" every {}", length(*hop)) };
            let kind = if size == hop { "tumbling" } else { "hopping" };
            let moved = if *offset == 0 { String::new() } else { format!(", offset {}", length(*offset)) };
            format!("{kind} {}{hops}{moved}", length(*size))
        }
        Window::Sliding { size } => format!("sliding {}", length(*size)),
        Window::Session { timeout, max, partition } => {
            let by = if partition.is_empty() { String::new() } else { format!(", per {}", names.list(partition)) };
            format!("session, gaps up to {}, checked every {}{by}", length(*timeout), length(*max))
        }
        Window::Snapshot => "snapshot: equal times".to_owned(),
    }
}

/// Ticks in the greatest unit that divides them.
fn length(ticks: i64) -> String {
    const UNITS: [(i64, &str); 6] = [
        (86_400 * TICKS_PER_SECOND, "d"),
        (3_600 * TICKS_PER_SECOND, "h"),
        (60 * TICKS_PER_SECOND, "min"),
        (TICKS_PER_SECOND, "s"),
        (TICKS_PER_SECOND / 1_000, "ms"),
        (TICKS_PER_SECOND / 1_000_000, "µs"),
    ];
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| ticks % unit == 0).unwrap_or((1, "ticks of 100 ns"));
    format!("{} {name}", ticks / unit)
}

/// Writes expressions: of the rows of a step, or of its groups.
struct Names<'a> {
    plan: &'a Plan,
    group: Option<&'a Group>,
}

impl Names<'_> {
    fn list(&self, exprs: &[Expr]) -> String {
        exprs.iter().map(|e| self.expr(e)).collect::<Vec<_>>().join(", ")
    }

    fn expr(&self, e: &Expr) -> String {
        let rows = Names { plan: self.plan, group: None };
        match e {
            Expr::Literal(literal) => constant(literal),
            Expr::Slot(slot) => self.plan.paths[*slot].join("."),
            Expr::Event => "the event".to_owned(),
            Expr::Column(path) if path.is_empty() => "the row".to_owned(),
            Expr::Applied(index, path) if path.is_empty() => format!("what apply {} yields", index + 1),
            Expr::Column(path) | Expr::Applied(_, path) => path.join("."),
            Expr::Timestamp => "System.Timestamp()".to_owned(),
            Expr::WindowId => "System.Window().Id".to_owned(),
            Expr::Key(index) => self.group.map_or_else(String::new, |g| rows.expr(&g.keys[*index])),
            Expr::Aggregate(index) => self.group.map_or_else(String::new, |g| rows.aggregate(&g.aggregates[*index])),
            Expr::Member(inner, name) => format!("{}.{name}", self.expr(inner)),
            Expr::Unary(UnaryOp::Not, inner) => format!("NOT {}", self.expr(inner)),
            Expr::Unary(UnaryOp::Negate, inner) => format!("-{}", self.expr(inner)),
            Expr::Unary(UnaryOp::BitNot, inner) => format!("~{}", self.expr(inner)),
            Expr::Binary(op, a, b) => format!("({} {} {})", self.expr(a), sign(*op), self.expr(b)),
            Expr::IsNull(inner) => format!("{} IS NULL", self.expr(inner)),
            Expr::In(inner, items) => format!("{} IN ({})", self.expr(inner), self.list(items)),
            Expr::Like(a, b, _) => format!("{} LIKE {}", self.expr(a), self.expr(b)),
            Expr::Case(branches, otherwise) => self.case(branches, otherwise.as_deref()),
            Expr::Cast(inner, to, safe) => {
                format!("{}CAST({} AS {to})", if *safe { "TRY_" } else { "" }, self.expr(inner))
            }
            Expr::Call(function, args) => format!("{}({})", function.name(), self.list(args)),
            Expr::DateCall(function, unit, args) => {
                format!("{}({}, {})", function.name(), unit.name(), self.list(args))
            }
        }
    }

    fn case(&self, branches: &[(Expr, Expr)], otherwise: Option<&Expr>) -> String {
        let branches: Vec<String> =
            branches.iter().map(|(c, r)| format!("WHEN {} THEN {}", self.expr(c), self.expr(r))).collect();
        let otherwise = otherwise.map_or_else(String::new, |o| format!(" ELSE {}", self.expr(o)));
        format!("CASE {}{otherwise} END", branches.join(" "))
    }

    fn aggregate(&self, aggregate: &Aggregate) -> String {
        let argument = aggregate.argument.as_ref().map_or_else(String::new, |a| self.expr(a));
        let over = |by: &str| format!(" OVER (ORDER BY {by})");
        let order = aggregate
            .order
            .iter()
            .map(|Order { expr, descending }| format!("{}{}", self.expr(expr), if *descending { " DESC" } else { "" }));
        let order = order.collect::<Vec<_>>().join(", ");
        let distinct = if aggregate.distinct { "DISTINCT " } else { "" };
        match aggregate.kind {
            AggregateKind::CountAll => "COUNT(*)".to_owned(),
            AggregateKind::Count => format!("COUNT({distinct}{argument})"),
            AggregateKind::Sum => format!("SUM({argument})"),
            AggregateKind::Avg => format!("AVG({argument})"),
            AggregateKind::Min => format!("MIN({argument})"),
            AggregateKind::Max => format!("MAX({argument})"),
            AggregateKind::Var => format!("VAR({argument})"),
            AggregateKind::Varp => format!("VARP({argument})"),
            AggregateKind::Stdev => format!("STDEV({argument})"),
            AggregateKind::Stdevp => format!("STDEVP({argument})"),
            AggregateKind::PercentileCont(p) => format!("PERCENTILE_CONT({p}){}", over(&argument)),
            // From the greatest value on, the fraction is negative.
            AggregateKind::PercentileDisc(p) if p.is_sign_negative() => {
                format!("PERCENTILE_DISC({}){}", -p, over(&format!("{argument} DESC")))
            }
            AggregateKind::PercentileDisc(p) => format!("PERCENTILE_DISC({p}){}", over(&argument)),
            AggregateKind::TopOne => format!("TOPONE({argument}){}", over(&order)),
            AggregateKind::CollectTop(n) => format!("COLLECTTOP({n}, {argument}){}", over(&order)),
            AggregateKind::Collect => format!("COLLECT({argument})"),
            AggregateKind::ApproxCountDistinct => format!("APPROX_COUNT_DISTINCT({argument})"),
        }
    }
}

fn constant(literal: &Literal) -> String {
    match literal {
        Literal::Null => "NULL".to_owned(),
        Literal::BigInt(n) => n.to_string(),
        Literal::Float(f) => format!("{f:?}"),
        Literal::Text(t) => format!("'{}'", t.replace('\'', "''")),
    }
}

fn sign(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Add => "+",
        BinaryOp::Subtract => "-",
        BinaryOp::Multiply => "*",
        BinaryOp::Divide => "/",
        BinaryOp::Modulo => "%",
        BinaryOp::BitAnd => "&",
        BinaryOp::BitOr => "|",
        BinaryOp::BitXor => "^",
        BinaryOp::Equal => "=",
        BinaryOp::NotEqual => "<>",
        BinaryOp::Less => "<",
        BinaryOp::LessEqual => "<=",
        BinaryOp::Greater => ">",
        BinaryOp::GreaterEqual => ">=",
        BinaryOp::And => "AND",
        BinaryOp::Or => "OR",
    }
}
