//! Scalar expressions.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, CastKind, CeilFloorKind, DataType, DateTimeField, Expr as Ast,
    Function as Call, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, InTarget, Spanned, UnaryOperator, Value,
    WindowType,
};

use super::{
    Function, Unit, aggregates,
    error::{Position, QueryError},
    functions::{self, Signature},
    plan::{Aggregate, BinaryOp, Expr, Literal, Type, UnaryOp},
    scope::{Fields, Scope, is_timestamp},
    windows,
};

/// Where in a SELECT an expression stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// WHERE, GROUP BY, a projection without groups, the argument of an aggregate.
    Row,
    /// HAVING or the projection of groups.
    Group,
}

/// Turns the expressions of one SELECT into typed ones.
pub(crate) struct Lowering<'a> {
    pub(crate) fields: &'a mut Fields,
    pub(crate) scope: &'a Scope,
    pub(crate) place: Place,
    pub(crate) keys: Vec<Expr>,
    pub(crate) aggregates: Vec<Aggregate>,
}

impl Lowering<'_> {
    /// A condition: WHERE, HAVING, WHEN.
    pub(crate) fn condition(&mut self, ast: &Ast, at: Position) -> Result<Expr, QueryError> {
        let expr = self.expr(ast, at)?;
        if matches!(expr, Expr::Literal(_)) || is_arithmetic(&expr) {
            return Err(QueryError::new(Position::of(ast.span(), at), "a condition is needed here, not a value")
                .hint("compare it: x = 1"));
        }
        Ok(expr)
    }

    /// A value: a column of the projection, a key.
    pub(crate) fn value(&mut self, ast: &Ast, at: Position) -> Result<Expr, QueryError> {
        let expr = self.expr(ast, at)?;
        if is_condition(&expr) {
            return Err(QueryError::new(Position::of(ast.span(), at), "a condition is not a value")
                .hint("CASE WHEN … THEN 1 ELSE 0 END"));
        }
        Ok(expr)
    }

    pub(crate) fn expr(&mut self, ast: &Ast, at: Position) -> Result<Expr, QueryError> {
        let at = Position::of(ast.span(), at);
        if self.place == Place::Group
            && let Some(key) = self.key(ast, at)
        {
            return Ok(Expr::Key(key));
        }
        match ast {
            Ast::Nested(inner) => self.expr(inner, at),
            Ast::Value(value) => literal(&value.value, at).map(Expr::Literal),
            Ast::Identifier(name) => self.name(std::slice::from_ref(name), at),
            Ast::CompoundIdentifier(parts) => self.name(parts, at),
            Ast::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain, at),
            Ast::UnaryOp { op, expr } => self.unary(*op, expr, at),
            Ast::BinaryOp { left, op, right } => self.binary(left, op, right, at),
            Ast::IsNull(e) => Ok(Expr::IsNull(Box::new(self.expr(e, at)?))),
            Ast::IsNotNull(e) => Ok(not(Expr::IsNull(Box::new(self.expr(e, at)?)))),
            Ast::In { expr, target: InTarget::List(list), negated, .. } => self.list(expr, list, *negated, at),
            Ast::Between { expr, negated, low, high } => self.between(expr, low, high, *negated, at),
            Ast::Like { negated, any: false, expr, pattern, escape_char } => {
                self.like(expr, pattern, escape_char.as_deref(), *negated, at)
            }
            Ast::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref(), at)
            }
            Ast::Cast { kind, expr, data_type, format: None } => self.cast(kind, expr, data_type, at),
            Ast::Ceil { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                self.call_of(Function::Ceiling, &[expr], at)
            }
            Ast::Floor { expr, field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) } => {
                self.call_of(Function::Floor, &[expr], at)
            }
            Ast::Substring { expr, substring_from: Some(from), substring_for: Some(count), special: true, .. } => {
                self.call_of(Function::Substring, &[expr, from, count], at)
            }
            Ast::Trim { trim_where: None, trim_what: None, expr, trim_characters: None } => {
                self.call_of(Function::Trim, &[expr], at)
            }
            Ast::Function(call) => self.function(call, at),
            other => Err(refused(other, at)),
        }
    }

    /// The key of GROUP BY that the expression is.
    fn key(&mut self, ast: &Ast, at: Position) -> Option<usize> {
        self.place = Place::Row;
        let found = self.expr(ast, at);
        self.place = Place::Group;
        let found = found.ok()?;
        self.keys.iter().position(|k| *k == found)
    }

    fn name(&mut self, parts: &[Ident], at: Position) -> Result<Expr, QueryError> {
        if let [word] = parts
            && word.quote_style.is_none()
            && ["TRUE", "FALSE"].iter().any(|w| word.value.eq_ignore_ascii_case(w))
        {
            return Err(no_truth(at));
        }
        let resolved = self.scope.resolve(self.fields, parts, at)?;
        if self.place == Place::Group && resolved != Expr::Timestamp {
            let name = parts.iter().map(|p| p.value.as_str()).collect::<Vec<_>>().join(".");
            return Err(QueryError::new(at, format!("column {name} is neither in GROUP BY nor in an aggregate"))
                .hint("add it to GROUP BY, or take MIN, MAX or TOPONE of it"));
        }
        Ok(resolved)
    }

    fn access(&mut self, root: &Ast, chain: &[AccessExpr], at: Position) -> Result<Expr, QueryError> {
        if let (Ast::Function(call), [AccessExpr::Dot(Ast::Identifier(field))]) = (root, chain)
            && function_name(call) == "SYSTEM.WINDOW"
        {
            return self.window_id(&field.value, at);
        }
        if let (
            Ast::Identifier(system),
            [AccessExpr::Dot(Ast::Function(call)), AccessExpr::Dot(Ast::Identifier(field))],
        ) = (root, chain)
            && system.value.eq_ignore_ascii_case("System")
            && function_name(call) == "WINDOW"
        {
            return self.window_id(&field.value, at);
        }
        let mut expr = self.expr(root, at)?;
        for access in chain {
            match access {
                AccessExpr::Dot(Ast::Identifier(field)) => expr = Expr::Member(Box::new(expr), field.value.clone()),
                AccessExpr::Dot(_) => return Err(QueryError::new(at, "a field is accessed by its name")),
                AccessExpr::Subscript(_) => {
                    return Err(
                        QueryError::new(at, "brackets do not index an array").hint("GetArrayElement(array, index)")
                    );
                }
            }
        }
        Ok(expr)
    }

    fn window_id(&self, field: &str, at: Position) -> Result<Expr, QueryError> {
        if !field.eq_ignore_ascii_case("Id") {
            return Err(QueryError::new(at, format!("a window has no {field}"))
                .hint("System.Window().Id; System.Timestamp() is its end"));
        }
        if self.place != Place::Group {
            return Err(QueryError::new(at, "System.Window() needs GROUP BY with a window"));
        }
        Ok(Expr::WindowId)
    }

    fn unary(&mut self, op: UnaryOperator, operand: &Ast, at: Position) -> Result<Expr, QueryError> {
        let op = match op {
            UnaryOperator::Plus => return self.expr(operand, at),
            UnaryOperator::Not => return Ok(not(self.condition(operand, at)?)),
            UnaryOperator::Minus => {
                if let Some(n) = windows::integer(operand).and_then(i64::checked_neg) {
                    return Ok(Expr::Literal(Literal::BigInt(n)));
                }
                if is_least(operand) {
                    return Ok(Expr::Literal(Literal::BigInt(i64::MIN)));
                }
                UnaryOp::Negate
            }
            UnaryOperator::BitwiseNot => UnaryOp::BitNot,
            other => return Err(QueryError::new(at, format!("the operator {other} is not supported"))),
        };
        let operand = self.expr(operand, at)?;
        number_or_unknown(&operand, at)?;
        Ok(Expr::Unary(op, Box::new(operand)))
    }

    fn binary(&mut self, left: &Ast, op: &BinaryOperator, right: &Ast, at: Position) -> Result<Expr, QueryError> {
        let op = operator(op).ok_or_else(|| unknown_operator(op, at))?;
        let logical = matches!(op, BinaryOp::And | BinaryOp::Or);
        let (l, r) = if logical {
            (self.condition(left, at)?, self.condition(right, at)?)
        } else {
            (self.value(left, at)?, self.value(right, at)?)
        };
        if is_arithmetic_op(op) && op != BinaryOp::Add {
            number_or_unknown(&l, Position::of(left.span(), at))?;
            number_or_unknown(&r, Position::of(right.span(), at))?;
        }
        if op == BinaryOp::Divide && matches!(r, Expr::Literal(Literal::BigInt(0))) {
            return Err(QueryError::new(Position::of(right.span(), at), "division by zero"));
        }
        Ok(Expr::Binary(op, Box::new(l), Box::new(r)))
    }

    fn list(&mut self, expr: &Ast, list: &[Ast], negated: bool, at: Position) -> Result<Expr, QueryError> {
        let expr = self.value(expr, at)?;
        let list = list.iter().map(|e| self.value(e, at)).collect::<Result<_, _>>()?;
        Ok(negate_if(negated, Expr::In(Box::new(expr), list)))
    }

    fn between(&mut self, expr: &Ast, low: &Ast, high: &Ast, negated: bool, at: Position) -> Result<Expr, QueryError> {
        let value = self.value(expr, at)?;
        let low = self.value(low, at)?;
        let high = self.value(high, at)?;
        let from = Expr::Binary(BinaryOp::GreaterEqual, Box::new(value.clone()), Box::new(low));
        let to = Expr::Binary(BinaryOp::LessEqual, Box::new(value), Box::new(high));
        Ok(negate_if(negated, Expr::Binary(BinaryOp::And, Box::new(from), Box::new(to))))
    }

    fn like(
        &mut self,
        expr: &Ast,
        pattern: &Ast,
        escape: Option<&Ast>,
        negated: bool,
        at: Position,
    ) -> Result<Expr, QueryError> {
        let escape = match escape {
            None => None,
            Some(ast) => {
                let here = Position::of(ast.span(), at);
                let text = windows::text(ast).unwrap_or_default();
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(c), None) => Some(c),
                    _ => return Err(QueryError::new(here, "ESCAPE takes one character").hint("LIKE '50!%' ESCAPE '!'")),
                }
            }
        };
        let value = self.value(expr, at)?;
        let pattern = self.value(pattern, at)?;
        Ok(negate_if(negated, Expr::Like(Box::new(value), Box::new(pattern), escape)))
    }

    fn case(
        &mut self,
        operand: Option<&Ast>,
        whens: &[CaseWhen],
        otherwise: Option<&Ast>,
        at: Position,
    ) -> Result<Expr, QueryError> {
        let operand = operand.map(|o| self.value(o, at)).transpose()?;
        let mut branches = Vec::new();
        for when in whens {
            let condition = match &operand {
                Some(operand) => {
                    let value = self.value(&when.condition, at)?;
                    Expr::Binary(BinaryOp::Equal, Box::new(operand.clone()), Box::new(value))
                }
                None => self.condition(&when.condition, at)?,
            };
            branches.push((condition, self.value(&when.result, at)?));
        }
        let otherwise = otherwise.map(|o| self.value(o, at)).transpose()?;
        Ok(Expr::Case(branches, otherwise.map(Box::new)))
    }

    fn cast(&mut self, kind: &CastKind, expr: &Ast, to: &DataType, at: Position) -> Result<Expr, QueryError> {
        let safe = match kind {
            CastKind::Cast => false,
            CastKind::TryCast => true,
            CastKind::SafeCast | CastKind::DoubleColon => {
                return Err(QueryError::new(at, "this form of a cast is not supported")
                    .hint("CAST(x AS type) or TRY_CAST(x AS type)"));
            }
        };
        let to = data_type(to, at)?;
        Ok(Expr::Cast(Box::new(self.value(expr, at)?), to, safe))
    }

    pub(crate) fn call_of(&mut self, function: Function, args: &[&Ast], at: Position) -> Result<Expr, QueryError> {
        let args = args.iter().map(|a| self.value(a, at)).collect::<Result<_, _>>()?;
        Ok(Expr::Call(function, args))
    }

    fn function(&mut self, call: &Call, at: Position) -> Result<Expr, QueryError> {
        let name = function_name(call);
        match name.as_str() {
            "SYSTEM.TIMESTAMP" => {
                return if arguments(call, at)?.is_empty() {
                    Ok(Expr::Timestamp)
                } else {
                    Err(QueryError::new(at, "System.Timestamp() takes no arguments"))
                };
            }
            "SYSTEM.WINDOW" => return Err(QueryError::new(at, "a window is not a value").hint("System.Window().Id")),
            _ => {}
        }
        if aggregates::is_aggregate(&name) {
            return aggregates::lower(self, call, &name, at);
        }
        if windows::is_window(&name) || name == "WINDOW" {
            return Err(QueryError::new(at, format!("{name} belongs into GROUP BY")));
        }
        match functions::find(&name) {
            Some(signature) => self.scalar(signature, call, at),
            None => Err(unknown_function(&name, at)),
        }
    }

    fn scalar(&mut self, signature: &Signature, call: &Call, at: Position) -> Result<Expr, QueryError> {
        if call.over.is_some() {
            return Err(QueryError::new(at, format!("{} takes no OVER", signature.name)));
        }
        let args = arguments(call, at)?;
        if args.len() < signature.least || args.len() > signature.most {
            let count = if signature.least == signature.most {
                signature.least.to_string()
            } else {
                format!("{} to {}", signature.least, signature.most)
            };
            return Err(QueryError::new(at, format!("{} takes {count} arguments, not {}", signature.name, args.len())));
        }
        if !signature.dated {
            return self.call_of(signature.function, &args, at);
        }
        let unit = unit(signature, args[0], at)?;
        let mut rest = Vec::new();
        for arg in &args[1..] {
            rest.push(self.value(arg, at)?);
        }
        Ok(Expr::DateCall(signature.function, unit, rest))
    }

    /// The keys of `SESSIONWINDOW(…) OVER (PARTITION BY …)`.
    pub(crate) fn session_partition(&mut self, call: &Call, at: Position) -> Result<Vec<Expr>, QueryError> {
        let Some(over) = &call.over else { return Ok(Vec::new()) };
        let hint = "OVER (PARTITION BY k)";
        let WindowType::WindowSpec(spec) = over else {
            return Err(QueryError::new(at, "a session has no named window").hint(hint));
        };
        if !spec.order_by.is_empty() || spec.window_frame.is_some() || spec.partition_by.is_empty() {
            return Err(QueryError::new(at, "a session takes a partition only").hint(hint));
        }
        spec.partition_by.iter().map(|e| self.value(e, at)).collect()
    }
}

