//! A sum of floats that is exact, so that it does not depend on the order or the grouping of its terms.
//!
//! Every finite float is a whole multiple of 2^-1074. The sum is kept as a number in base 2^32 with only its touched digits
//! stored; digits are signed and wide enough to take 2^30 additions before carries are settled.

use super::key;

const DIGIT_BITS: i32 = 32;
/// Exponent of the smallest positive float.
const LOWEST: i32 = -1074;
/// Additions between two settlings of carries.
const MAX_PENDING: u32 = 1 << 30;

/// An exact sum.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ExactSum {
    /// Index and digit, by index.
    digits: Vec<(u8, i64)>,
    pending: u32,
}

impl ExactSum {
    /// Adds a finite float.
    pub(crate) fn add(&mut self, value: f64) {
        let bits = value.to_bits();
        let exponent = i32::try_from(bits >> 52 & 0x7ff).unwrap_or(0);
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, exponent) =
            if exponent == 0 { (fraction, LOWEST) } else { (fraction | 1 << 52, exponent - 1075) };
        self.add_shifted(i128::from(mantissa), exponent, value.is_sign_negative());
    }

    /// Adds an integer.
    pub(crate) fn add_integer(&mut self, value: i128) {
        let magnitude = value.unsigned_abs();
        for part in 0..4 {
            let digit = i128::try_from(magnitude >> (32 * part) & 0xffff_ffff).unwrap_or(0);
            self.add_shifted(digit, 32 * part, value < 0);
        }
    }

    /// Adds ±mantissa·2^exponent, mantissa below 2^64.
    fn add_shifted(&mut self, mantissa: i128, exponent: i32, negative: bool) {
        if mantissa == 0 {
            return;
        }
        let shift = exponent - LOWEST;
        let first = shift / DIGIT_BITS;
        let mut rest = mantissa << (shift % DIGIT_BITS);
        let mut index = u8::try_from(first).expect("a float has 2,098 bits above the lowest, 66 digits");
        while rest != 0 {
            let digit = i64::try_from(rest & 0xffff_ffff).expect("32 bits");
            if digit != 0 {
                self.add_digit(index, if negative { -digit } else { digit });
            }
            rest >>= DIGIT_BITS;
            index += 1;
        }
        self.pending += 1;
        if self.pending >= MAX_PENDING {
            self.settle();
        }
    }

    fn add_digit(&mut self, index: u8, digit: i64) {
        match self.digits.binary_search_by_key(&index, |d| d.0) {
            Ok(at) => self.digits[at].1 += digit,
            Err(at) => self.digits.insert(at, (index, digit)),
        }
    }

    /// Adds another sum.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mut other = other.clone();
        other.settle();
        self.settle();
        for (index, digit) in other.digits {
            self.add_digit(index, digit);
        }
        self.settle();
    }

    /// Settles carries: digits in ±2^31, zeros left out. One number has one such form.
    pub(crate) fn settle(&mut self) {
        let mut settled: Vec<(u8, i64)> = Vec::with_capacity(self.digits.len() + 1);
        let mut carry = 0_i64;
        let mut index = 0_u8;
        let mut digits = self.digits.iter().peekable();
        while carry != 0 || digits.peek().is_some() {
            if carry == 0 {
                index = digits.peek().map_or(index, |d| d.0);
            }
            let own = digits.next_if(|d| d.0 == index).map_or(0, |d| d.1);
            let sum = own + carry;
            let low = (sum + (1 << 31)).rem_euclid(1 << 32) - (1 << 31);
            carry = (sum - low) >> 32;
            if low != 0 {
                settled.push((index, low));
            }
            index = index.saturating_add(1);
        }
        self.digits = settled;
        self.pending = 0;
    }

    /// The sum as a float and the rest as a second float: together about 106 bits. Infinite where it is out of range.
    pub(crate) fn split(&self) -> (f64, f64) {
        let high = self.round();
        if !high.is_finite() || high == 0.0 {
            return (high, 0.0);
        }
        let mut rest = self.clone();
        rest.add(-high);
        (high, rest.round())
    }

    /// The sum, rounded to the nearest float, ties to even.
    pub(crate) fn round(&self) -> f64 {
        let mut settled = self.clone();
        settled.settle();
        let Some(&(_, top)) = settled.digits.last() else { return 0.0 };
        let negative = top < 0;
        if negative {
            for digit in &mut settled.digits {
                digit.1 = -digit.1;
            }
        }
        let magnitude = settled.magnitude();
        if negative { -magnitude } else { magnitude }
    }

    /// Rounds a settled sum whose top digit is positive.
    fn magnitude(&self) -> f64 {
        let plain = self.unsigned();
        let Some(&(top, _)) = plain.last() else { return 0.0 };
        // The top three digits hold at least 65 bits; below them only whether anything is left matters.
        let digit = |index: i32| {
            u8::try_from(index).ok().and_then(|i| plain.iter().find(|d| d.0 == i)).map_or(0, |d| u128::from(d.1))
        };
        let top = i32::from(top);
        let mut head = digit(top) << 64 | digit(top - 1) << 32 | digit(top - 2);
        let sticky = plain.iter().any(|d| i32::from(d.0) < top - 2);
        let mut exponent = (top - 2) * DIGIT_BITS + LOWEST;
        // Below the lowest digit there is nothing: move the head down to where it has bits.
        while exponent < LOWEST {
            head >>= DIGIT_BITS;
            exponent += DIGIT_BITS;
        }
        round_head(head, sticky, exponent)
    }

    /// Digits from 0 to 2^32, by index.
    fn unsigned(&self) -> Vec<(u8, u32)> {
        let mut out = Vec::with_capacity(self.digits.len() + 1);
        let mut borrow = 0_i64;
        let mut index = 0_u8;
        let mut digits = self.digits.iter().peekable();
        while digits.peek().is_some() {
            if borrow == 0 {
                index = digits.peek().map_or(index, |d| d.0);
            }
            let sum = digits.next_if(|d| d.0 == index).map_or(0, |d| d.1) + borrow;
            let low = sum.rem_euclid(1 << 32);
            borrow = (sum - low) >> 32;
            if low != 0 {
                out.push((index, u32::try_from(low).expect("below 2^32")));
            }
            index = index.saturating_add(1);
        }
        out
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut settled = self.clone();
        settled.settle();
        key::length(settled.digits.len(), out);
        for (index, digit) in settled.digits {
            out.push(index);
            out.extend_from_slice(&digit.to_le_bytes());
        }
    }

    pub(crate) fn decode(reader: &mut key::Reader<'_>) -> Option<Self> {
        let n = reader.length()?;
        let digits = (0..n).map(|_| Some((reader.byte()?, reader.i64()?))).collect::<Option<Vec<_>>>()?;
        let sorted =
            digits.windows(2).all(|w| w[0].0 < w[1].0) && digits.iter().all(|d| d.0 < 80 && d.1.abs() <= 1 << 32);
        sorted.then_some(Self { digits, pending: 0 })
    }
}

