//! When a message that failed in passing is tried again. Pure.

use crate::api::RetrySpec;

/// Default of `retry.attempts`.
pub const RETRY_ATTEMPTS: u16 = 5;
/// Default of `retry.initialSeconds`.
pub const RETRY_INITIAL_SECONDS: u32 = 1;
/// Default of `retry.maxSeconds`.
pub const RETRY_MAX_SECONDS: u32 = 300;

/// How often a message is tried, and after which waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Tries in all, the first among them.
    pub attempts: u16,
    /// Wait after the first try, in seconds; each further wait is twice as long.
    pub initial_seconds: u32,
    /// Longest wait, in seconds.
    pub max_seconds: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: RETRY_ATTEMPTS, initial_seconds: RETRY_INITIAL_SECONDS, max_seconds: RETRY_MAX_SECONDS }
    }
}

impl Retry {
    /// Fills in defaults. The longest wait is never shorter than the first.
    #[must_use]
    pub fn resolve(spec: Option<&RetrySpec>) -> Self {
        let spec = spec.copied().unwrap_or_default();
        let initial_seconds = spec.initial_seconds.unwrap_or(RETRY_INITIAL_SECONDS).max(1);
        Self {
            attempts: spec.attempts.unwrap_or(RETRY_ATTEMPTS).max(1),
            initial_seconds,
            max_seconds: spec.max_seconds.unwrap_or(RETRY_MAX_SECONDS).max(initial_seconds),
        }
    }

    /// All waits, in seconds, each of which has a queue of its own: with different ones in a queue a long one blocks the
    /// short ones behind it.
    #[must_use]
    pub fn steps(&self) -> Vec<u32> {
        let doubled = std::iter::successors(Some(self.initial_seconds.max(1)), |wait| wait.checked_mul(2));
        let mut steps: Vec<u32> = doubled.take_while(|wait| *wait < self.max_seconds).collect();
        steps.push(self.max_seconds);
        steps
    }

    /// The wait after so many failed tries, in seconds; none where there were enough. `at_least` is what the other side
    /// asks for; more than the longest wait is not granted.
    #[must_use]
    pub fn wait_after(&self, failed: i64, at_least: u32) -> Option<u32> {
        if failed >= i64::from(self.attempts) {
            return None;
        }
        let steps = self.steps();
        let planned = usize::try_from(failed - 1).unwrap_or(0).min(steps.len() - 1);
        let asked = steps.iter().position(|step| *step >= at_least).unwrap_or(steps.len() - 1);
        Some(steps[planned.max(asked)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = Retry::default();
        assert_eq!(retry.steps(), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        let waits: Vec<Option<u32>> = (1..=5).map(|failed| retry.wait_after(failed, 0)).collect();
        assert_eq!(waits, [Some(1), Some(2), Some(4), Some(8), None]);
        let capped = Retry { attempts: 9, initial_seconds: 5, max_seconds: 12 };
        assert_eq!(capped.steps(), [5, 10, 12]);
        assert_eq!(capped.wait_after(8, 0), Some(12));
    }

    #[test]
    fn a_longer_wait_is_granted_up_to_the_longest() {
        let retry = Retry::default();
        assert_eq!(retry.wait_after(1, 3), Some(4));
        assert_eq!(retry.wait_after(3, 1), Some(4));
        assert_eq!(retry.wait_after(1, 86_400), Some(300));
        assert_eq!(retry.wait_after(5, 1), None);
    }

    #[test]
    fn odd_numbers_still_make_sense() {
        let spec = RetrySpec { attempts: Some(1), initial_seconds: Some(60), max_seconds: Some(10) };
        let retry = Retry::resolve(Some(&spec));
        assert_eq!((retry.steps(), retry.wait_after(1, 0)), (vec![60], None));
        let most = Retry { attempts: 2, initial_seconds: u32::MAX, max_seconds: u32::MAX };
        assert_eq!(most.steps(), [u32::MAX]);
    }
}
