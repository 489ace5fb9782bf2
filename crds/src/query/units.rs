//! Units of time, as windows and date functions name them.

/// 100 ns ticks in a second.
pub const TICKS_PER_SECOND: i64 = 10_000_000;
/// 100 ns ticks in a millisecond.
pub const TICKS_PER_MILLISECOND: i64 = 10_000;

/// A part of a datetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Year.
    Year,
    /// Quarter of a year, 1 to 4.
    Quarter,
    /// Month.
    Month,
    /// Day of the year, from 1.
    DayOfYear,
    /// Day.
    Day,
    /// Week, starting on Sunday.
    Week,
    /// Day of the week, Sunday is 1.
    Weekday,
    /// Hour.
    Hour,
    /// Minute.
    Minute,
    /// Second.
    Second,
    /// Millisecond.
    Millisecond,
    /// Microsecond.
    Microsecond,
}

/// Every spelling; plurals are accepted as well. The first of each unit is its name.
const SPELLINGS: &[(Unit, &[&str])] = &[
    (Unit::Year, &["year", "yy", "yyyy"]),
    (Unit::Quarter, &["quarter", "qq", "q"]),
    (Unit::Month, &["month", "mm", "m"]),
    (Unit::DayOfYear, &["dayofyear", "dy", "y"]),
    (Unit::Day, &["day", "dd", "d"]),
    (Unit::Week, &["week", "wk", "ww"]),
    (Unit::Weekday, &["weekday", "dw", "w"]),
    (Unit::Hour, &["hour", "hh"]),
    (Unit::Minute, &["minute", "mi", "n"]),
    (Unit::Second, &["second", "ss", "s"]),
    (Unit::Millisecond, &["millisecond", "ms"]),
    (Unit::Microsecond, &["microsecond", "mcs"]),
];

impl Unit {
    /// The unit that a word names, in any case.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        SPELLINGS
            .iter()
            .find(|(_, spellings)| spellings.iter().any(|s| *s == word || is_plural(s, &word)))
            .map(|(unit, _)| *unit)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        SPELLINGS.iter().find(|(unit, _)| *unit == self).map_or("", |(_, spellings)| spellings[0])
    }

    /// Its length in ticks, where it has one length.
    #[must_use]
    pub fn ticks(self) -> Option<i64> {
        match self {
            Self::Year | Self::Quarter | Self::Month => None,
            Self::Week => Some(7 * 86_400 * TICKS_PER_SECOND),
            Self::Day | Self::DayOfYear | Self::Weekday => Some(86_400 * TICKS_PER_SECOND),
            Self::Hour => Some(3_600 * TICKS_PER_SECOND),
            Self::Minute => Some(60 * TICKS_PER_SECOND),
            Self::Second => Some(TICKS_PER_SECOND),
            Self::Millisecond => Some(TICKS_PER_MILLISECOND),
            Self::Microsecond => Some(10),
        }
    }

    /// Whether a window may be measured in it.
    #[must_use]
    pub fn measures_windows(self) -> bool {
        matches!(self, Self::Day | Self::Hour | Self::Minute | Self::Second | Self::Millisecond | Self::Microsecond)
    }
}

/// Abbreviations have no plural: `mss` is no unit.
fn is_plural(spelling: &str, word: &str) -> bool {
    spelling.len() > 2 && word.strip_suffix('s') == Some(spelling) && spelling != "mcs" && spelling != "yyyy"
}
