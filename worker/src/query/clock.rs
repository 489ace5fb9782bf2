//! Datetimes as ticks of 100 ns since 1970, UTC: reading, writing, parts. It reads no clock.

use drover_crds::query::{TICKS_PER_SECOND, Unit};
use jiff::civil;

const TICKS_PER_DAY: i64 = 86_400 * TICKS_PER_SECOND;
/// 0001-01-01T00:00:00.
pub(crate) const MIN: i64 = -719_162 * TICKS_PER_DAY;
/// The last tick of the year 9999.
pub(crate) const MAX: i64 = 2_932_897 * TICKS_PER_DAY - 1;

/// Ticks within the years 1 to 9999.
pub(crate) fn valid(ticks: i64) -> Option<i64> {
    (MIN..=MAX).contains(&ticks).then_some(ticks)
}

/// A day and the ticks in it.
fn split(ticks: i64) -> (i64, i64) {
    (ticks.div_euclid(TICKS_PER_DAY), ticks.rem_euclid(TICKS_PER_DAY))
}

fn date(days: i64) -> civil::Date {
    // Days since 1970 of a valid datetime are days of a civil date.
    let span = jiff::Span::new().days(days);
    civil::date(1970, 1, 1).checked_add(span).unwrap_or(civil::Date::ZERO)
}

fn days(date: civil::Date) -> i64 {
    let (y, m, d) = (i64::from(date.year()), i64::from(date.month()), i64::from(date.day()));
    days_of(y, m, d)
}