fn unit(signature: &Signature, arg: &Ast, at: Position) -> Result<Unit, QueryError> {
    let here = Position::of(arg.span(), at);
    let word = match arg {
        Ast::Identifier(word) if word.quote_style.is_none() => &word.value,
        _ => {
            return Err(QueryError::new(here, format!("the first argument of {} is a part of a date", signature.name))
                .hint("year, month, day, hour …"));
        }
    };
    Unit::parse(word).ok_or_else(|| {
        QueryError::new(here, format!("{word} is no part of a date")).hint(
            "year, quarter, month, dayofyear, day, week, weekday, hour, minute, second, millisecond or microsecond",
        )
    })
}

/// A function's name in upper case, with dots.
pub(crate) fn function_name(call: &Call) -> String {
    let parts: Vec<&str> = call.name.0.iter().map(|p| p.as_ident().map_or("", |i| i.value.as_str())).collect();
    parts.join(".").to_ascii_uppercase()
}

/// A function's arguments; `*` and names are refused.
pub(crate) fn arguments(call: &Call, at: Position) -> Result<Vec<&Ast>, QueryError> {
    let list = match &call.args {
        FunctionArguments::None => return Ok(Vec::new()),
        FunctionArguments::Subquery(_) => {
            return Err(
                QueryError::new(at, "a query inside a function is not supported").hint("make it a step of WITH")
            );
        }
        FunctionArguments::List(list) => list,
    };
    if let Some(treatment) = list.duplicate_treatment {
        return Err(QueryError::new(at, format!("{treatment} is not supported in {}", function_name(call))));
    }
    if !list.clauses.is_empty()
        || call.filter.is_some()
        || !call.within_group.is_empty()
        || call.null_treatment.is_some()
    {
        return Err(QueryError::new(at, format!("{} takes arguments only", function_name(call))));
    }
    list.args.iter().map(|a| argument(a, at)).collect()
}

