//! When the oldest message of a dead-letter queue came there. It stays where it is: see [`super::topology::dead_letters`] for why
//! a look costs it nothing.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use lapin::{
    message::BasicGetMessage,
    options::BasicGetOptions,
    types::{AMQPValue, FieldTable},
};

use super::{
    pool::Hub,
    reply::{lost, short},
};
use crate::problem::Problem;

/// Of a dead letter by a worker: when it came to be one.
const LAST_FAILURE: &str = "x-drover-last-failure";
/// Of one by the broker.
const DEATHS: &str = "x-death";
/// A hub that does not answer within this is asked again another time.
const PATIENCE: Duration = Duration::from_secs(3);

impl Hub {
    /// When the message at the head of a dead-letter queue came there; `None` where none is there, or none that says so.
    ///
    /// # Errors
    /// If the hub does not answer.
    pub async fn oldest(&self, queue: &str) -> Result<Option<Timestamp>, Problem> {
        let silent = |_| Err(Problem::new("Timeout", format!("hub: no answer within {} s", PATIENCE.as_secs())));
        tokio::time::timeout(PATIENCE, self.head(queue)).await.unwrap_or_else(silent)
    }

    async fn head(&self, queue: &str) -> Result<Option<Timestamp>, Problem> {
        let channel = self.channel().await?;
        let got = channel.basic_get(short(queue)?, BasicGetOptions { no_ack: false }).await.map_err(|e| lost(&e))?;
        // With the channel the message goes back to the head.
        let _ = channel.close(200, "done".into()).await;
        Ok(got.as_ref().and_then(since))
    }
}

fn since(message: &BasicGetMessage) -> Option<Timestamp> {
    died(message.properties.headers().as_ref()?)
}

fn died(headers: &FieldTable) -> Option<Timestamp> {
    let of_worker = match headers.inner().get(LAST_FAILURE) {
        Some(AMQPValue::LongString(text)) => text.to_string().parse().ok(),
        _ => None,
    };
    of_worker.or_else(|| by_broker(headers))
}

/// The newest death is the first of the list.
fn by_broker(headers: &FieldTable) -> Option<Timestamp> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get(DEATHS)? else { return None };
    let AMQPValue::FieldTable(newest) = deaths.as_slice().first()? else { return None };
    let AMQPValue::Timestamp(seconds) = newest.inner().get("time")? else { return None };
    Timestamp::from_second(i64::try_from(*seconds).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: Vec<(&str, AMQPValue)>) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in pairs {
            table.insert(name.into(), value);
        }
        table
    }

    #[test]
    fn a_worker_or_the_broker_says_when_a_letter_died() {
        let death = |seconds| AMQPValue::FieldTable(headers(vec![("time", AMQPValue::Timestamp(seconds))]));
        let deaths = AMQPValue::FieldArray(vec![death(60), death(30)].into());
        let text = |text: &str| AMQPValue::LongString(text.into());
        let second = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        let both = headers(vec![(LAST_FAILURE, text("1970-01-01T00:02:00Z")), (DEATHS, deaths.clone())]);
        assert_eq!(died(&both), second(120));
        assert_eq!(died(&headers(vec![(DEATHS, deaths)])), second(60));
        assert_eq!(died(&headers(vec![(LAST_FAILURE, text("yesterday"))])), None);
        assert_eq!(died(&FieldTable::default()), None);
    }
}
