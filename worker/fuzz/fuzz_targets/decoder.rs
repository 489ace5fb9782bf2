//! Any body is events or an error, and any event is rows or an error. The first byte picks a query.
#![no_main]

use std::sync::LazyLock;

use drover_crds::query::{Plan, parse};
use drover_worker::query::{Decoder, Engine, Ordering, Tolerance, Verdict};
use libfuzzer_sys::fuzz_target;

static PLANS: LazyLock<Vec<Plan>> = LazyLock::new(|| {
    [
        "SELECT a.b AS b, GetType(k) AS t, UPPER(s) AS u, v * 2 + 1 AS w, CAST(v AS nvarchar(max)) AS n, REGEXMATCH(s, k) AS r FROM x WHERE s LIKE 'a%' OR v > 1",
        "SELECT *, x.ArrayValue FROM e CROSS APPLY GetArrayElements(e.y) AS x",
        "SELECT k, COUNT(*) AS c, SUM(v) AS s, AVG(v) AS a, STDEV(v) AS d, MIN(v) AS lo, COUNT(DISTINCT v) AS n FROM x TIMESTAMP BY t GROUP BY k, HoppingWindow(second, 10, 5)",
        "SELECT TOPONE() OVER (ORDER BY v DESC) AS top, COLLECT(v) AS all, PERCENTILE_CONT(0.5) OVER (ORDER BY v) AS p FROM x TIMESTAMP BY DATEADD(ms, t, '1970-01-01') GROUP BY SessionWindow(minute, 1, 5) OVER (PARTITION BY k)",
        "SELECT DATEADD(month, v, t) AS d, DATEDIFF(week, t, s) AS w, DATEPART(week, t) AS p, ROUND(v, 2) AS r, SUBSTRING(s, v, v) AS sub, STUFF(s, v, 1, k) AS st FROM x TIMESTAMP BY t",
    ]
    .iter()
    .map(|q| parse(q).expect("the queries are valid"))
    .collect()
});

fuzz_target!(|data: &[u8]| {
    let Some((pick, body)) = data.split_first() else { return };
    let plan = &PLANS[usize::from(*pick) % PLANS.len()];
    let (decoder, mut engine) = (Decoder::new(plan, Some("arrival")), Engine::new(plan));
    let Ok(events) = decoder.message(body) else { return };
    let mut ordering = Ordering::new(Tolerance::default(), i64::MIN);
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    for (position, event) in (0..).zip(&events) {
        let Ok(time) = engine.time_of(event) else { continue };
        let verdict = ordering.judge(time.unwrap_or(0), time);
        if let Verdict::OnTime(at) | Verdict::Adjusted(at) = verdict {
            if engine.push(event, at, position, &mut out).is_err() {
                continue;
            }
        }
        ordering.take(verdict);
        engine.advance(ordering.watermark(), &mut out, &mut errors);
    }
    // What is open survives its stored form.
    let mut closer = Engine::new(plan);
    for partial in engine.drain() {
        assert!(closer.absorb(&partial));
    }
    closer.finish(&mut out, &mut errors);
    for row in &out {
        let text = row.row.to_string();
        assert!(text.starts_with('{') && text.ends_with('}'), "{text}");
    }
});
