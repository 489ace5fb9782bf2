//! Looks at letters, and leaves depth and order as they were.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use super::{
    DeadError, DeadLetters, Letter, Selection, letter,
    scan::{Scan, WINDOW},
};

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Look {
    /// Letters in the queue.
    pub depth: u64,
    /// Letters that were looked at.
    pub looked: u64,
    /// How many of those that match have which reason.
    pub reasons: BTreeMap<String, u64>,
    /// Those that match, as many as were asked for.
    pub letters: Vec<Letter>,
}

/// Looks at the first `bound` letters; of those that match, the first `skip` are left out and then `limit` told.
///
/// # Errors
/// If the queue cannot be read.
pub async fn look(
    letters: &DeadLetters,
    selection: &Selection,
    (skip, limit): (u64, usize),
    bound: u64,
    now: Timestamp,
) -> Result<Look, DeadError> {
    let mut scan = Scan::open(letters, WINDOW).await?;
    let mut seen = Look { depth: scan.depth, ..Look::default() };
    let mut matched = 0;
    while seen.looked < bound {
        let most = usize::try_from(bound - seen.looked).unwrap_or(usize::MAX).min(usize::from(WINDOW));
        let batch = scan.batch(most).await?;
        if batch.is_empty() {
            break;
        }
        for found in &batch {
            seen.looked += 1;
            if !selection.matches(found, now) {
                continue;
            }
            matched += 1;
            *seen.reasons.entry(letter::reason(found)).or_default() += 1;
            if matched > skip && seen.letters.len() < limit {
                seen.letters.push(Letter::read(seen.looked, found));
            }
        }
    }
    scan.close().await?;
    Ok(seen)
}
