//! Statements and steps: from the parser's tree to the plan.

use std::collections::HashSet;

use sqlparser::ast::{Expr as Ast, GroupByExpr, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, Spanned};

use super::{
    DEFAULT_OUTPUT,
    error::{Position, QueryError},
    plan::{Apply, Expr, Group, Input, Item, Plan, Step, StepKind, Window, WindowDef},
    rewrite,
    scalars::{Lowering, Place, names_timestamp},
    scope::{Fields, Scope},
    shape,
    tables::{self, From},
    windows,
};

/// Most SELECTs of a query.
const MAX_STEPS: usize = 64;

pub(crate) fn query(text: &str) -> Result<Plan, QueryError> {
    let statements = rewrite::statements(text)?;
    let mut builder = Builder::default();
    for statement in &statements {
        builder.statement(statement)?;
    }
    builder.finish()
}

pub(crate) fn transform(text: &str) -> Result<Plan, QueryError> {
    let statements = rewrite::statements(text)?;
    let mut builder = Builder { transform: true, ..Builder::default() };
    for (index, statement) in statements.iter().enumerate() {
        if index > 0 {
            return Err(QueryError::new(Position::of(statement.span(), Position::START), "a transform is one SELECT"));
        }
        builder.statement(statement)?;
    }
    builder.finish()
}

/// `TIMESTAMP BY` as one FROM of the input has it.
#[derive(Debug, PartialEq)]
struct Time {
    by: Option<Expr>,
    over: Vec<Expr>,
}

#[derive(Default)]
struct Builder {
    transform: bool,
    source: Option<String>,
    time: Option<Time>,
    fields: Fields,
    steps: Vec<Step>,
    /// The columns of each step, where they are known.
    columns: Vec<Option<Vec<String>>>,
}

impl Builder {
    fn statement(&mut self, query: &Query) -> Result<(), QueryError> {
        if let Some(with) = &query.with {
            if with.recursive {
                return Err(QueryError::new(
                    Position::of(with.span(), Position::START),
                    "WITH RECURSIVE is not supported",
                ));
            }
            for cte in &with.cte_tables {
                let at = Position::of(cte.alias.name.span, Position::START);
                self.named_step(&cte.alias.name.value, &cte.query, at)?;
            }
        }
        let at = Position::of(query.span(), Position::START);
        let select = shape::select(query, at)?;
        let output = self.output(select, at)?;
        self.step(select, None, Some(output), at)
    }

