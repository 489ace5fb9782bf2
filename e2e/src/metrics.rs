//! Prometheus text as numbers.

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
    fn what_is_not_there_is_none() {
        assert_eq!(sum(TEXT, "c"), None);
    }
}
