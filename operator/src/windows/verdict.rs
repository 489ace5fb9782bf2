//! Whether a version of a query may take over: by what it could not take of the events that it has read to catch up. Pure.

use drover_crds::api::Tally;
use drover_worker::stream::schema::State;

use crate::rollout::verdict::{exceeds, ratio, real};

/// The share of the events that a version may dead-letter above what the one before does: the streams may hold a bad hour, which is little
/// of what the one before has read in its life, and much of what the new one has read.
const ALLOWED: f64 = 0.1;

/// Why a version must not take over; `None` if it may.
pub(super) fn refusal(state: &State, old: &str, new: &str) -> Option<String> {
    let (old, new) = (tally(state, old), tally(state, new));
    let expected = real(new.processed) * (ratio(&old) + ALLOWED);
    exceeds(new.failed, expected).then(|| {
        // No counts: they change with each event, and what is told would be news each time.
        format!(
            "{} % of the events that the new version has read cannot be taken, with the one before it {} %",
            percent(ratio(&new)),
            percent(ratio(&old))
        )
    })
}

fn percent(ratio: f64) -> f64 {
    (ratio * 100.0).round()
}

fn tally(state: &State, revision: &str) -> Tally {
    let of = state.partitions.iter().filter(|p| p.revision == revision);
    of.fold(Tally::default(), |sum, p| Tally {
        processed: sum.processed + p.taken + p.dead_lettered,
        failed: sum.failed + p.dead_lettered,
        ..sum
    })
}

#[cfg(test)]
mod tests {
    use drover_worker::stream::schema::Partition;

    use super::*;

    /// Versions with what they have taken and dead-lettered, in two partitions each.
    fn state(all: &[(&str, i64, i64)]) -> State {
        let partition = |revision: &str, part, taken, dead_lettered| Partition {
            revision: revision.to_owned(),
            part,
            generation: 0,
            next_offset: 0,
            gone: false,
            read_at: None,
            lost: 0,
            lost_at: None,
            without_arrival: 0,
            skipped: 0,
            taken,
            dead_lettered,
        };
        let partitions =
            all.iter().flat_map(|(r, taken, dead)| [partition(r, 0, *taken, 0), partition(r, 1, 0, *dead)]);
        State { partitions: partitions.collect(), ..State::default() }
    }

    fn refused(old: (i64, i64), new: (i64, i64)) -> bool {
        refusal(&state(&[("a", old.0, old.1), ("b", new.0, new.1)]), "a", "b").is_some()
    }

    #[test]
    fn a_version_that_takes_a_tenth_less_of_the_events_must_not_take_over() {
        assert!(refused((10_000, 0), (0, 100)));
        assert!(refused((10_000, 0), (800, 200)));
        assert!(!refused((10_000, 0), (950, 50)));
        assert!(!refused((500, 500), (500, 500)), "what the one before does not take either");
        assert!(refused((500, 500), (100, 900)));
        assert!(!refused((0, 0), (0, 2)), "two events say nothing");
        assert!(!refused((0, 0), (0, 0)));
    }

    #[test]
    fn it_says_what_it_goes_by() {
        let why = refusal(&state(&[("a", 990, 10), ("b", 100, 300)]), "a", "b");
        let expected = "75 % of the events that the new version has read cannot be taken, with the one before it 1 %";
        assert_eq!(why.as_deref(), Some(expected));
    }
}