    fn named_step(&mut self, name: &str, query: &Query, at: Position) -> Result<(), QueryError> {
        if self.steps.iter().any(|s| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(name))) {
            return Err(QueryError::new(at, format!("two steps are named {name}")));
        }
        if query.with.is_some() {
            return Err(QueryError::new(at, "WITH inside a step is not supported").hint("put every step into one WITH"));
        }
        let select = shape::select(query, at)?;
        if select.into.is_some() {
            return Err(QueryError::new(at, "a step of WITH has no INTO").hint("SELECT … INTO output FROM step"));
        }
        self.step(select, Some(name.to_owned()), None, at)
    }

    fn output(&self, select: &Select, at: Position) -> Result<String, QueryError> {
        let Some(into) = &select.into else { return Ok(DEFAULT_OUTPUT.to_owned()) };
        let here = into.targets.first().map_or(at, |t| Position::of(t.span(), at));
        if self.transform {
            return Err(QueryError::new(here, "a transform has no INTO").hint("its rows go to the pipeline's sink"));
        }
        match into.targets.as_slice() {
            [Ast::Identifier(name)] if !into.table && !into.temporary && !into.unlogged => Ok(name.value.clone()),
            _ => Err(QueryError::new(here, "INTO takes one name").hint("SELECT … INTO output FROM input")),
        }
    }

    fn step(
        &mut self,
        select: &Select,
        name: Option<String>,
        output: Option<String>,
        at: Position,
    ) -> Result<(), QueryError> {
        let at = Position::of(select.span(), at);
        if self.steps.len() == MAX_STEPS {
            return Err(QueryError::new(at, format!("a query has at most {MAX_STEPS} SELECTs")));
        }
        let from = tables::from(select, at)?;
        let mut scope = self.scope(&from)?;
        self.time_of(&scope, &from)?;
        let mut applies = Vec::new();
        for applied in &from.applies {
            let argument = self.lowering(&scope).value(applied.argument, applied.at)?;
            applies.push(Apply { kind: applied.kind, argument, outer: applied.outer });
            scope.applies.push((applied.alias.clone(), applied.kind));
        }
        let filter = match &select.selection {
            Some(ast) => Some(self.lowering(&scope).condition(ast, at)?),
            None => None,
        };
        let kind = self.kind(select, &scope, at)?;
        self.columns.push(columns_of(&kind));
        self.steps.push(Step { name, input: scope.input, applies, filter, kind, output });
        Ok(())
    }

    fn lowering<'a>(&'a mut self, scope: &'a Scope) -> Lowering<'a> {
        Lowering { fields: &mut self.fields, scope, place: Place::Row, keys: Vec::new(), aggregates: Vec::new() }
    }

    fn scope(&mut self, from: &From<'_>) -> Result<Scope, QueryError> {
        let step =
            self.steps.iter().position(|s| s.name.as_deref().is_some_and(|n| n.eq_ignore_ascii_case(&from.name)));
        if step.is_none() {
            match &self.source {
                None => self.source = Some(from.name.clone()),
                Some(source) if source.eq_ignore_ascii_case(&from.name) => {}
                Some(source) => {
                    return Err(QueryError::new(
                        from.at,
                        format!("{} is neither the input {source} nor a step before this", from.name),
                    )
                    .hint("a query has one input; steps are read after they are written"));
                }
            }
        }
        let names = [Some(from.name.clone()), from.alias.clone()].into_iter().flatten().collect();
        let (input, columns) = match step {
            Some(step) => (Input::Step(step), self.columns[step].clone()),
            None => (Input::Source, None),
        };
        Ok(Scope { input, names, columns, applies: Vec::new() })
    }

    fn time_of(&mut self, scope: &Scope, from: &From<'_>) -> Result<(), QueryError> {
        let at = from.timestamp_by.map_or(from.at, |(_, at)| at);
        if (from.timestamp_by.is_some() || !from.over.is_empty()) && (self.transform || scope.input != Input::Source) {
            let why = if self.transform {
                "a transform has no TIMESTAMP BY"
            } else {
                "TIMESTAMP BY belongs to the input, not to a step"
            };
            return Err(QueryError::new(at, why));
        }
        if scope.input != Input::Source {
            return Ok(());
        }
        let mut lowering = self.lowering(scope);
        let by = from.timestamp_by.map(|(ast, at)| lowering.value(ast, at)).transpose()?;
        let over = from.over.iter().map(|k| lowering.value(k, at)).collect::<Result<Vec<_>, _>>()?;
        if by.as_ref().is_some_and(uses_timestamp) || over.iter().any(uses_timestamp) {
            return Err(QueryError::new(at, "TIMESTAMP BY cannot use System.Timestamp")
                .hint("leave TIMESTAMP BY out to use the time of arrival"));
        }
        if by.is_none() && !over.is_empty() {
            return Err(QueryError::new(at, "OVER needs TIMESTAMP BY"));
        }
        let time = Time { by, over };
        match &self.time {
            Some(known) if *known != time => Err(QueryError::new(at, "the input has another TIMESTAMP BY elsewhere")
                .hint("write the same one wherever the input is read")),
            _ => {
                self.time = Some(time);
                Ok(())
            }
        }
    }

    fn kind(&mut self, select: &Select, scope: &Scope, at: Position) -> Result<StepKind, QueryError> {
        let group_by = match &select.group_by {
            GroupByExpr::Expressions(list, _) => list.as_slice(),
            GroupByExpr::All(_) => &[],
        };
        let transform = self.transform;
        let mut lowering = self.lowering(scope);
        if group_by.is_empty() {
            if let Some(having) = &select.having {
                return Err(QueryError::new(Position::of(having.span(), at), "HAVING needs GROUP BY")
                    .hint("WHERE filters events"));
            }
            return Ok(StepKind::Project(items(&mut lowering, select, at)?));
        }
        if transform {
            return Err(QueryError::new(Position::of(group_by[0].span(), at), "a transform has no GROUP BY")
                .hint("windows are for a WindowQuery"));
        }
        let windows = group_keys(&mut lowering, group_by, at)?;
        lowering.place = Place::Group;
        let having = select.having.as_ref().map(|h| lowering.condition(h, at)).transpose()?;
        let items = items(&mut lowering, select, at)?;
        let (keys, aggregates) = (lowering.keys, lowering.aggregates);
        Ok(StepKind::Group(Box::new(Group { windows, keys, aggregates, having, items })))
    }

    fn finish(self) -> Result<Plan, QueryError> {
        let Some(source) = self.source else {
            return Err(QueryError::new(Position::START, "the query reads no input"));
        };
        let time = self.time.unwrap_or(Time { by: None, over: Vec::new() });
        Ok(Plan {
            source,
            timestamp_by: time.by,
            over: time.over,
            paths: self.fields.paths,
            whole_event: self.fields.whole,
            steps: self.steps,
        })
    }
}