pub(crate) fn argument(arg: &FunctionArg, at: Position) -> Result<&Ast, QueryError> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Ok(e),
        FunctionArg::Unnamed(_) => Err(QueryError::new(at, "* is an argument of COUNT only")),
        _ => Err(QueryError::new(at, "arguments have no names")),
    }
}

fn unknown_function(name: &str, at: Position) -> QueryError {
    if name.starts_with("UDF.") || name.starts_with("UDA.") {
        return QueryError::new(at, format!("{name}: functions of one's own are not supported"))
            .hint("use a handler in an IngestPipeline");
    }
    if let Some(hint) = functions::refused(name) {
        return QueryError::new(at, format!("{name} is not supported")).hint(hint);
    }
    let error = QueryError::new(at, format!("unknown function {name}"));
    match functions::nearest(name, aggregates::NAMES) {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error,
    }
}

fn literal(value: &Value, at: Position) -> Result<Literal, QueryError> {
    match value {
        Value::Number(digits, _) => {
            number(digits).ok_or_else(|| QueryError::new(at, format!("{digits} is out of range")))
        }
        Value::SingleQuotedString(text) | Value::NationalStringLiteral(text) => Ok(Literal::Text(text.clone())),
        Value::Null => Ok(Literal::Null),
        Value::Boolean(_) => Err(no_truth(at)),
        Value::DoubleQuotedString(text) => {
            Err(QueryError::new(at, "double quotes are for names").hint(format!("'{text}'")))
        }
        other => Err(QueryError::new(at, format!("the literal {other} is not supported"))),
    }
}

