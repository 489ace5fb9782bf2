//! Deletes letters.

use k8s_openapi::jiff::Timestamp;
use lapin::message::Delivery;

use super::{
    DeadError, DeadLetters, Pace, Report, Selection,
    scan::{Scan, WINDOW},
};

/// Deletes letters for good; `told` hears of each step. Without a pace's rate.
///
/// # Errors
/// If the queue cannot be read.
pub async fn purge(
    letters: &DeadLetters,
    selection: &Selection,
    pace: &Pace,
    now: Timestamp,
    mut told: impl FnMut(&Report),
) -> Result<Report, DeadError> {
    let mut scan = Scan::open(letters, WINDOW).await?;
    let mut report = Report { depth: scan.depth, ..Report::default() };
    while let Some(meant) = step(&mut scan, selection, pace, now, usize::from(WINDOW), &mut report).await? {
        if !pace.dry_run {
            for letter in &meant {
                scan.acknowledge(letter).await?;
                report.done += 1;
            }
        }
        told(&report);
    }
    scan.close().await?;
    Ok(report)
}

/// The next letters that are meant, perhaps none; `None` at the end, or when there are as many as were asked for.
pub(super) async fn step(
    scan: &mut Scan,
    selection: &Selection,
    pace: &Pace,
    now: Timestamp,
    most: usize,
    report: &mut Report,
) -> Result<Option<Vec<Delivery>>, DeadError> {
    let left = pace.most.map_or(u64::MAX, |most| most - report.matched);
    let most = usize::try_from(left).unwrap_or(usize::MAX).min(most);
    if most == 0 {
        return Ok(None);
    }
    let mut batch = scan.batch(most).await?;
    if batch.is_empty() {
        return Ok(None);
    }
    report.looked = scan.taken;
    batch.retain(|letter| selection.matches(letter, now));
    report.matched += u64::try_from(batch.len()).expect("a usize is at most 64 bits");
    Ok(Some(batch))
}