/// Days since 1970 of a date of the proleptic Gregorian calendar.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    // Years start in March, so that the leap day comes last.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// `2026-01-01T12:00:00.000Z`; seven digits of a second where three do not do.
#[must_use]
pub fn format(ticks: i64) -> String {
    let (day, rest) = split(ticks);
    let date = date(day);
    let second = rest / TICKS_PER_SECOND;
    let fraction = rest % TICKS_PER_SECOND;
    let fraction = if fraction % 10_000 == 0 { format!("{:03}", fraction / 10_000) } else { format!("{fraction:07}") };
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{fraction}Z",
        date.year(),
        date.month(),
        date.day(),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// With seven digits of a second, as CAST to text writes it.
#[must_use]
pub(crate) fn format_long(ticks: i64) -> String {
    let short = format(ticks);
    let fraction = ticks.rem_euclid(TICKS_PER_SECOND);
    format!("{}.{fraction:07}Z", &short[..19])
}

/// Reads ISO 8601 in its extended or basic form: a date, or a date and a time after `T` or a blank, with up to 7 digits of a second
/// (more are cut), and `Z`, an offset or nothing (UTC).
#[must_use]
pub fn parse(text: &str) -> Option<i64> {
    let b = text.trim().as_bytes();
    let (date, mut at) = date_ticks(b)?;
    let mut time = 0;
    if b.len() > at {
        if !matches!(b[at], b'T' | b't' | b' ') {
            return None;
        }
        (time, at) = time_ticks(b, at + 1)?;
    }
    valid(date + time - offset_ticks(&b[at..])?)
}

/// `yyyy-mm-dd` or `yyyymmdd`, and where it ends.
fn date_ticks(b: &[u8]) -> Option<(i64, usize)> {
    let extended = b.get(4) == Some(&b'-');
    let (month_at, day_at) = if extended { (5, 8) } else { (4, 6) };
    if extended && b.get(7) != Some(&b'-') {
        return None;
    }
    let (year, month) = (digits(b.get(..4)?)?, digits(b.get(month_at..month_at + 2)?)?);
    let day = digits(b.get(day_at..day_at + 2)?)?;
    let valid = year >= 1 && (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
    valid.then(|| (days_of(year, month, day) * TICKS_PER_DAY, day_at + 2))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// `hh:mm[:ss[.fffffff]]` or `hhmm[ss[.fffffff]]`, and where it ends.
fn time_ticks(b: &[u8], from: usize) -> Option<(i64, usize)> {
    let hour = digits(b.get(from..from + 2)?)?;
    let colon = usize::from(b.get(from + 2) == Some(&b':'));
    let mut at = from + 2 + colon;
    let minute = digits(b.get(at..at + 2)?)?;
    at += 2;
    let (mut second, mut fraction) = (0, 0);
    if b.get(at).is_some_and(|c| if colon == 1 { *c == b':' } else { c.is_ascii_digit() }) {
        second = digits(b.get(at + colon..at + colon + 2)?)?;
        at += colon + 2;
        if matches!(b.get(at), Some(b'.' | b',')) {
            let run = b[at + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
            if run == 0 {
                return None;
            }
            let kept = run.min(7);
            fraction = digits(&b[at + 1..at + 1 + kept])? * 10_i64.pow(7 - u32::try_from(kept).ok()?);
            at += 1 + run;
        }
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    Some((((hour * 60 + minute) * 60 + second) * TICKS_PER_SECOND + fraction, at))
}

fn offset_ticks(b: &[u8]) -> Option<i64> {
    match b {
        [] | [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), rest @ ..] => {
            let (hour, minute) = match rest.len() {
                2 => (digits(rest)?, 0),
                4 => (digits(&rest[..2])?, digits(&rest[2..])?),
                5 if rest[2] == b':' => (digits(&rest[..2])?, digits(&rest[3..])?),
                _ => return None,
            };
            let ticks = (hour * 60 + minute) * 60 * TICKS_PER_SECOND;
            (hour <= 14 && minute <= 59).then_some(if *sign == b'-' { -ticks } else { ticks })
        }
        _ => None,
    }
}

fn digits(b: &[u8]) -> Option<i64> {
    b.iter().try_fold(0_i64, |n, c| c.is_ascii_digit().then(|| n * 10 + i64::from(c - b'0')))
}

/// A part of a datetime.
pub(crate) fn part(unit: Unit, ticks: i64) -> i64 {
    let (day, rest) = split(ticks);
    let date = date(day);
    match unit {
        Unit::Year => i64::from(date.year()),
        Unit::Quarter => (i64::from(date.month()) + 2) / 3,
        Unit::Month => i64::from(date.month()),
        Unit::DayOfYear => i64::from(date.day_of_year()),
        Unit::Day => i64::from(date.day()),
        Unit::Week => {
            // Week 1 holds January 1st; weeks start on Sunday.
            let first = days_of(i64::from(date.year()), 1, 1);
            (day - first + weekday(first) - 1) / 7 + 1
        }
        Unit::Weekday => weekday(day),
        Unit::Hour => rest / (3600 * TICKS_PER_SECOND),
        Unit::Minute => rest / (60 * TICKS_PER_SECOND) % 60,
        Unit::Second => rest / TICKS_PER_SECOND % 60,
        Unit::Millisecond => rest % TICKS_PER_SECOND / 10_000,
        Unit::Microsecond => rest % TICKS_PER_SECOND / 10,
    }
}

/// Sunday is 1; 1970 began on a Thursday.
fn weekday(day: i64) -> i64 {
    (day + 4).rem_euclid(7) + 1
}

/// A part as text: months and weekdays by name.
pub(crate) fn name(unit: Unit, ticks: i64) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    let number = part(unit, ticks);
    let index = usize::try_from(number - 1).unwrap_or(0);
    match unit {
        Unit::Month => MONTHS[index % 12].to_owned(),
        Unit::Weekday => DAYS[index % 7].to_owned(),
        _ => number.to_string(),
    }
}

/// A datetime moved by a count of units; a month that is too short takes its last day.
pub(crate) fn add(unit: Unit, count: i64, ticks: i64) -> Option<i64> {
    if let Some(length) = unit.ticks() {
        return valid(ticks.checked_add(length.checked_mul(count)?)?);
    }
    let months = match unit {
        Unit::Year => count.checked_mul(12)?,
        Unit::Quarter => count.checked_mul(3)?,
        _ => count,
    };
    let (day, rest) = split(ticks);
    let from = date(day);
    let month = (i64::from(from.year()) * 12 + i64::from(from.month()) - 1).checked_add(months)?;
    let (year, month) = (month.div_euclid(12), month.rem_euclid(12) + 1);
    if !(1..=9999).contains(&year) {
        return None;
    }
    let day = i64::from(from.day()).min(days_in_month(year, month));
    valid(days_of(year, month, day) * TICKS_PER_DAY + rest)
}

/// Boundaries of a unit crossed from one datetime to another.
pub(crate) fn difference(unit: Unit, from: i64, to: i64) -> i64 {
    let index = |ticks: i64| match unit {
        Unit::Year => part(Unit::Year, ticks),
        Unit::Quarter => part(Unit::Year, ticks) * 4 + part(Unit::Quarter, ticks),
        Unit::Month => part(Unit::Year, ticks) * 12 + part(Unit::Month, ticks),
        Unit::Week => (split(ticks).0 + 4).div_euclid(7),
        _ => ticks.div_euclid(unit.ticks().unwrap_or(TICKS_PER_DAY)),
    };
    index(to) - index(from)
}

/// A datetime of its parts.
pub(crate) fn from_parts(parts: &[i64]) -> Option<i64> {
    let [year, month, day, hour, minute, second, millisecond] = *parts else { return None };
    let date = civil::Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    let within = (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60).contains(&second)
        && (0..1000).contains(&millisecond);
    if !within {
        return None;
    }
    let seconds = (hour * 60 + minute) * 60 + second;
    valid(days(date) * TICKS_PER_DAY + seconds * TICKS_PER_SECOND + millisecond * 10_000)
}
