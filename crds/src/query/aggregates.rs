//! Aggregates: their forms in HAVING and in the projection of groups.

use sqlparser::ast::{
    DuplicateTreatment, Expr as Ast, Function as Call, FunctionArg, FunctionArgExpr, FunctionArguments, OrderByExpr,
    OrderBySort, Spanned, Value, WindowType,
};

use super::{
    calls::argument,
    error::{Position, QueryError},
    plan::{Aggregate, AggregateKind, Expr, Literal, Order},
    scalars::{Lowering, Place},
    windows,
};

/// Most events that COLLECTTOP keeps.
const MAX_TOP: i64 = 10_000;

pub(crate) const NAMES: &[&str] = &[
    "COUNT",
    "SUM",
    "AVG",
    "MIN",
    "MAX",
    "VAR",
    "VARP",
    "STDEV",
    "STDEVP",
    "PERCENTILE_CONT",
    "PERCENTILE_DISC",
    "TOPONE",
    "COLLECTTOP",
    "COLLECT",
    "APPROX_COUNT_DISTINCT",
];

pub(crate) fn is_aggregate(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Registers an aggregate and refers to it.
pub(crate) fn lower(lowering: &mut Lowering<'_>, call: &Call, name: &str, at: Position) -> Result<Expr, QueryError> {
    if lowering.place != Place::Group {
        return Err(QueryError::new(at, format!("{name} stands where there is no group"))
            .hint("aggregates belong into SELECT or HAVING beside GROUP BY with a window"));
    }
    lowering.place = Place::Row;
    let aggregate = Reader { lowering, call, name, at }.read();
    lowering.place = Place::Group;
    let aggregate = aggregate?;
    if let Some(index) = lowering.aggregates.iter().position(|a| *a == aggregate) {
        return Ok(Expr::Aggregate(index));
    }
    lowering.aggregates.push(aggregate);
    Ok(Expr::Aggregate(lowering.aggregates.len() - 1))
}

struct Reader<'r, 'a> {
    lowering: &'r mut Lowering<'a>,
    call: &'r Call,
    name: &'r str,
    at: Position,
}

impl Reader<'_, '_> {
    fn read(&mut self) -> Result<Aggregate, QueryError> {
        let call = self.call;
        let (args, distinct) = match &call.args {
            FunctionArguments::List(list) if list.clauses.is_empty() => {
                (list.args.as_slice(), list.duplicate_treatment == Some(DuplicateTreatment::Distinct))
            }
            FunctionArguments::None => (&[][..], false),
            _ => return Err(self.usage()),
        };
        let (kind, argument) = self.kind(args)?;
        if distinct && kind != AggregateKind::Count {
            return Err(QueryError::new(self.at, format!("{} takes no DISTINCT", self.name)).hint("COUNT(DISTINCT x)"));
        }
        let order = self.order(kind)?;
        let (kind, argument, order) = match kind {
            // The value to rank is what `ORDER BY` names.
            AggregateKind::PercentileCont(_) | AggregateKind::PercentileDisc(_) => {
                let descending = order[0].descending;
                let kind = if descending { reversed(kind) } else { kind };
                (kind, Some(order[0].expr.clone()), Vec::new())
            }
            _ => (kind, argument, order),
        };
        let filter = match &call.filter {
            Some(filter) => Some(self.lowering.condition(filter, self.at)?),
            None => None,
        };
        Ok(Aggregate { kind, argument, distinct, order, filter })
    }

    fn usage(&self) -> QueryError {
        let hint = match self.name {
            "COUNT" => "COUNT(*), COUNT(x) or COUNT(DISTINCT x)",
            "PERCENTILE_CONT" => "PERCENTILE_CONT(0.95) OVER (ORDER BY x)",
            "PERCENTILE_DISC" => "PERCENTILE_DISC(0.95) OVER (ORDER BY x)",
            "TOPONE" => "TOPONE() or TOPONE(x) OVER (ORDER BY y DESC)",
            "COLLECTTOP" => "COLLECTTOP(3) OVER (ORDER BY x DESC)",
            "COLLECT" => "COLLECT() or COLLECT(x)",
            _ => "it takes one expression",
        };
        QueryError::new(self.at, format!("{} has the wrong arguments", self.name)).hint(hint)
    }

    fn kind(&mut self, args: &[FunctionArg]) -> Result<(AggregateKind, Option<Expr>), QueryError> {
        match (self.name, args) {
            ("COUNT", [FunctionArg::Unnamed(FunctionArgExpr::Wildcard | FunctionArgExpr::WildcardWithOptions(_))]) => {
                Ok((AggregateKind::CountAll, None))
            }
            ("TOPONE", []) => Ok((AggregateKind::TopOne, Some(self.row()?))),
            ("TOPONE", [x]) => Ok((AggregateKind::TopOne, Some(self.expr(x)?))),
            ("COLLECT", []) => Ok((AggregateKind::Collect, Some(self.row()?))),
            ("COLLECT", [x]) => Ok((AggregateKind::Collect, Some(self.expr(x)?))),
            ("COLLECTTOP", [n]) => Ok((AggregateKind::CollectTop(self.count(n)?), Some(self.row()?))),
            ("COLLECTTOP", [n, x]) => Ok((AggregateKind::CollectTop(self.count(n)?), Some(self.expr(x)?))),
            ("PERCENTILE_CONT", [p]) => Ok((AggregateKind::PercentileCont(self.fraction(p)?), None)),
            ("PERCENTILE_DISC", [p]) => Ok((AggregateKind::PercentileDisc(self.fraction(p)?), None)),
            ("TOPONE" | "PERCENTILE_CONT" | "PERCENTILE_DISC" | "COLLECT" | "COLLECTTOP", _) => Err(self.usage()),
            (_, [x]) => Ok((self.plain(), Some(self.number(x)?))),
            _ => Err(self.usage()),
        }
    }

    fn plain(&self) -> AggregateKind {
        match self.name {
            "COUNT" => AggregateKind::Count,
            "SUM" => AggregateKind::Sum,
            "AVG" => AggregateKind::Avg,
            "MIN" => AggregateKind::Min,
            "MAX" => AggregateKind::Max,
            "VAR" => AggregateKind::Var,
            "VARP" => AggregateKind::Varp,
            "STDEV" => AggregateKind::Stdev,
            "STDEVP" => AggregateKind::Stdevp,
            _ => AggregateKind::ApproxCountDistinct,
        }
    }

    fn row(&mut self) -> Result<Expr, QueryError> {
        self.lowering.scope.column(self.lowering.fields, Vec::new(), self.at)
    }

    fn expr(&mut self, arg: &FunctionArg) -> Result<Expr, QueryError> {
        let ast = argument(arg, self.at)?;
        self.lowering.value(ast, self.at)
    }

    fn number(&mut self, arg: &FunctionArg) -> Result<Expr, QueryError> {
        let expr = self.expr(arg)?;
        let numeric = matches!(self.name, "SUM" | "AVG" | "VAR" | "VARP" | "STDEV" | "STDEVP");
        if numeric && matches!(expr, Expr::Literal(Literal::Text(_))) {
            return Err(QueryError::new(self.at, format!("{} of a text", self.name)).hint("CAST(x AS float)"));
        }
        Ok(expr)
    }

    fn count(&self, arg: &FunctionArg) -> Result<usize, QueryError> {
        let ast = argument(arg, self.at)?;
        let at = Position::of(ast.span(), self.at);
        match windows::integer(ast) {
            Some(n @ 1..=MAX_TOP) => Ok(usize::try_from(n).expect("at most MAX_TOP")),
            _ => Err(QueryError::new(at, format!("COLLECTTOP takes a whole number from 1 to {MAX_TOP}"))),
        }
    }

    fn fraction(&self, arg: &FunctionArg) -> Result<f64, QueryError> {
        let ast = argument(arg, self.at)?;
        let at = Position::of(ast.span(), self.at);
        let value = match ast {
            Ast::Value(v) => match &v.value {
                Value::Number(n, _) => n.parse::<f64>().ok(),
                _ => None,
            },
            _ => None,
        };
        value.filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| {
            QueryError::new(at, "a percentile is a number from 0.0 to 1.0")
                .hint("PERCENTILE_CONT(0.95) OVER (ORDER BY x)")
        })
    }

    fn order(&mut self, kind: AggregateKind) -> Result<Vec<Order>, QueryError> {
        let ranked = matches!(
            kind,
            AggregateKind::TopOne
                | AggregateKind::CollectTop(_)
                | AggregateKind::PercentileCont(_)
                | AggregateKind::PercentileDisc(_)
        );
        let call = self.call;
        let order = match &call.over {
            Some(WindowType::WindowSpec(spec)) if spec.partition_by.is_empty() && spec.window_frame.is_none() => {
                spec.order_by.as_slice()
            }
            Some(_) => {
                return Err(QueryError::new(
                    self.at,
                    format!("{} as an analytic function is not supported", self.name),
                )
                .hint("leave PARTITION BY and LIMIT DURATION out and use GROUP BY with a window"));
            }
            None => call.within_group.as_slice(),
        };
        match (ranked, order.is_empty()) {
            (true, true) => Err(self.usage()),
            (false, true) if call.over.is_none() => Ok(Vec::new()),
            (false, _) => {
                Err(QueryError::new(self.at, format!("{} takes no OVER", self.name)).hint("use GROUP BY with a window"))
            }
            (true, false) => {
                let percentile = !matches!(kind, AggregateKind::TopOne | AggregateKind::CollectTop(_));
                if percentile && order.len() > 1 {
                    return Err(QueryError::new(self.at, "a percentile is of one expression"));
                }
                order.iter().map(|o| self.order_of(o)).collect()
            }
        }
    }

    fn order_of(&mut self, order: &OrderByExpr) -> Result<Order, QueryError> {
        let at = Position::of(order.expr.span(), self.at);
        let expr = self.lowering.value(&order.expr, at)?;
        if matches!(expr, Expr::Literal(_)) {
            return Err(QueryError::new(at, "a constant orders nothing").hint("ORDER BY column"));
        }
        if order.options.nulls_first.is_some() || order.with_fill.is_some() {
            return Err(
                QueryError::new(at, "NULLS FIRST and NULLS LAST are not supported").hint("NULL is the smallest value")
            );
        }
        match &order.options.sort {
            None | Some(OrderBySort::Asc) => Ok(Order { expr, descending: false }),
            Some(OrderBySort::Desc) => Ok(Order { expr, descending: true }),
            Some(OrderBySort::Using(_)) => Err(QueryError::new(at, "USING is not supported").hint("ASC or DESC")),
        }
    }
}

/// The percentile from the other end. Of `PERCENTILE_DISC` it takes the value above where both ends meet one.
fn reversed(kind: AggregateKind) -> AggregateKind {
    match kind {
        AggregateKind::PercentileCont(p) => AggregateKind::PercentileCont(1.0 - p),
        AggregateKind::PercentileDisc(p) => AggregateKind::PercentileDisc(-p),
        other => other,
    }
}
