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
use crate::query::{StoredPartial, windows::ceil};

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
                "WITH due AS (SELECT DISTINCT pane, domain, key FROM @.partial WHERE query = $1 AND revision = $2 AND step = $3 AND win = $4
                     AND pane < $5 AND ($6::bytea IS NULL OR $7::bytea IS NULL OR true) ORDER BY pane, domain, key LIMIT $8)
                 SELECT p.step, p.win, p.pane, p.domain, p.key, p.data, (SELECT count(*) FROM due)
                 FROM due JOIN @.partial p ON p.query = $1 AND p.revision = $2 AND p.step = $3 AND p.win = $4
                     AND p.pane = due.pane AND p.domain = due.domain AND p.key = due.key
                 ORDER BY p.pane, p.domain, p.key"
            }
            Self::Group => {
                "WITH due AS (SELECT DISTINCT domain, key FROM @.partial WHERE query = $1 AND revision = $2 AND step = $3 AND win = $4
                     AND pane < $5 AND ($6::bytea IS NULL OR (domain, key) > ($6, $7::bytea)) ORDER BY domain, key LIMIT $8)
                 SELECT p.step, p.win, p.pane, p.domain, p.key, p.data, (SELECT count(*) FROM due)
                 FROM due JOIN @.partial p ON p.query = $1 AND p.revision = $2 AND p.step = $3 AND p.win = $4 AND p.pane < $5
                     AND p.domain = due.domain AND p.key = due.key
                 ORDER BY p.domain, p.key, p.pane"
            }
            Self::Domain => {
                "WITH due AS (SELECT DISTINCT domain FROM @.partial WHERE query = $1 AND revision = $2 AND step = $3 AND win = $4
                     AND pane < $5 AND ($6::bytea IS NULL OR domain > $6) AND ($7::bytea IS NULL OR true) ORDER BY domain LIMIT $8)
                 SELECT p.step, p.win, p.pane, p.domain, p.key, p.data, (SELECT count(*) FROM due)
                 FROM due JOIN @.partial p ON p.query = $1 AND p.revision = $2 AND p.step = $3 AND p.win = $4 AND p.pane < $5
                     AND p.domain = due.domain
                 ORDER BY p.domain, p.key, p.pane"
            }
        }
    }

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
        let rows = client
            .query(&job.sql(self.statement()), &[&job.query, &job.revision, &step, &place, &to, &domain, &key, &most])
            .await?;
        let groups: i64 = rows.first().map_or(0, |row| row.get(6));
        let partials: Vec<StoredPartial> = rows.iter().map(stored).collect();
        let cursor = partials.last().filter(|_| self != Self::Pane).map(|p| (p.domain.clone(), p.key.clone()));
        Ok(Found { partials, cursor, last: groups < most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