/// Splits GROUP BY into its windows and its keys.
fn group_keys(lowering: &mut Lowering<'_>, group_by: &[Ast], at: Position) -> Result<Vec<WindowDef>, QueryError> {
    let mut found: Vec<WindowDef> = Vec::new();
    for ast in group_by {
        let here = Position::of(ast.span(), at);
        let windows = if names_timestamp(ast) {
            Some(vec![WindowDef { id: None, window: Window::Snapshot }])
        } else {
            windows::windows(lowering, ast, here)?
        };
        match windows {
            Some(_) if !found.is_empty() => {
                return Err(QueryError::new(here, "GROUP BY has two windows")
                    .hint("Windows(Window('a', …), Window('b', …)) makes a set"));
            }
            Some(windows) => found = windows,
            None => {
                let key = lowering.value(ast, here)?;
                if matches!(key, Expr::Literal(_)) {
                    return Err(QueryError::new(here, "a constant groups nothing").hint("GROUP BY column"));
                }
                if !lowering.keys.contains(&key) {
                    lowering.keys.push(key);
                }
            }
        }
    }
    if found.is_empty() {
        return Err(QueryError::new(Position::of(group_by[0].span(), at), "GROUP BY has no window")
            .hint("GROUP BY …, TUMBLINGWINDOW(minute, 1)"));
    }
    Ok(found)
}

fn items(lowering: &mut Lowering<'_>, select: &Select, at: Position) -> Result<Vec<Item>, QueryError> {
    let mut items = Vec::new();
    let mut names: HashSet<String> = HashSet::new();
    for item in &select.projection {
        let here = Position::of(item.span(), at);
        let column = match item {
            SelectItem::UnnamedExpr(ast) => Item::Named(implied_name(ast), lowering.value(ast, here)?),
            SelectItem::ExprWithAlias { expr, alias } => Item::Named(alias.value.clone(), lowering.value(expr, here)?),
            SelectItem::Wildcard(options) => {
                shape::plain_star(options, here)?;
                star(lowering, &mut items, here)?;
                continue;
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                shape::plain_star(options, here)?;
                let parts: Vec<_> = name.0.iter().filter_map(|p| p.as_ident().cloned()).collect();
                no_star_in_group(lowering, here)?;
                items.push(Item::Star(lowering.scope.resolve(lowering.fields, &parts, here)?));
                continue;
            }
            _ => return Err(QueryError::new(here, "this form of a column is not supported").hint("expression AS name")),
        };
        if let Item::Named(name, _) = &column
            && !names.insert(name.to_lowercase())
        {
            let what = if name.is_empty() {
                "two columns have no name".to_owned()
            } else {
                format!("two columns are named {name}")
            };
            return Err(QueryError::new(here, what).hint("name one of them with AS"));
        }
        items.push(column);
    }
    Ok(items)
}

/// `*`: the row, then what APPLY adds to it.
fn star(lowering: &mut Lowering<'_>, items: &mut Vec<Item>, at: Position) -> Result<(), QueryError> {
    no_star_in_group(lowering, at)?;
    items.push(Item::Star(lowering.scope.column(lowering.fields, Vec::new(), at)?));
    items.extend((0..lowering.scope.applies.len()).map(|i| Item::Star(Expr::Applied(i, Vec::new()))));
    Ok(())
}

fn no_star_in_group(lowering: &Lowering<'_>, at: Position) -> Result<(), QueryError> {
    if lowering.place == Place::Group {
        return Err(
            QueryError::new(at, "* beside GROUP BY is not supported").hint("name the columns, or take COLLECT()")
        );
    }
    Ok(())
}

/// The name of a column without AS: the last name of a path, or none.
fn implied_name(ast: &Ast) -> String {
    match ast {
        _ if names_timestamp(ast) => String::new(),
        Ast::Identifier(name) => name.value.clone(),
        Ast::CompoundIdentifier(parts) => parts.last().map(|p| p.value.clone()).unwrap_or_default(),
        Ast::Nested(inner) => implied_name(inner),
        _ => String::new(),
    }
}

fn columns_of(kind: &StepKind) -> Option<Vec<String>> {
    let items = match kind {
        StepKind::Project(items) => items,
        StepKind::Group(group) => &group.items,
    };
    items
        .iter()
        .map(|item| match item {
            Item::Named(name, _) => Some(name.clone()),
            Item::Star(_) => None,
        })
        .collect()
}

fn uses_timestamp(expr: &Expr) -> bool {
    match expr {
        Expr::Timestamp => true,
        Expr::Member(e, _) | Expr::Unary(_, e) | Expr::IsNull(e) | Expr::Cast(e, ..) => uses_timestamp(e),
        Expr::Binary(_, a, b) | Expr::Like(a, b, _) => uses_timestamp(a) || uses_timestamp(b),
        Expr::In(e, list) => uses_timestamp(e) || list.iter().any(uses_timestamp),
        Expr::Case(branches, otherwise) => {
            branches.iter().any(|(c, r)| uses_timestamp(c) || uses_timestamp(r))
                || otherwise.as_deref().is_some_and(uses_timestamp)
        }
        Expr::Call(_, args) | Expr::DateCall(_, _, args) => args.iter().any(uses_timestamp),
        _ => false,
    }
}
