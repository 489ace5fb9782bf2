//! Values in groups: equality, estimates, and what comes back from a store.

use drover_crds::query::parse;
use drover_worker::query::{Decoder, Engine, Value};

/// The rows of a query over bodies at the time 0; each body is aggregated apart and goes through a store if `stored`.
fn rows(query: &str, bodies: &[String], stored: bool) -> Vec<String> {
    let plan = parse(query).unwrap();
    let decoder = Decoder::new(&plan, None);
    let mut closer = Engine::new(&plan);
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    for (position, body) in (0..).zip(bodies) {
        let event = decoder.event(body.as_bytes()).unwrap();
        if stored {
            let mut worker = Engine::new(&plan);
            worker.push(&event, 0, position, &mut out).unwrap();
            worker.drain().iter().for_each(|p| assert!(closer.absorb(p)));
        } else {
            closer.push(&event, 0, position, &mut out).unwrap();
        }
    }
    closer.finish(&mut out, &mut errors);
    assert_eq!(errors, []);
    out.iter().map(|r| r.row.to_string()).collect()
}

fn bodies(values: &[&str]) -> Vec<String> {
    values.iter().map(|v| format!("{{\"v\":{v}}}")).collect()
}

#[test]
fn equal_numbers_are_one_group() {
    let query = "SELECT v, COUNT(*) AS c FROM x GROUP BY v, System.Timestamp()";
    for stored in [false, true] {
        assert_eq!(
            rows(query, &bodies(&["1", "1.0", "-0.0", "0"]), stored),
            ["{\"v\":1,\"c\":2}", "{\"v\":0,\"c\":2}"]
        );
    }
}

#[test]
fn a_value_comes_back_from_a_store_as_it_was() {
    let query = "SELECT MIN(v) AS lo, MAX(v) / 2 AS half, COLLECT() AS every, PERCENTILE_DISC(0.9) OVER (ORDER BY v) AS p, \
                 TOPONE() OVER (ORDER BY v DESC) AS top FROM x GROUP BY System.Timestamp()";
    let values = bodies(&["7.0", "3", "7", "-2.5"]);
    let expected = "{\"lo\":-2.5,\"half\":3,\"every\":[{\"v\":7.0},{\"v\":3},{\"v\":7},{\"v\":-2.5}],\"p\":7.0,\"top\":{\"v\":7.0}}";
    assert_eq!(rows(query, &values, false), [expected]);
    assert_eq!(rows(query, &values, true), [expected]);
}

#[test]
fn a_partial_of_another_form_is_not_absorbed() {
    let plan = parse("SELECT SUM(v) AS s FROM x GROUP BY System.Timestamp()").unwrap();
    let decoder = Decoder::new(&plan, None);
    let mut engine = Engine::new(&plan);
    engine.push(&decoder.event(b"{\"v\":1.5}").unwrap(), 0, 0, &mut Vec::new()).unwrap();
    let good = engine.drain().remove(0);
    for change in 0..=good.partial.len() {
        let mut bad = good.clone();
        match bad.partial.get_mut(change) {
            // The version.
            Some(byte) if change == 0 => *byte = 99,
            Some(_) => bad.partial.truncate(change),
            None => bad.partial.push(0),
        }
        assert!(!engine.absorb(&bad), "byte {change}");
    }
    assert!(!engine.absorb(&drover_worker::query::StoredPartial { step: 9, ..good.clone() }));
    assert!(engine.absorb(&good));
}

#[test]
fn an_estimate_of_distinct_values_is_near() {
    for distinct in [10_u32, 1_000, 100_000] {
        let values: Vec<String> = (0..distinct * 2).map(|i| format!("{{\"v\":{}}}", i % distinct)).collect();
        let row = &rows("SELECT APPROX_COUNT_DISTINCT(v) AS d FROM x GROUP BY System.Timestamp()", &values, false)[0];
        let estimate: f64 = row.trim_start_matches("{\"d\":").trim_end_matches('}').parse().unwrap();
        let error = (estimate - f64::from(distinct)).abs() / f64::from(distinct);
        assert!(error < 0.05, "{estimate} of {distinct}");
    }
}

#[test]
fn a_datetime_prints_milliseconds_or_all_digits() {
    assert_eq!(Value::DateTime(0).to_string(), "\"1970-01-01T00:00:00.000Z\"");
    assert_eq!(Value::DateTime(-1).to_string(), "\"1969-12-31T23:59:59.9999999Z\"");
}
