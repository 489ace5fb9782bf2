//! Waiting for what is claimed. Nothing else here sleeps.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep, timeout};

/// How often a probe is asked. Short against what is waited for, long against what a probe costs.
const PAUSE: Duration = Duration::from_millis(100);

/// A deadline is so many times what is expected: a machine that is busy fails no test.
const PATIENCE: u32 = 10;

/// Asks until the probe succeeds, for ten times as long as it should take. The last refusal is the error.
pub async fn until<T>(expected: Duration, probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    within(expected * PATIENCE, probe).await
}

/// Asks until the probe succeeds, for so long and no longer: for what is promised in so many seconds.
pub async fn within<T>(limit: Duration, mut probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(PAUSE);
        let answer = match timeout(left, probe()).await {
            Ok(answer) => answer,
            Err(elapsed) => Err(anyhow::Error::new(elapsed).context("the probe itself got no answer")),
        };
        match answer {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| format!("not within {} s", limit.as_secs_f64()));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Fails as soon as the claim does not hold, for as long as is said.
pub async fn throughout(span: Duration, mut claim: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        claim().await?;
        sleep(PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_probe_is_asked_until_it_succeeds() {
        let mut asked = 0;
        let answer = until(Duration::from_secs(1), async || {
            asked += 1;
            anyhow::ensure!(asked == 5, "{asked}");
            Ok(asked)
        });
        assert_eq!(answer.await.unwrap(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_refusal_is_the_error() {
        let answer = until(Duration::from_secs(1), async || Err::<(), _>(anyhow::anyhow!("3 of 4 rows")));
        let error = format!("{:#}", answer.await.unwrap_err());
        assert_eq!(error, "not within 10 s: 3 of 4 rows");
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_never_answers_ends_too() {
        let answer = until(Duration::from_secs(1), async || std::future::pending::<Result<()>>().await);
        assert!(answer.await.is_err());
    }
}
