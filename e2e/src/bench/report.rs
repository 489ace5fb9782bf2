//! Where figures go: a table in `docs/benchmarks.md`, and all of them as JSON.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::json;

use super::{Bench, Figure, Outcome};
use crate::shell::{repository, target};

const HEAD: &str = "Written by `make bench`; `make bench BENCH=\"<name>\"` writes one section and leaves the others. \
                    Floor and peer are measured in the same run as ours, on the same machine; the ratio is ours to the floor, or to \
                    the peer where there is no floor. Raw figures are in `bench/` of Cargo's target directory.\n";

/// Writes both; where the raw figures are.
pub fn write(bench: Bench, outcome: &Outcome) -> Result<PathBuf> {
    let date = today();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let page = repository().join("docs/benchmarks.md");
    let old = fs::read_to_string(&page).unwrap_or_default();
    let text = with_section(&old, bench, &section(bench, &outcome.rows, &date, cores));
    fs::write(&page, text).with_context(|| page.display().to_string())?;
    let directory = target()?.join("bench");
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let raw = directory.join(format!("{}.json", bench.name().replace(' ', "-")));
    let figures = json!({ "date": date, "cores": cores, "outcome": outcome });
    fs::write(&raw, format!("{figures:#}\n")).with_context(|| raw.display().to_string())?;
    Ok(raw)
}

#[expect(clippy::disallowed_methods, reason = "figures carry the day they were measured: time enters here")]
fn today() -> String {
    Timestamp::now().to_string().chars().take_while(|c| *c != 'T').collect()
}

fn section(bench: Bench, rows: &[Figure], date: &str, cores: usize) -> String {
    let name = bench.name();
    let mut text = format!("## {name}\n\n`make bench BENCH=\"{name}\"`\n\n");
    text += "| what | floor | peer | ours | ratio | aim | met | date | cores |\n";
    text += "| --- | ---: | ---: | ---: | ---: | --- | --- | --- | ---: |\n";
    for row in rows {
        let shown =
            |value: Option<f64>| value.map(|value| format!("{} {}", number(value), row.unit)).unwrap_or_default();
        let against = row.floor.or(row.peer).filter(|value| *value != 0.0);
        let cells = [
            row.what.clone(),
            shown(row.floor),
            shown(row.peer),
            shown(Some(row.ours)),
            against.map(|against| format!("{:.2}", row.ours / against)).unwrap_or_default(),
            row.aim.clone(),
            if row.met { "yes" } else { "no" }.to_owned(),
            date.to_owned(),
            cores.to_string(),
        ];
        text += &cells.iter().fold(String::from("|"), |line, cell| line + " " + cell + " |");
        text += "\n";
    }
    text
}

/// The page with this section in its place; the others stay as they are.
fn with_section(page: &str, bench: Bench, section: &str) -> String {
    let mut sections: Vec<&str> = page.split("\n## ").skip(1).collect();
    sections.retain(|old| old.lines().next() != Some(bench.name()));
    let rank = |text: &str| {
        let name = text.lines().next().unwrap_or_default();
        Bench::ALL.iter().position(|bench| bench.name() == name).unwrap_or(usize::MAX)
    };
    sections.push(section.strip_prefix("## ").unwrap_or(section));
    sections.sort_by_key(|text| rank(text));
    sections.iter().fold(HEAD.to_owned(), |page, section| page + "\n## " + section.trim_end() + "\n")
}

/// With as many digits as say something.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        medium if medium >= 1.0 => 1,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) =
        text.split_once('.').map_or((text.as_str(), String::new()), |(whole, rest)| (whole, format!(".{rest}")));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + &rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(ours: f64) -> Figure {
        Figure {
            what: "rows".into(),
            floor: Some(20_000.0),
            peer: None,
            ours,
            unit: "/s".into(),
            aim: "≥ 0.8 of the floor".into(),
            met: true,
        }
    }

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let first = with_section("", Bench::Footprint, &section(Bench::Footprint, &[figure(1.0)], "2026-01-01", 2));
        let both = with_section(&first, Bench::Drain, &section(Bench::Drain, &[figure(16_000.0)], "2026-01-01", 2));
        assert!(both.find("## drain").unwrap() < both.find("## footprint").unwrap(), "{both}");
        assert!(
            both.contains("| rows | 20,000 /s |  | 16,000 /s | 0.80 | ≥ 0.8 of the floor | yes | 2026-01-01 | 2 |"),
            "{both}"
        );
        let again = with_section(&both, Bench::Drain, &section(Bench::Drain, &[figure(17_000.0)], "2026-01-02", 2));
        assert_eq!(again.matches("## drain").count(), 1);
        assert_eq!(again.matches("Written by").count(), 1);
        assert!(
            again.contains("17,000 /s") && !again.contains("16,000 /s") && again.contains("## footprint"),
            "{again}"
        );
    }

    #[test]
    fn numbers_have_the_digits_that_say_something() {
        assert_eq!(number(1_234_567.8), "1,234,568");
        assert_eq!(number(12.34), "12.3");
        assert_eq!(number(0.8123), "0.812");
    }
}