fn no_truth(at: Position) -> QueryError {
    QueryError::new(at, "there is no TRUE or FALSE").hint("CAST(1 AS bit); a column of that name stands in brackets")
}

fn number(digits: &str) -> Option<Literal> {
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return digits.parse().ok().map(Literal::BigInt);
    }
    digits.parse::<f64>().ok().filter(|f| f.is_finite()).map(Literal::Float)
}

/// `9223372036854775808`, which exists only with a minus before it.
fn is_least(ast: &Ast) -> bool {
    matches!(ast, Ast::Value(v) if matches!(&v.value, Value::Number(n, _) if n == "9223372036854775808"))
}

fn data_type(to: &DataType, at: Position) -> Result<Type, QueryError> {
    let text = to.to_string().to_ascii_uppercase();
    match text.as_str() {
        "BIGINT" => Ok(Type::BigInt),
        "FLOAT" => Ok(Type::Float),
        "DATETIME" => Ok(Type::DateTime),
        "BIT" => Ok(Type::Bit),
        "NVARCHAR" | "NVARCHAR(MAX)" => Ok(Type::NVarChar),
        other => {
            let near = match other.split('(').next().unwrap_or_default() {
                "INT" | "INTEGER" | "SMALLINT" | "TINYINT" => "bigint",
                "REAL" | "DOUBLE" | "DOUBLE PRECISION" | "DECIMAL" | "NUMERIC" => "float",
                "VARCHAR" | "CHAR" | "NCHAR" | "TEXT" | "STRING" | "NVARCHAR" => "nvarchar(max)",
                "DATE" | "TIME" | "TIMESTAMP" | "DATETIME2" => "datetime",
                "BOOLEAN" | "BOOL" => "bit",
                _ => "bigint, float, nvarchar(max), datetime or bit",
            };
            Err(QueryError::new(at, format!("values cannot be cast to {other}")).hint(near))
        }
    }
}

