//! What the lag was in the last minutes: kept by the status, so that one look at it shows where the lag goes. Pure.

use drover_crds::api::{LAG_HISTORY, LagAt, ScaleStatus};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

/// So far back it goes.
const SPAN: SignedDuration = SignedDuration::from_mins(10);

/// The history that is told with a lag, after the one that was told last. It has a lag once for as long as it stays.
pub(crate) fn goes_on(old: Option<&ScaleStatus>, lag: Option<f64>, now: Timestamp) -> Vec<LagAt> {
    let mut history = old.map(|scale| scale.lag_history.clone()).unwrap_or_default();
    let news = |seconds: f64| history.last().is_none_or(|last| last.seconds.total_cmp(&seconds).is_ne());
    if let Some(seconds) = lag.filter(|lag| news(*lag)) {
        history.push(LagAt { at: Time(now), seconds });
    }
    // The last of those before still was when the span begins.
    let before = history.iter().filter(|lag| now.duration_since(lag.at.0) >= SPAN).count();
    let surplus = before.saturating_sub(1).max(history.len().saturating_sub(LAG_HISTORY));
    history.drain(..surplus);
    history
}

/// The most that the lag was in each of so many equal parts of the span, which ends now. What was before the first that is known is left
/// out.
pub(crate) fn parts(scale: &ScaleStatus, count: i32, now: Timestamp) -> Vec<f64> {
    let mut parts = Vec::new();
    for part in 0..count {
        let begin = now - SPAN / count * (count - part);
        let end = begin + SPAN / count;
        let until = |time| scale.lag_history.iter().rev().find(move |lag| lag.at.0 <= time);
        let within = scale.lag_history.iter().filter(|lag| lag.at.0 > begin && lag.at.0 <= end);
        parts.extend(until(begin).into_iter().chain(within).map(|lag| lag.seconds).reduce(f64::max));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::UNIX_EPOCH;

    fn told(lags: &[(i64, f64)]) -> ScaleStatus {
        lags.iter().fold(ScaleStatus::default(), |old, (second, lag)| {
            let lag_history = goes_on(Some(&old), Some(*lag), START + SignedDuration::from_secs(*second));
            ScaleStatus { lag_history, ..old }
        })
    }

    fn seconds(scale: &ScaleStatus) -> Vec<i64> {
        scale.lag_history.iter().map(|lag| lag.at.0.as_second()).collect()
    }

    #[test]
    fn a_lag_that_stays_is_there_once_and_what_is_not_known_is_no_lag() {
        assert_eq!(seconds(&told(&[(0, 1.0), (15, 1.0), (30, 2.0), (45, 1.0)])), [0, 30, 45]);
        assert_eq!(goes_on(None, None, START), []);
        let old = told(&[(0, 1.0)]);
        assert_eq!(goes_on(Some(&old), None, START), old.lag_history);
    }

    #[test]
    fn it_goes_back_for_ten_minutes_and_never_grows_longer() {
        assert_eq!(seconds(&told(&[(0, 1.0), (30, 2.0), (600, 3.0)])), [0, 30, 600]);
        assert_eq!(seconds(&told(&[(0, 1.0), (30, 2.0), (630, 3.0)])), [30, 630], "the first was over when it begins");
        let many: Vec<_> = (0..100).map(|n| (i64::from(n), f64::from(n))).collect();
        assert_eq!(seconds(&told(&many)), (60..100).collect::<Vec<_>>());
    }

    #[test]
    fn each_part_has_the_most_of_what_was_and_of_what_came() {
        let scale = told(&[(60, 4.0), (130, 1.0), (140, 2.0), (200, 0.0), (590, 9.0)]);
        let at = START + SignedDuration::from_secs(600);
        assert_eq!(parts(&scale, 10, at), [4.0, 4.0, 4.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0]);
        assert_eq!(parts(&scale, 1, at), [9.0]);
        assert_eq!(parts(&ScaleStatus::default(), 10, at), Vec::<f64>::new());
        assert_eq!(parts(&scale, 2, at + SignedDuration::from_hours(1)), [9.0, 9.0], "it has not changed since");
    }
}
