//! Decoding: a JSON event becomes the values that the query reads; the rest is skipped, not built.

use std::{fmt, sync::Arc};

use drover_crds::query::Plan;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{
    error::DataError,
    value::{Record, Value},
};

/// Most fields of a record: finding a name is linear.
const MAX_FIELDS: usize = 4_096;

/// The fields to read, as a tree.
#[derive(Debug, Default)]
struct Field {
    slot: Option<usize>,
    children: Vec<(String, Field)>,
}

/// One decoded event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The fields of the plan's paths.
    pub slots: Vec<Value>,
    /// The whole event, where the plan needs it; else NULL.
    pub whole: Value,
}

/// Reads events for one plan.
#[derive(Debug)]
pub struct Decoder {
    root: Field,
    paths: Vec<Vec<String>>,
    whole: bool,
    extra: Option<usize>,
}

impl Decoder {
    /// For a plan; with the name of a further field to read (the arrival in file mode).
    #[must_use]
    pub fn new(plan: &Plan, extra: Option<&str>) -> Self {
        let mut paths = plan.paths.clone();
        let extra = extra.map(|name| {
            let path: Vec<String> = name.split('.').map(str::to_owned).collect();
            let same =
                |p: &Vec<String>| p.len() == path.len() && p.iter().zip(&path).all(|(a, b)| a.eq_ignore_ascii_case(b));
            // The query may read it too.
            paths.iter().position(same).unwrap_or_else(|| {
                paths.push(path);
                paths.len() - 1
            })
        });
        let mut root = Field::default();
        for (slot, path) in paths.iter().enumerate() {
            root.insert(path, slot);
        }
        Self { root, paths, whole: plan.whole_event, extra }
    }

    /// The further field of an event.
    #[must_use]
    pub fn extra<'e>(&self, event: &'e Event) -> Option<&'e Value> {
        self.extra.map(|slot| &event.slots[slot])
    }

    /// Reads one object.
    ///
    /// # Errors
    /// If it is no JSON object.
    pub fn event(&self, json: &[u8]) -> Result<Event, DataError> {
        let mut event = self.empty();
        self.read(json, &mut event)?;
        Ok(event)
    }

    /// An event to read into.
    #[must_use]
    pub fn empty(&self) -> Event {
        Event { slots: vec![Value::Null; self.paths.len()], whole: Value::Null }
    }

    /// Reads one object into an event that is used again.
    ///
    /// # Errors
    /// If it is no JSON object.
    pub fn read(&self, json: &[u8], event: &mut Event) -> Result<(), DataError> {
        event.slots.fill(Value::Null);
        let mut parser = serde_json::Deserializer::from_slice(json);
        let result = if self.whole {
            AnyValue.deserialize(&mut parser).map(|value| event.whole = value)
        } else {
            self.fields(&mut event.slots).deserialize(&mut parser)
        };
        result.and_then(|()| parser.end()).map_err(|e| DataError::Decode(e.to_string()))?;
        if self.whole {
            self.fill(event)?;
        }
        Ok(())
    }

    fn fields<'s>(&self, slots: &'s mut [Value]) -> Fields<'_, 's> {
        Fields { field: &self.root, slots, top: true, exact: true }
    }

    fn fill(&self, event: &mut Event) -> Result<(), DataError> {
        if !matches!(event.whole, Value::Record(_)) {
            return Err(DataError::Decode("not a JSON object".to_owned()));
        }
        for (slot, path) in event.slots.iter_mut().zip(&self.paths) {
            *slot = event.whole.path(path).clone();
        }
        Ok(())
    }

    /// Reads the events of a message: one object, an array of objects, or objects line by line. The first error is that of the message.
    ///
    /// # Errors
    /// If anything in it is no JSON object.
    pub fn message(&self, body: &[u8]) -> Result<Vec<Event>, DataError> {
        let body = body.trim_ascii();
        if body.first() == Some(&b'[') {
            let mut parser = serde_json::Deserializer::from_slice(body);
            let events = Events(self).deserialize(&mut parser);
            return events
                .and_then(|events| parser.end().map(|()| events))
                .map_err(|e| DataError::Decode(e.to_string()));
        }
        // One object may stand on several lines, so lines are tried second.
        match self.event(body) {
            Err(error) if !body.contains(&b'\n') => Err(error),
            Err(_) => body
                .split(|b| *b == b'\n')
                .map(<[u8]>::trim_ascii)
                .filter(|l| !l.is_empty())
                .map(|l| self.event(l))
                .collect(),
            Ok(event) => Ok(vec![event]),
        }
    }
}