fn operator(op: &BinaryOperator) -> Option<BinaryOp> {
    Some(match op {
        BinaryOperator::Plus => BinaryOp::Add,
        BinaryOperator::Minus => BinaryOp::Subtract,
        BinaryOperator::Multiply => BinaryOp::Multiply,
        BinaryOperator::Divide => BinaryOp::Divide,
        BinaryOperator::Modulo => BinaryOp::Modulo,
        BinaryOperator::BitwiseAnd => BinaryOp::BitAnd,
        BinaryOperator::BitwiseOr => BinaryOp::BitOr,
        BinaryOperator::BitwiseXor => BinaryOp::BitXor,
        BinaryOperator::Eq => BinaryOp::Equal,
        BinaryOperator::NotEq => BinaryOp::NotEqual,
        BinaryOperator::Lt => BinaryOp::Less,
        BinaryOperator::LtEq => BinaryOp::LessEqual,
        BinaryOperator::Gt => BinaryOp::Greater,
        BinaryOperator::GtEq => BinaryOp::GreaterEqual,
        BinaryOperator::And => BinaryOp::And,
        BinaryOperator::Or => BinaryOp::Or,
        _ => return None,
    })
}

fn unknown_operator(op: &BinaryOperator, at: Position) -> QueryError {
    let error = QueryError::new(at, format!("the operator {op} is not supported"));
    match op {
        BinaryOperator::StringConcat => error.hint("CONCAT(a, b), or a + b"),
        _ => error,
    }
}

