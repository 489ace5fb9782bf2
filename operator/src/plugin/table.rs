//! Text for a terminal. Pure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

/// Rows in columns, as kubectl prints them. The first row is the header.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| rows.iter().filter_map(|r| r.get(n)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// One line that a terminal can be given, whoever wrote it.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// At most so many characters.
pub(super) fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// A time span as kubectl writes it.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long ago, as kubectl writes it.
pub(super) fn since(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "-".to_owned(), |at| span(Duration::try_from(now.duration_since(at)).unwrap_or_default()))
}

/// Values as bars of eight heights, the largest the highest.
pub(super) fn sparkline(values: &[f64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().fold(0.0, f64::max);
    let height = |value: f64| {
        let share = if most > 0.0 { value.max(0.0) / most } else { 0.0 };
        BARS[(1..8).rev().find(|n| share * 8.0 > f64::from(*n)).map_or(0, |n| usize::try_from(n).expect("below eight"))]
    };
    values.iter().copied().map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(table(&[row(["A", "B"]), row(["long", "x"])]), "A      B\nlong   x\n");
    }

    #[test]
    fn nothing_that_moves_a_cursor_gets_through() {
        assert_eq!(plain("a\x1b[2Jb\r\nc"), "a [2Jb  c");
        assert_eq!(cut("äöü", 2), "ä…");
        assert_eq!(cut("äöü", 3), "äöü");
    }

    #[test]
    fn the_largest_value_is_the_highest_bar() {
        assert_eq!(sparkline(&[0.0, 4.0, 8.0]), "▁▄█");
        assert_eq!(sparkline(&[0.0, 0.0]), "▁▁");
    }

    #[test]
    fn spans_have_one_unit() {
        let told: Vec<_> = [0, 119, 120, 7200, 172_800].map(Duration::from_secs).map(span).to_vec();
        assert_eq!(told, ["0s", "119s", "2m", "2h", "2d"]);
    }
}