/// head·2^exponent, with more below it if `sticky`, rounded to the nearest float.
fn round_head(head: u128, sticky: bool, exponent: i32) -> f64 {
    let bits = 128 - i32::try_from(head.leading_zeros()).unwrap_or(0);
    // 53 bits stay, fewer where the float is denormal.
    let drop = (bits - 53).max(LOWEST - exponent).max(0);
    if drop >= 128 {
        return 0.0;
    }
    let kept = head >> drop;
    let lost = head & ((1_u128 << drop) - 1);
    let half = if drop == 0 { 0 } else { 1_u128 << (drop - 1) };
    let up = drop > 0 && (lost > half || lost == half && (sticky || kept & 1 == 1));
    let mantissa = u64::try_from(kept).unwrap_or(u64::MAX) + u64::from(up);
    scale(mantissa, exponent + drop)
}

/// mantissa·2^exponent, exactly: the mantissa has at most 53 bits, or is 2^53.
fn scale(mantissa: u64, exponent: i32) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "at most 53 bits, or a power of two")]
    let mut value = mantissa as f64;
    let mut exponent = exponent;
    while exponent > 0 {
        let step = exponent.min(1000);
        value *= 2.0_f64.powi(step);
        exponent -= step;
    }
    while exponent < 0 {
        let step = exponent.max(-1000);
        value *= 2.0_f64.powi(step);
        exponent -= step;
    }
    value
}