impl Field {
    fn insert(&mut self, path: &[String], slot: usize) {
        let Some((first, rest)) = path.split_first() else {
            self.slot = Some(slot);
            return;
        };
        let at = self.children.iter().position(|(name, _)| name.eq_ignore_ascii_case(first)).unwrap_or_else(|| {
            self.children.push((first.clone(), Self::default()));
            self.children.len() - 1
        });
        self.children[at].1.insert(rest, slot);
    }

    fn set(&self, value: Value, exact: bool, slots: &mut [Value]) {
        for (name, child) in &self.children {
            child.set(value.field(name).clone(), exact, slots);
        }
        if let Some(slot) = self.slot {
            put(&mut slots[slot], value, exact);
        }
    }
}

/// A name in another case counts only where there is none in its own.
fn put(slot: &mut Value, value: Value, exact: bool) {
    if exact || slot.is_null() {
        *slot = value;
    }
}

/// Reads an array of objects.
struct Events<'d>(&'d Decoder);

impl<'de> DeserializeSeed<'de> for Events<'_> {
    type Value = Vec<Event>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events<'_> {
    type Value = Vec<Event>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of JSON objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut events = Vec::new();
        while let Some(event) = seq.next_element_seed(OneEvent(self.0))? {
            events.push(event);
        }
        Ok(events)
    }
}

struct OneEvent<'d>(&'d Decoder);

impl<'de> DeserializeSeed<'de> for OneEvent<'_> {
    type Value = Event;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Event, D::Error> {
        let mut event = self.0.empty();
        if self.0.whole {
            event.whole = AnyValue.deserialize(deserializer)?;
            self.0.fill(&mut event).map_err(serde::de::Error::custom)?;
        } else {
            self.0.fields(&mut event.slots).deserialize(deserializer)?;
        }
        Ok(event)
    }
}

/// Which child a key names, and whether in its own case.
struct Key<'f>(&'f Field);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<(usize, bool)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<(usize, bool)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let children = &self.0.children;
        let at = children.iter().position(|(own, _)| own.eq_ignore_ascii_case(name));
        Ok(at.map(|at| (at, children[at].0 == name)))
    }
}

/// Reads the fields below one field.
struct Fields<'f, 's> {
    field: &'f Field,
    slots: &'s mut [Value],
    top: bool,
    /// Whether the names that lead here are written as in the query.
    exact: bool,
}

impl<'de> DeserializeSeed<'de> for Fields<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.top { deserializer.deserialize_map(self) } else { deserializer.deserialize_any(self) }
    }
}

impl<'de> Visitor<'de> for Fields<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key_seed(Key(self.field))? {
            let Some((child, exact)) = key else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let (child, exact) = (&self.field.children[child].1, exact && self.exact);
            match child.slot {
                Some(_) => child.set(map.next_value_seed(AnyValue)?, exact, self.slots),
                None => map.next_value_seed(Fields { field: child, slots: self.slots, top: false, exact })?,
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Reads a value whole.
pub(crate) struct AnyValue;

impl<'de> DeserializeSeed<'de> for AnyValue {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bit(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::BigInt(n))
    }

    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Value, E> {
        i64::try_from(n).map(Value::BigInt).map_err(|_| E::custom(format!("{n} does not fit a bigint")))
    }

    fn visit_f64<E: serde::de::Error>(self, f: f64) -> Result<Value, E> {
        Value::float(f, "a number").map_err(E::custom)
    }

    fn visit_str<E>(self, s: &str) -> Result<Value, E> {
        Ok(Value::text(s))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(Self)? {
            values.push(value);
        }
        Ok(Value::Array(values.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields: Record = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(Self)?;
            // The last of equal names counts, as in every JSON parser.
            match fields.iter().position(|(n, _)| **n == *name) {
                Some(at) => fields[at].1 = value,
                None if fields.len() == MAX_FIELDS => {
                    return Err(serde::de::Error::custom(format!("a record of more than {MAX_FIELDS} fields")));
                }
                None => fields.push((Arc::from(name), value)),
            }
        }
        Ok(Value::Record(Arc::new(fields)))
    }
}
