//! Whatever comes in, an error or a result comes out. A seeded generator mutates valid texts, so that a failure is found again; the
//! ignored tests run long. `make fuzz` searches with the coverage of the code, from the same texts.

use drover_crds::query::parse;
use drover_worker::query::{Decoder, Engine};
use serde_json::json;

const QUERIES: &[&str] = &[
    "SELECT input.payloads.pref AS pref, System.Timestamp AS WindowEnd, COUNT(*) AS Count FROM [input] TIMESTAMP BY DATEADD(millisecond, timestamp, '1970-01-01T00:00:00Z') GROUP BY TUMBLINGWINDOW(minute, 1), input.payloads.pref",
    "WITH s AS (SELECT k, SUM(v) AS v FROM x TIMESTAMP BY t OVER k GROUP BY k, Windows(Window('a', SlidingWindow(second, 5)), Window('b', SessionWindow(second, 1, 2)))) SELECT k INTO o FROM s WHERE v BETWEEN 1 AND -2 SELECT * INTO p FROM s",
    "SELECT CASE WHEN a LIKE 'x%[a-z]' ESCAPE '!' THEN CAST(b AS nvarchar(max)) ELSE NULL END AS c, e.ArrayValue FROM x CROSS APPLY GetArrayElements(x.y) AS e WHERE NOT a IS NULL OR b IN (1, 2.5e3, 'z')",
    "SELECT TOPONE() OVER (ORDER BY a DESC, b) AS t, PERCENTILE_CONT(0.5) OVER (ORDER BY v) AS p FROM x GROUP BY HoppingWindow(Duration(hour, 1), Hop(minute, 5), Offset(ms, -1)), k HAVING COUNT(*) > 1",
];
const EVENTS: &[&str] = &[
    r#"{"timestamp":1767268800000,"payloads":{"pref":"Tokyo","temp":20.5e-3},"t":"2026-01-01T00:00:00Z","k":null,"v":-1,"y":[1,{"a":true}]}"#,
    r#"[{"t":"9999-12-31T23:59:59.9999999Z","v":9223372036854775807},{"t":"0001-01-01","v":-9223372036854775808}]"#,
    "{\"a\":\"\\u00e9\\n\"}\n{\"b\":1e308}\n",
];

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n.max(1)
    }

    fn mutate(&mut self, seeds: &[&str]) -> Vec<u8> {
        const BITS: &[&str] = &[
            "(",
            ")",
            "[",
            "{",
            "'",
            "\"",
            ",",
            " SELECT ",
            " OVER (",
            "9",
            "-",
            "0x",
            "\u{0}",
            "é",
            " TIMESTAMP BY ",
            " CASE WHEN ",
            "NOT ",
            "null",
        ];
        let mut text = seeds[self.below(seeds.len())].as_bytes().to_vec();
        for _ in 0..=self.below(6) {
            let at = self.below(text.len());
            match self.below(5) {
                0 => drop(text.drain(at..(at + 1 + self.below(8)).min(text.len()))),
                1 => text.splice(at..at, BITS[self.below(BITS.len())].bytes().collect::<Vec<_>>()).for_each(drop),
                2 => text
                    .splice(at..at, BITS[self.below(BITS.len())].repeat(1 + self.below(300)).into_bytes())
                    .for_each(drop),
                3 if at < text.len() => text[at] = u8::try_from(self.below(256)).unwrap(),
                _ => {
                    let other = seeds[self.below(seeds.len())].as_bytes();
                    let from = self.below(other.len());
                    text.splice(at..at, other[from..].to_vec()).for_each(drop);
                }
            }
        }
        text
    }
}

fn fuzz_parser(seed: u64, runs: u32) {
    let mut random = Random(seed);
    for _ in 0..runs {
        let text = random.mutate(QUERIES);
        let text = String::from_utf8_lossy(&text);
        if let Err(error) = parse(&text) {
            assert!(error.line >= 1 && error.column >= 1, "{text}: {error}");
        }
    }
}

