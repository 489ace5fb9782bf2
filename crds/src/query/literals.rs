//! Constants, types and operators, as they are written.

use sqlparser::ast::{BinaryOperator, DataType, Expr as Ast, Value};

use super::{
    error::{Position, QueryError},
    plan::{BinaryOp, Literal, Type},
};

pub(crate) fn literal(value: &Value, at: Position) -> Result<Literal, QueryError> {
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

pub(crate) fn no_truth(at: Position) -> QueryError {
    QueryError::new(at, "there is no TRUE or FALSE").hint("CAST(1 AS bit); a column of that name stands in brackets")
}

pub(crate) fn number(digits: &str) -> Option<Literal> {
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return digits.parse().ok().map(Literal::BigInt);
    }
    digits.parse::<f64>().ok().filter(|f| f.is_finite()).map(Literal::Float)
}

/// `9223372036854775808`, which exists only with a minus before it.
pub(crate) fn is_least(ast: &Ast) -> bool {
    matches!(ast, Ast::Value(v) if matches!(&v.value, Value::Number(n, _) if n == "9223372036854775808"))
}

pub(crate) fn data_type(to: &DataType, at: Position) -> Result<Type, QueryError> {
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

pub(crate) fn operator(op: &BinaryOperator) -> Option<BinaryOp> {
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
