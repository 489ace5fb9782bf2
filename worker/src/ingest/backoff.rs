//! How long to wait before the next try. Pure but for a seed that differs between processes.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(5);

/// Waits that double from 0.1 s to 5 s, each up to a quarter shorter so that many workers do not come at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    random: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST, random: RandomState::new().hash_one(0_u8) | 1 }
    }
}

impl Backoff {
    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let wait = self.next;
        self.next = (self.next * 2).min(LAST);
        wait / 4 * 3 + wait / 4 * u32::try_from(self.random % 1000).unwrap_or(0) / 1000
    }

    /// It went well.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_five_seconds_and_begin_anew() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..10).map(|_| backoff.next()).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST * 3 / 4);
        assert!(waits[9] <= LAST && waits[9] >= LAST * 3 / 4);
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }
}
