//! Statements without a name. The connection that a pooler gives for one transaction knows nothing of what was prepared on another, so
//! a statement goes with the types of its values and is not known afterwards.

use tokio_postgres::types::{ToSql, Type};

/// A value and its type, as the client wants them.
pub(crate) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A Rust type that is one type of SQL, and the type of arrays of it.
trait Scalar {
    const TYPE: Type;
    const ARRAY: Type;
}

impl Scalar for i32 {
    const TYPE: Type = Type::INT4;
    const ARRAY: Type = Type::INT4_ARRAY;
}

impl Scalar for i64 {
    const TYPE: Type = Type::INT8;
    const ARRAY: Type = Type::INT8_ARRAY;
}

impl Scalar for f64 {
    const TYPE: Type = Type::FLOAT8;
    const ARRAY: Type = Type::FLOAT8_ARRAY;
}

impl Scalar for String {
    const TYPE: Type = Type::TEXT;
    const ARRAY: Type = Type::TEXT_ARRAY;
}

impl Scalar for &str {
    const TYPE: Type = Type::TEXT;
    const ARRAY: Type = Type::TEXT_ARRAY;
}

impl<T: Scalar> Scalar for Option<T> {
    const TYPE: Type = T::TYPE;
    const ARRAY: Type = T::ARRAY;
}

/// A Rust type that is one type of SQL, an array or not.
trait Typed {
    const TYPE: Type;
}

impl<T: Scalar> Typed for T {
    const TYPE: Type = T::TYPE;
}

impl<T: Scalar> Typed for Vec<T> {
    const TYPE: Type = T::ARRAY;
}

impl<T: Scalar> Typed for &[T] {
    const TYPE: Type = T::ARRAY;
}

impl Typed for Option<Vec<u8>> {
    const TYPE: Type = Type::BYTEA;
}

impl Typed for Vec<&[u8]> {
    const TYPE: Type = Type::BYTEA_ARRAY;
}

/// A value whose type the server need not be asked for.
pub(crate) trait Value: Sync {
    /// The value with its type.
    fn parameter(&self) -> Parameter<'_>;
}

impl<T: Typed + ToSql + Sync> Value for T {
    fn parameter(&self) -> Parameter<'_> {
        (self, T::TYPE)
    }
}

/// The parameters of a statement without a name.
pub(crate) fn typed<'a>(values: &[&'a dyn Value]) -> Vec<Parameter<'a>> {
    values.iter().map(|value| value.parameter()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_say_their_types() {
        let (held, bytes, texts): (&[i32], Vec<&[u8]>, _) = (&[1], vec![b"k"], vec![Some(String::new())]);
        let values = typed(&[&"q", &1_i32, &Some(2_i64), &held, &texts, &bytes, &None::<Vec<u8>>]);
        let types: Vec<&str> = values.iter().map(|(_, kind)| kind.name()).collect();
        assert_eq!(types, ["text", "int4", "int8", "_int4", "_text", "_bytea", "bytea"]);
    }
}
