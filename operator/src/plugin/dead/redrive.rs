//! Sends letters back: published with a confirm, and only then taken out of the queue.

use std::time::Duration;

use drover_crds::resolved::Pipeline;
use drover_worker::redrive::{Published, Redriver};
use k8s_openapi::jiff::Timestamp;
use lapin::message::Delivery;
use tokio::time::{Instant, sleep_until};

use super::{
    DeadError, DeadLetters, Pace, Report, Selection,
    scan::{Scan, WINDOW},
};

/// Letters whose confirms are awaited at once. Ended here, at most so many are at both places.
const BATCH: usize = 200;
/// What a channel holds is done within this, so that no consumer timeout strikes at a slow pace.
const WINDOW_SECONDS: f64 = 60.0;

/// Where letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// Back to a pipeline's source, through its own exchange.
    Source(String),
    /// To a queue, through the default exchange.
    Queue(String),
}

impl Destination {
    /// To where a pipeline's dead letters came from. An adopted queue is not bound to the pipeline's exchange.
    #[must_use]
    pub fn back(pipeline: &Pipeline) -> Self {
        let source = pipeline.queue.clone();
        if pipeline.adopt { Self::Queue(source) } else { Self::Source(source) }
    }

    fn address(&self) -> (String, &str) {
        match self {
            Self::Source(queue) => (format!("{queue}.drover"), "return"),
            Self::Queue(queue) => (String::new(), queue),
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Source(queue) => format!("exchange {queue}.drover with the key return"),
            Self::Queue(queue) => format!("queue {queue}"),
        }
    }

    fn queue(&self) -> &str {
        match self {
            Self::Source(queue) | Self::Queue(queue) => queue,
        }
    }
}

/// Sends letters back, in their order; `told` hears of each step.
///
/// Whatever ends it, nothing is lost: at most a batch is at both places, and another run goes on with the rest.
///
/// # Errors
/// If the queue cannot be read, or a letter finds no queue. What was not done is in the queue.
pub async fn redrive(
    letters: &DeadLetters,
    destination: &Destination,
    selection: &Selection,
    pace: &Pace,
    now: Timestamp,
    mut told: impl FnMut(&Report),
) -> Result<Report, DeadError> {
    if destination.queue() == letters.queue {
        return Err(DeadError::SameQueue(letters.queue.clone()));
    }
    let (exchange, key) = destination.address();
    let mut redriver = Redriver::new(letters.hub.clone(), &letters.queue, &exchange, key);
    let mut scan = Scan::open(letters, window(pace)).await?;
    let done = steps(&mut scan, &mut redriver, destination, selection, pace, now, &mut told).await;
    redriver.close().await;
    let closed = scan.close().await;
    let done = done?;
    closed?;
    Ok(done)
}

async fn steps(
    scan: &mut Scan,
    redriver: &mut Redriver,
    destination: &Destination,
    selection: &Selection,
    pace: &Pace,
    now: Timestamp,
    told: &mut impl FnMut(&Report),
) -> Result<Report, DeadError> {
    let mut report = Report { depth: scan.depth, ..Report::default() };
    let began = Instant::now();
    while let Some(meant) = super::purge::step(scan, selection, pace, now, batch(pace), &mut report).await? {
        if !pace.dry_run && !meant.is_empty() {
            send(scan, redriver, destination, &meant, &mut report).await?;
        }
        told(&report);
        if let Some(rate) = pace.rate.filter(|_| !pace.dry_run) {
            sleep_until(began + due(report.done, rate)).await;
        }
    }
    Ok(report)
}

async fn send(
    scan: &mut Scan,
    redriver: &mut Redriver,
    destination: &Destination,
    meant: &[Delivery],
    report: &mut Report,
) -> Result<(), DeadError> {
    let published = redriver.publish(&meant.iter().collect::<Vec<_>>()).await.map_err(DeadError::Publish)?;
    let mut worst = Published::Confirmed;
    for (letter, published) in meant.iter().zip(published) {
        if published == Published::Confirmed {
            scan.acknowledge(letter).await?;
            report.done += 1;
        } else {
            worst = published;
        }
    }
    scan.flush().await?;
    match worst {
        Published::Confirmed => Ok(()),
        Published::Unroutable => Err(DeadError::Unroutable(destination.name())),
        Published::Refused => Err(DeadError::Refused(destination.name())),
    }
}

/// When so many may be done.
fn due(done: u64, rate: f64) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "a count of letters is far below 2^52")]
    let seconds = done as f64 / rate;
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// Letters of a step: ten steps a second, where there is a rate.
fn batch(pace: &Pace) -> usize {
    let paced = pace.rate.map_or(BATCH, |rate| usize::from(whole(rate / 10.0)).min(BATCH));
    pace.held.map_or(paced, |held| paced.min(usize::from(held.max(1))))
}

fn window(pace: &Pace) -> u16 {
    pace.rate.map_or(WINDOW, |rate| whole(rate * WINDOW_SECONDS)).min(pace.held.unwrap_or(WINDOW))
}

fn whole(number: f64) -> u16 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let whole = number.ceil().clamp(1.0, f64::from(WINDOW)) as u16;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_pace_takes_few_at_once() {
        let pace = |rate| Pace { rate, ..Pace::default() };
        assert_eq!((batch(&pace(None)), window(&pace(None))), (BATCH, WINDOW));
        assert_eq!((batch(&pace(Some(5.0))), window(&pace(Some(5.0)))), (1, 300));
        assert_eq!((batch(&pace(Some(0.001))), window(&pace(Some(0.001)))), (1, 1));
        assert_eq!((batch(&pace(Some(1e9))), window(&pace(Some(1e9)))), (BATCH, WINDOW));
    }

    #[test]
    fn a_rate_says_when_the_next_may_go() {
        assert_eq!(due(50, 10.0), Duration::from_secs(5));
        assert_eq!(due(1, 0.0), Duration::MAX);
    }
}
