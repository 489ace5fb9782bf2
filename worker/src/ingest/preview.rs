//! Which messages a preview works on. It is given a copy of all that arrive: so many in a hundred are worked on, spread evenly, and the
//! others are acknowledged and left.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A share of what arrives.
#[derive(Debug)]
pub(crate) struct Sample {
    percent: u64,
    seen: AtomicU64,
}

impl Sample {
    pub(crate) fn new(percent: u32) -> Self {
        Self { percent: percent.into(), seen: AtomicU64::new(0) }
    }

    /// Whether the next message is one of them. The first is: where little arrives it tells the most.
    pub(crate) fn takes(&self) -> bool {
        let before = self.seen.fetch_add(1, Relaxed);
        (before * self.percent) % 100 < self.percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_exact_and_even_and_begins_with_the_first() {
        for (percent, wanted) in [(10, 100), (33, 330), (100, 1_000), (1, 10)] {
            let sample = Sample::new(percent);
            let taken: Vec<bool> = (0..1_000).map(|_| sample.takes()).collect();
            assert!(taken[0]);
            assert_eq!(taken.iter().filter(|t| **t).count(), wanted, "{percent}");
        }
        let sample = Sample::new(10);
        let hundred: Vec<usize> = (0..30).filter(|_| sample.takes()).collect();
        assert_eq!(hundred, [0, 10, 20]);
    }
}