fn fuzz_decoder(seed: u64, runs: u32) {
    let mut random = Random(seed);
    let plans: Vec<_> = QUERIES.iter().map(|q| parse(q).unwrap()).collect();
    let mut engines: Vec<_> = plans.iter().map(|p| (Decoder::new(p, Some("a")), Engine::new(p))).collect();
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    for run in 0..runs {
        let body = random.mutate(EVENTS);
        let (decoder, engine) = &mut engines[random.below(QUERIES.len())];
        for event in decoder.message(&body).unwrap_or_default() {
            let time = engine.time_of(&event).ok().flatten().unwrap_or(0);
            let _ = engine.push(&event, time, u64::from(run), &mut out);
        }
    }
    for (_, engine) in &mut engines {
        engine.finish(&mut out, &mut errors);
    }
}

#[test]
fn the_parser_survives_mutated_queries() {
    fuzz_parser(1, 500);
}

#[test]
fn the_decoder_and_the_engine_survive_mutated_events() {
    fuzz_decoder(1, 2_000);
}

#[test]
#[ignore = "the long run, part of the full tests"]
fn the_parser_survives_many_mutated_queries() {
    (0..40).for_each(|seed| fuzz_parser(seed, 2_000));
}

#[test]
#[ignore = "the long run, part of the full tests"]
fn the_decoder_and_the_engine_survive_many_mutated_events() {
    (0..40).for_each(|seed| fuzz_decoder(seed, 10_000));
}

#[test]
fn what_cannot_be_computed_is_an_error_of_its_event() {
    for (expression, x) in [
        ("x + 1", json!(i64::MAX)),
        ("-x", json!(i64::MIN)),
        ("x / 0.0", json!(1)),
        ("x % y", json!(1)),
        ("x * 1e308", json!(1e300)),
        ("CAST(x AS bigint)", json!("1e9")),
        ("CAST(x AS datetime)", json!("2026-02-30")),
        ("DATEADD(year, x, '2026-01-01')", json!(9000)),
        ("DATEADD(day, x, '2026-01-01')", json!(i64::MAX)),
        ("REPLICATE('ab', x)", json!(i64::MAX)),
        ("SQRT(x)", json!(-1)),
        ("EXP(x)", json!(1e6)),
        ("GetArrayElement(x, 0)", json!(1)),
        ("SUBSTRING('a', 1, x)", json!(-1)),
        ("TRANSLATE('a', x, 'ab')", json!("a")),
        ("ROUND(x, 0)", json!("a")),
        ("ABS(x)", json!(i64::MIN)),
        ("DATETIMEFROMPARTS(2026, 2, x, 0, 0, 0, 0)", json!(30)),
        ("DATEADD(year, -1, x)", json!("0001-01-01")),
        ("x & 1", json!(1.5)),
        ("REPLACE(REPLICATE('ab', 500000), 'a', x)", json!("abcdefgh")),
        ("CAST(x AS bigint)", json!(1e30)),
        ("x > 1", json!({})),
    ] {
        let expression =
            if expression.contains('>') { format!("CASE WHEN {expression} THEN 1 END") } else { expression.to_owned() };
        let plan = parse(&format!("SELECT {expression} AS r FROM input")).unwrap();
        let event = Decoder::new(&plan, None).event(json!({"x": x, "y": 0}).to_string().as_bytes()).unwrap();
        assert!(Engine::new(&plan).push(&event, 0, 0, &mut Vec::new()).is_err(), "{expression} of {x}");
    }
}

#[test]
fn deep_nesting_is_an_error_of_its_event() {
    let plan = parse("SELECT * FROM input").unwrap();
    for body in ["[".repeat(20_000), format!("{{\"a\":{}", "[".repeat(20_000)), "{\"a\":".repeat(20_000)] {
        assert!(Decoder::new(&plan, None).message(body.as_bytes()).is_err());
    }
}
