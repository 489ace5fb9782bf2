//! Tells a run of bad messages from a sink that refuses everybody. Pure.
//!
//! A column that becomes NOT NULL refuses every message for its content, and none of them is to blame. So when more than
//! half of the last messages, different ones, are refused alike, that is an outage: the sink is waited for, and no message
//! is dead-lettered for it.

use std::collections::{HashSet, VecDeque};

/// Messages that are looked back on.
const WINDOW: usize = 50;
/// Fewer refusals alike say nothing.
const LEAST: usize = 10;

/// What refusals have in common: the SQLSTATE and the constraint or column.
pub(crate) type Likeness = String;

/// The last messages that reached the sink, and the outage that they tell of.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    last: VecDeque<Option<Likeness>>,
    lasting: HashSet<Likeness>,
    endings: u64,
    /// Every message is taken to blame.
    never: bool,
}

impl Outage {
    /// Where outages are not `told`, every message is taken to blame: a preview costs none, and is to say what it finds.
    pub(crate) fn new(told: bool) -> Self {
        Self { never: !told, ..Self::default() }
    }

    /// Messages came to an end at the sink, in their order: taken, or refused with a likeness. Each is told once.
    pub(crate) fn record(&mut self, ends: impl IntoIterator<Item = Option<Likeness>>) {
        self.last.extend(ends);
        let surplus = self.last.len().saturating_sub(WINDOW);
        self.last.drain(..surplus);
    }

    /// Whether refusals of this likeness are nobody's fault. Once they are, they are until it is over: what others are
    /// taken for meanwhile may say that the end has come, and not that this message is to blame.
    pub(crate) fn is(&mut self, likeness: &str) -> bool {
        let alike = self.last.iter().flatten().filter(|l| *l == likeness).count();
        if !self.never && alike >= LEAST && alike * 2 > self.last.len() {
            self.lasting.insert(likeness.to_owned());
        }
        self.lasting.contains(likeness)
    }

    /// Something that was refused is taken now: it begins anew.
    pub(crate) fn over(&mut self) {
        self.last.clear();
        self.lasting.clear();
        self.endings += 1;
    }

    /// Nobody is left who waits for the end.
    pub(crate) fn abandoned(&mut self) {
        self.lasting.clear();
    }

    /// Outages that are over. What was refused before the last one's end may be taken now.
    pub(crate) fn endings(&self) -> u64 {
        self.endings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ends: &[(usize, Option<&str>)]) -> Outage {
        let mut outage = Outage::default();
        for (count, end) in ends {
            outage.record(std::iter::repeat_n(end.map(str::to_owned), *count));
        }
        outage
    }

    #[test]
    fn many_refusals_alike_are_an_outage() {
        assert!(after(&[(10, Some("23502 a"))]).is("23502 a"));
        assert!(after(&[(200, None), (26, Some("23502 a"))]).is("23502 a"));
    }

    #[test]
    fn a_preview_tells_of_none() {
        let mut outage = Outage::new(false);
        outage.record(vec![Some("23502 a".to_owned()); 50]);
        assert!(!outage.is("23502 a"));
    }

    #[test]
    fn few_or_different_refusals_or_many_successes_are_not() {
        assert!(!after(&[(9, Some("23502 a"))]).is("23502 a"));
        assert!(!after(&[(200, None), (25, Some("23502 a"))]).is("23502 a"));
        assert!(!after(&[(10, Some("23502 a")), (10, Some("23502 b"))]).is("23502 a"));
        assert!(!after(&[(10, Some("23502 a"))]).is("23502 b"));
    }

    #[test]
    fn an_outage_lasts_until_it_is_over_whatever_else_is_taken() {
        let mut outage = after(&[(10, Some("x"))]);
        assert!(outage.is("x"));
        outage.record(std::iter::repeat_n(None, 100));
        assert!(outage.is("x"));
        outage.abandoned();
        assert!(!outage.is("x"));
    }

    #[test]
    fn an_outage_that_is_over_leaves_no_trace() {
        let mut outage = after(&[(10, Some("x"))]);
        outage.over();
        assert!(!outage.is("x"));
    }
}
