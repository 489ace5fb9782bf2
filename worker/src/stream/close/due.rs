//! Which partials a closing reads: whole groups, so that each is merged across partitions at once.

use drover_crds::query::Window as Definition;
use tokio_postgres::{Client, Error};

use super::{
    super::{
        job::Job,
        partials::{small, stored},
    },
    Window,
};
use crate::{
    query::{StoredPartial, windows::ceil},
    store::typed::typed,
};

/// Domain and key of the last group that was read.
pub(super) type Cursor = (Vec<u8>, Vec<u8>);

/// How the partials of a window are read, in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Each pane is one window: what is read is closed and deleted, and the next chunk begins with what is left.
    Pane,
    /// A group's panes together; what is read may stay, so a cursor says how far it went.
    Group,
    /// All groups of a domain together: a session without a partition is shared by all keys.
    Domain,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) partials: Vec<StoredPartial>,
    pub(super) cursor: Option<Cursor>,
    /// There is nothing after it.
    pub(super) last: bool,
}

impl Due {
    /// `None` where no window can end from `from` on and strictly below `to`.
    pub(super) fn of(window: &Definition, from: i64, to: i64) -> Option<Self> {
        match *window {
            Definition::Hopping { size, hop, offset } => {
                // Before the first closing there is no last one to count from.
                let none = from != i64::MIN && ceil(from, hop, offset) >= to;
                let due = if size == hop { Self::Pane } else { Self::Group };
                (!none).then_some(due)
            }
            Definition::Snapshot => Some(Self::Pane),
            Definition::Sliding { .. } => Some(Self::Group),
            Definition::Session { .. } => Some(Self::Domain),
        }
    }

    fn statement(self) -> &'static str {
        match self {
            Self::Pane => {
                "SELECT step, win, pane, domain, key, data FROM @.partial WHERE query = $1 AND revision = $2 AND step = $3 AND win = $4
                     AND pane < $5 AND ($6::bytea IS NULL OR $7::bytea IS NULL OR true) ORDER BY pane, domain, key LIMIT $8"
            }
            Self::Group => {
                "SELECT step, win, pane, domain, key, data FROM @.partial WHERE query = $1 AND revision = $2 AND step = $3 AND win = $4
                     AND pane < $5 AND ($6::bytea IS NULL OR (domain, key) > ($6, $7::bytea)) ORDER BY domain, key, pane LIMIT $8"
            }
            Self::Domain => {
                "SELECT step, win, pane, domain, key, data FROM @.partial WHERE query = $1 AND revision = $2 AND step = $3 AND win = $4
                     AND pane < $5 AND ($6::bytea IS NULL OR domain > $6) AND ($7::bytea IS NULL OR true)
                 ORDER BY domain, key, pane LIMIT $8"
            }
        }
    }

    /// Whether two partials are read together.
    fn together(self, a: &StoredPartial, b: &StoredPartial) -> bool {
        match self {
            Self::Pane => (a.pane, &a.domain, &a.key) == (b.pane, &b.domain, &b.key),
            Self::Group => (&a.domain, &a.key) == (&b.domain, &b.key),
            Self::Domain => a.domain == b.domain,
        }
    }

    /// Reads about so many partials, in whole groups.
    pub(super) async fn read(
        self,
        client: &Client,
        job: &Job,
        window: &Window,
        to: i64,
        most: i64,
    ) -> Result<Found, Error> {
        let (domain, key) = window.cursor.clone().unzip();
        let (step, place) = (small(window.step), small(window.place));
        let statement = job.sql(self.statement());
        let mut limit = most;
        loop {
            let rows = client
                .query_typed(
                    &statement,
                    &typed(&[&job.query, &job.revision, &step, &place, &to, &domain, &key, &limit]),
                )
                .await?;
            let last = (rows.len() as u64) < limit.unsigned_abs();
            let mut partials: Vec<StoredPartial> = rows.iter().map(stored).collect();
            drop(rows);
            if !last {
                self.cut(&mut partials);
            }
            if last || !partials.is_empty() {
                let cursor = partials.last().filter(|_| self != Self::Pane).map(|p| (p.domain.clone(), p.key.clone()));
                return Ok(Found { partials, cursor, last });
            }
            // One group is more than that.
            limit = limit.saturating_mul(4);
        }
    }

    /// Takes the last group away: more of it may follow.
    fn cut(self, partials: &mut Vec<StoredPartial>) {
        let Some(end) = partials.last() else { return };
        let whole = partials.partition_point(|p| !self.together(p, end));
        partials.truncate(whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_never_read_in_part() {
        let partial = |pane, key: u8| StoredPartial {
            step: 0,
            window: 0,
            pane,
            domain: Vec::new(),
            key: vec![key],
            partial: Vec::new(),
        };
        let mut partials = vec![partial(1, 1), partial(2, 1), partial(1, 2), partial(2, 2)];
        let kept = |due: Due, partials: &[StoredPartial]| {
            let mut partials = partials.to_vec();
            due.cut(&mut partials);
            partials.len()
        };
        assert_eq!(kept(Due::Group, &partials), 2);
        assert_eq!(kept(Due::Domain, &partials), 0);
        partials.sort_by_key(|p| p.pane);
        assert_eq!(kept(Due::Pane, &partials), 3);
    }

    #[test]
    fn a_window_without_an_end_in_the_range_is_not_read() {
        let tumbling = Definition::Hopping { size: 10, hop: 10, offset: 0 };
        assert_eq!(Due::of(&tumbling, 11, 20), None);
        assert_eq!(Due::of(&tumbling, 11, 21), Some(Due::Pane));
        assert_eq!(Due::of(&tumbling, 10, 11), Some(Due::Pane));
        assert_eq!(Due::of(&tumbling, i64::MIN, 5), Some(Due::Pane));
        assert_eq!(Due::of(&Definition::Hopping { size: 10, hop: 5, offset: 0 }, 11, 16), Some(Due::Group));
    }
}
