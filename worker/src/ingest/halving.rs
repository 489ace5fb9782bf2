//! Finds the messages of a batch that a sink refuses, by halves. Pure: it only says what to try next.

use std::ops::Range;

/// A batch on its way to the sink. Parts are ranges of its messages.
#[derive(Debug)]
pub(crate) struct Halving {
    parts: Vec<Range<usize>>,
    culprits: Vec<usize>,
}

impl Halving {
    /// All of a batch is to be written.
    pub(crate) fn new(messages: usize) -> Self {
        let parts = (messages > 0).then_some(0..messages).into_iter().collect();
        Self { parts, culprits: Vec::new() }
    }

    /// The part to write next; none once every message is written or a culprit.
    pub(crate) fn next(&self) -> Option<Range<usize>> {
        self.parts.last().cloned()
    }

    /// The part was written, or is otherwise settled.
    pub(crate) fn settled(&mut self) {
        self.parts.pop();
    }

    /// The part was refused for its content: halves come next, or the culprit is found.
    pub(crate) fn refused(&mut self) -> Option<usize> {
        let part = self.parts.pop()?;
        if part.len() <= 1 {
            self.culprits.push(part.start);
            return Some(part.start);
        }
        self.halve(&part);
        None
    }

    /// The part took too long: halves come next, if there are any.
    pub(crate) fn late(&mut self) {
        if let Some(part) = self.parts.pop_if(|part| part.len() > 1) {
            self.halve(&part);
        }
    }

    fn halve(&mut self, part: &Range<usize>) {
        let middle = part.start + part.len() / 2;
        self.parts.push(middle..part.end);
        self.parts.push(part.start..middle);
    }

    /// A culprit that is known without halving.
    pub(crate) fn found(&mut self, culprit: usize) {
        self.culprits.push(culprit);
    }

    /// Tries the culprits once more, each alone.
    pub(crate) fn again(&mut self) {
        self.parts.extend(self.culprits.drain(..).rev().map(|one| one..one + 1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_culprit_is_found_and_everything_else_is_written(
            size in 1..200_usize, bad in proptest::collection::btree_set(0..200_usize, 0..20),
        ) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|b| *b < size).collect();
            let (mut halving, mut written, mut found, mut tries) = (Halving::new(size), BTreeSet::new(), BTreeSet::new(), 0);
            while let Some(part) = halving.next() {
                tries += 1;
                if part.clone().any(|n| bad.contains(&n)) {
                    found.extend(halving.refused());
                } else {
                    written.extend(part);
                    halving.settled();
                }
            }
            prop_assert_eq!(&found, &bad);
            prop_assert_eq!(written, (0..size).filter(|n| !bad.contains(n)).collect::<BTreeSet<_>>());
            prop_assert!(tries <= 1 + 2 * bad.len() * 8, "{} tries for {} culprits of {}", tries, bad.len(), size);
        }
    }

    #[test]
    fn a_part_that_takes_too_long_is_halved_down_to_one_message_and_nobody_is_blamed() {
        let mut halving = Halving::new(4);
        halving.late();
        assert_eq!(halving.next(), Some(0..2));
        halving.late();
        halving.late();
        assert_eq!(halving.next(), Some(0..1));
        let mut written = Vec::new();
        while let Some(part) = halving.next() {
            written.extend(part);
            halving.settled();
        }
        assert_eq!(written, [0, 1, 2, 3]);
        halving.again();
        assert_eq!(halving.next(), None);
    }

    #[test]
    fn culprits_are_tried_again_alone() {
        let mut halving = Halving::new(2);
        assert_eq!(halving.refused(), None);
        assert_eq!((halving.refused(), halving.refused()), (Some(0), Some(1)));
        assert_eq!(halving.next(), None);
        halving.again();
        assert_eq!(halving.next(), Some(0..1));
        halving.settled();
        assert_eq!(halving.next(), Some(1..2));
    }
}
