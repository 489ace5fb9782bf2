//! The stored form of partial aggregates. Its version is the caller's.

use super::{
    super::{
        exact::ExactSum,
        key::{self, Reader},
        sketch::Sketch,
    },
    Moments, Ordered, Partial, Ranked, Shape, Total,
};

impl Partial {
    /// Appends the stored form.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Count(n) => out.extend_from_slice(&n.to_le_bytes()),
            Self::Total(total) => {
                out.extend_from_slice(&total.count.to_le_bytes());
                out.extend_from_slice(&total.integers.to_le_bytes());
                out.push(u8::from(total.floats.is_some()));
                if let Some(floats) = &total.floats {
                    floats.encode(out);
                }
            }
            Self::Moments(moments) => {
                out.extend_from_slice(&moments.count.to_le_bytes());
                moments.sum.encode(out);
                moments.squares.encode(out);
            }
            Self::Extreme(value) => key::encode_exactly(value, out),
            Self::Distinct(set) => {
                key::length(set.len(), out);
                for b in set {
                    key::bytes(b, out);
                }
            }
            Self::Values(values) => {
                key::length(values.len(), out);
                for (value, n) in values {
                    key::encode_exactly(&value.0, out);
                    out.extend_from_slice(&n.to_le_bytes());
                }
            }
            Self::Ranked(list) => {
                key::length(list.len(), out);
                for ranked in list {
                    key::length(ranked.order.len(), out);
                    ranked.order.iter().for_each(|v| key::encode_exactly(v, out));
                    out.extend_from_slice(&ranked.time.to_le_bytes());
                    out.extend_from_slice(&ranked.position.to_le_bytes());
                    key::encode_exactly(&ranked.value, out);
                }
            }
            Self::Sketch(sketch) => sketch.encode(out),
        }
    }

    /// Reads the stored form.
    pub(crate) fn decode(shape: &Shape, r: &mut Reader<'_>) -> Option<Self> {
        Some(match Self::new(shape) {
            Self::Count(_) => Self::Count(r.u64()?),
            Self::Total(_) => {
                let count = r.u64()?;
                let integers = i128::from_le_bytes(r.take(16)?.try_into().ok()?);
                let floats = if r.byte()? == 0 { None } else { Some(ExactSum::decode(r)?) };
                Self::Total(Box::new(Total { count, integers, floats }))
            }
            Self::Moments(_) => Self::Moments(Box::new(Moments {
                count: r.u64()?,
                sum: ExactSum::decode(r)?,
                squares: ExactSum::decode(r)?,
            })),
            Self::Extreme(_) => Self::Extreme(r.value()?),
            Self::Distinct(_) => {
                let n = r.length()?;
                Self::Distinct((0..n).map(|_| r.bytes().map(Box::from)).collect::<Option<_>>()?)
            }
            Self::Values(_) => {
                let n = r.length()?;
                Self::Values((0..n).map(|_| Some((Ordered(r.value()?), r.u64()?))).collect::<Option<_>>()?)
            }
            Self::Ranked(_) => {
                let n = r.length()?;
                Self::Ranked((0..n).map(|_| ranked_from(r)).collect::<Option<_>>()?)
            }
            Self::Sketch(_) => Self::Sketch(Box::new(Sketch::decode(r)?)),
        })
    }
}

fn ranked_from(r: &mut Reader<'_>) -> Option<Ranked> {
    let n = r.length()?;
    let order = (0..n).map(|_| r.value()).collect::<Option<_>>()?;
    Some(Ranked { order, time: r.i64()?, position: r.u64()?, value: r.value()? })
}
