//! A `HyperLogLog` sketch of 2^12 registers: a relative error of about 1.6 %, mergeable, stored as versioned bytes.
//!
//! Flajolet et al., "`HyperLogLog`: the analysis of a near-optimal cardinality estimation algorithm" (2007), with linear counting for small numbers.

const BITS: u32 = 12;
const REGISTERS: usize = 1 << BITS;
const VERSION: u8 = 1;

/// A sketch of a set.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sketch {
    registers: Box<[u8]>,
}

impl Sketch {
    pub(crate) fn new() -> Self {
        Self { registers: vec![0; REGISTERS].into() }
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let hash = hash(bytes);
        let index = usize::try_from(hash >> (64 - BITS)).expect("12 bits");
        let rest = hash << BITS | 1 << (BITS - 1);
        let rank = u8::try_from(rest.leading_zeros() + 1).unwrap_or(u8::MAX);
        self.registers[index] = self.registers[index].max(rank);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (own, theirs) in self.registers.iter_mut().zip(other.registers.iter()) {
            *own = (*own).max(*theirs);
        }
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "an estimate, far below 2^53")]
    pub(crate) fn estimate(&self) -> i64 {
        let m = REGISTERS as f64;
        let sum: f64 = self.registers.iter().map(|r| 2.0_f64.powi(-i32::from(*r))).sum();
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let zeros = self.registers.iter().map(|r| usize::from(*r == 0)).sum::<usize>();
        let estimate = if raw <= 2.5 * m && zeros > 0 { m * (m / zeros as f64).ln() } else { raw };
        estimate.round() as i64
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.registers);
    }

    pub(crate) fn decode(reader: &mut super::key::Reader<'_>) -> Option<Self> {
        (reader.byte()? == VERSION).then_some(())?;
        Some(Self { registers: reader.take(REGISTERS)?.into() })
    }
}

/// FNV-1a, then the finisher of `SplitMix64`: fixed for ever, since sketches are stored.
fn hash(bytes: &[u8]) -> u64 {
    let mut h =
        bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3));
    h = (h ^ h >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ h >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ h >> 31
}