/// What is in the parser's grammar and not in this language.
fn refused(ast: &Ast, at: Position) -> QueryError {
    let (what, hint) = match ast {
        Ast::Subquery(_) | Ast::Exists { .. } | Ast::In { .. } => {
            ("a query inside an expression", "make it a step of WITH")
        }
        Ast::Extract { .. } => ("EXTRACT", "DATEPART(part, date)"),
        Ast::Position { .. } => ("POSITION", "CHARINDEX(part, text)"),
        Ast::Convert { .. } => ("CONVERT", "CAST(x AS type)"),
        Ast::AtTimeZone { .. } => ("AT TIME ZONE", "times are UTC; DATEADD moves them"),
        Ast::Interval(_) => ("INTERVAL", "DATEADD(unit, n, date)"),
        Ast::TypedString(_) => ("a typed text", "CAST('…' AS datetime)"),
        Ast::Collate { .. } => ("COLLATE", "text is compared by code point"),
        Ast::ILike { .. } | Ast::SimilarTo { .. } | Ast::RLike { .. } => {
            ("this operator", "LIKE, or REGEXMATCH(text, pattern) = 1")
        }
        Ast::Array(_) => ("an array literal", "COLLECT() makes arrays"),
        Ast::Substring { .. } => ("this form of SUBSTRING", "SUBSTRING(text, start, length)"),
        Ast::Trim { .. } => ("this form of TRIM", "TRIM(text)"),
        Ast::IsTrue(_) | Ast::IsFalse(_) | Ast::IsNotTrue(_) | Ast::IsNotFalse(_) => ("IS TRUE", "x = CAST(1 AS bit)"),
        Ast::Rollup(_) | Ast::Cube(_) | Ast::GroupingSets(_) => (
            "ROLLUP, CUBE and GROUPING SETS",
            "Windows(…) makes sets of windows; write several SELECTs for sets of keys",
        ),
        _ => ("this expression", "see the page on the query language"),
    };
    QueryError::new(at, format!("{what} is not supported")).hint(hint)
}

fn number_or_unknown(expr: &Expr, at: Position) -> Result<(), QueryError> {
    match expr {
        Expr::Literal(Literal::Text(text)) => {
            Err(QueryError::new(at, format!("'{text}' is text where a number is needed")).hint("CAST(x AS float)"))
        }
        _ => Ok(()),
    }
}

fn is_arithmetic_op(op: BinaryOp) -> bool {
    use BinaryOp::{Add, BitAnd, BitOr, BitXor, Divide, Modulo, Multiply, Subtract};
    matches!(op, Add | Subtract | Multiply | Divide | Modulo | BitAnd | BitOr | BitXor)
}

fn is_arithmetic(expr: &Expr) -> bool {
    matches!(expr, Expr::Binary(op, ..) if is_arithmetic_op(*op)) || matches!(expr, Expr::Timestamp)
}

fn is_condition(expr: &Expr) -> bool {
    match expr {
        Expr::Binary(op, ..) => !is_arithmetic_op(*op),
        Expr::Unary(op, _) => *op == UnaryOp::Not,
        Expr::IsNull(_) | Expr::In(..) | Expr::Like(..) => true,
        _ => false,
    }
}

fn not(expr: Expr) -> Expr {
    Expr::Unary(UnaryOp::Not, Box::new(expr))
}

fn negate_if(negated: bool, expr: Expr) -> Expr {
    if negated { not(expr) } else { expr }
}

/// Whether an expression is `System.Timestamp`, with or without parentheses.
pub(crate) fn names_timestamp(ast: &Ast) -> bool {
    match ast {
        Ast::CompoundIdentifier(parts) => is_timestamp(&parts.iter().map(|p| p.value.clone()).collect::<Vec<_>>()),
        Ast::Function(call) => function_name(call) == "SYSTEM.TIMESTAMP",
        _ => false,
    }
}
