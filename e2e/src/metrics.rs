//! Prometheus text as numbers.

use std::collections::BTreeMap;

/// The sum of all series of a metric; `None` where there is none. `_total` may be missing from the name.
#[must_use]
pub fn sum(text: &str, name: &str) -> Option<f64> {
    sum_where(text, name, |_| true)
}

/// The sum of the series whose labels, as text, please.
#[must_use]
pub fn sum_where(text: &str, name: &str, pleases: impl Fn(&str) -> bool) -> Option<f64> {
    let mut found = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (metric, labels) = series.split_once('{').unwrap_or((series, ""));
        if metric != name && metric.strip_suffix("_total") != Some(name) {
            continue;
        }
        if let (true, Ok(value)) = (pleases(labels), value.parse::<f64>()) {
            *found.get_or_insert(0.0) += value;
        }
    }
    found
}

/// The sums of a metric's series by the values of these labels; a label that is missing is empty.
#[must_use]
pub fn sums_by<const N: usize>(text: &str, name: &str, by: [&str; N]) -> BTreeMap<[String; N], f64> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let Some((labels, value)) = line.strip_prefix(name).and_then(|rest| rest.strip_prefix('{')?.rsplit_once(' '))
        else {
            continue;
        };
        if let Ok(value) = value.parse::<f64>() {
            *sums.entry(by.map(|wanted| label(labels, wanted).to_owned())).or_insert(0.0) += value;
        }
    }
    sums
}

/// The value of a label, where no value has a quotation mark in it.
fn label<'a>(labels: &'a str, wanted: &str) -> &'a str {
    let mut parts = labels.split('"');
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        if name.trim_start_matches(',').strip_suffix('=') == Some(wanted) {
            return value;
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a b\n# TYPE a counter\na_total{x=\"1 2\"} 3\na_total{x=\"y\"} 4\nb 1.5\n";

    #[test]
    fn series_are_added() {
        assert_eq!(sum(TEXT, "a"), Some(7.0));
        assert_eq!(sum(TEXT, "a_total"), Some(7.0));
        assert_eq!(sum(TEXT, "b"), Some(1.5));
    }

    #[test]
    fn labels_choose() {
        assert_eq!(sum_where(TEXT, "a", |labels| labels.contains("x=\"y\"")), Some(4.0));
    }

    #[test]
    fn series_are_added_by_their_labels() {
        let text = "a{sub=\"x\",b=\"1\",c=\"p\"} 3\na{sub=\"\",b=\"1\",c=\"q\"} 4\na{b=\"2\"} 5\nab{b=\"2\"} 6\n# a{b=\"2\"} 7\n";
        let sums = sums_by(text, "a", ["b"]);
        assert_eq!(sums.into_iter().collect::<Vec<_>>(), [(["1".to_owned()], 7.0), (["2".to_owned()], 5.0)]);
        assert_eq!(sums_by(text, "a", ["sub", "c"]).get(&["x".to_owned(), "p".to_owned()]), Some(&3.0));
    }

    #[test]
    fn what_is_not_there_is_none() {
        assert_eq!(sum(TEXT, "c"), None);
    }
}
