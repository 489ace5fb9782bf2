//! What a query makes of what its streams hold, computed without a worker: the same messages and ticks, one after another.

use drover_worker::query::{Decoder, Engine, Ordering, Value, Verdict};
use drover_worker::stream::{ARRIVAL, TICK, settings::StreamSettings};
use lapin::{message::Delivery, types::AMQPValue};

fn header(delivery: &Delivery, name: &str) -> Option<i64> {
    match delivery.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongLongInt(n) => Some(*n * 10_000),
        other => panic!("{name} is {other:?}"),
    }
}

/// The rows of the streams' messages, each partition by itself in its order.
pub(crate) fn compute(settings: &StreamSettings, partitions: &[Vec<Delivery>]) -> Vec<Value> {
    let mut engine = Engine::new(&settings.plan);
    let decoder = Decoder::new(&settings.plan, None);
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    let mut least = i64::MAX;
    for deliveries in partitions {
        let mut time = Ordering::new(settings.tolerance, i64::MIN);
        for (position, delivery) in (0..).zip(deliveries) {
            if let Some(tick) = header(delivery, TICK) {
                time.tick(tick);
                continue;
            }
            let arrival = header(delivery, ARRIVAL);
            for event in decoder.message(&delivery.data).unwrap_or_default() {
                let Ok(at) = engine.time_of(&event) else { continue };
                let verdict = time.judge(at.or(arrival).unwrap(), arrival);
                if let Verdict::OnTime(at) | Verdict::Adjusted(at) = verdict
                    && engine.push(&event, at, position, &mut rows).is_err()
                {
                    continue;
                }
                time.take(verdict);
            }
        }
        least = least.min(time.watermark());
    }
    engine.advance(least, &mut rows, &mut errors);
    rows.into_iter().map(|made| made.row).collect()
}
