//! Bad queries: each is refused, at the right place.

use drover_crds::query::{parse, parse_transform};

/// Query, line, column, part of the message or hint.
const BAD: &[(&str, u64, u64, &str)] = &[
    ("", 1, 1, "empty"),
    ("   \n ", 1, 1, "empty"),
    ("UPDATE x SET y = 1", 1, 1, "SELECT"),
    ("SELECT", 1, 7, ""),
    ("SELECT a", 1, 1, "FROM is missing"),
    ("SELECT a FROM", 1, 14, ""),
    ("SELECT a FROM x WHERE", 1, 22, ""),
    ("SELECT a,\n  FROM x", 2, 8, "FROM"),
    ("SELECT 'a FROM x", 1, 8, ""),
    ("SELECT a FROM x WHERE a = = 1", 1, 27, ""),
    ("SELECT a FROM x JOIN y ON x.a = y.a", 1, 22, "JOIN"),
    ("SELECT a FROM x, y", 1, 18, "JOIN"),
    ("SELECT LAG(a) FROM x", 1, 8, "LAG"),
    ("SELECT LAST(a) FROM x", 1, 8, "TOPONE"),
    ("SELECT ISFIRST(minute, 1) FROM x", 1, 8, "ISFIRST"),
    ("SELECT LAG(a) OVER (PARTITION BY b LIMIT DURATION(hour, 1)) FROM x", 1, 8, "LAG"),
    ("SELECT FOO(a) FROM x", 1, 8, "unknown function FOO"),
    ("SELECT\n  UPER(a) AS u FROM x", 2, 3, "UPPER"),
    ("SELECT UDF.f(a) FROM x", 1, 8, "handler"),
    ("SELECT GETDATE() FROM x", 1, 8, "clock"),
    ("SELECT IIF(a = 1, 1, 2) FROM x", 1, 8, "CASE"),
    ("SELECT CONVERT(bigint, a) FROM x", 1, 24, "CAST"),
    ("SELECT LEN(a, b) FROM x", 1, 8, "LEN takes 1"),
    ("SELECT SUBSTRING(a) FROM x", 1, 18, "SUBSTRING"),
    ("SELECT DATEADD(a, 1, b) FROM x", 1, 16, "no part of a date"),
    ("SELECT DATEADD('day', 1, b) FROM x", 1, 16, "part of a date"),
    ("SELECT CAST(a AS int) FROM x", 1, 13, "bigint"),
    ("SELECT CAST(a AS varchar(10)) FROM x", 1, 13, "nvarchar(max)"),
    ("SELECT a::bigint FROM x", 1, 8, "CAST"),
    ("SELECT 99999999999999999999 AS n FROM x", 1, 8, "range"),
    ("SELECT 1 / 0 AS n FROM x", 1, 12, "division by zero"),
    ("SELECT 'a' * 2 AS n FROM x", 1, 8, "text"),
    ("SELECT -'a' AS n FROM x", 1, 9, "text"),
    ("SELECT a || b AS n FROM x", 1, 8, "CONCAT"),
    ("SELECT a[0] AS n FROM x", 1, 13, "unexpected AS"),
    ("SELECT b + AS c FROM x", 1, 12, "unexpected AS (a column of that name is [AS])"),
    ("SELECT b FROM x WHERE AND = 1", 1, 23, "unexpected AND"),
    ("SELECT b > 2 AS m FROM x", 1, 8, "condition"),
    ("SELECT a FROM x WHERE 1", 1, 23, "condition"),
    ("SELECT a FROM x WHERE a + 1", 1, 23, "condition"),
    ("SELECT a FROM x WHERE a LIKE 'b' ESCAPE 'cc'", 1, 41, "ESCAPE"),
    ("SELECT a FROM x WHERE EXISTS (SELECT b FROM x)", 1, 31, "WITH"),
    ("SELECT a FROM x WHERE a IN (SELECT b FROM x)", 1, 23, "WITH"),
    ("SELECT (SELECT b FROM x) AS c FROM x", 1, 9, "WITH"),
    ("SELECT a FROM (SELECT b FROM x) AS y", 1, 16, "WITH"),
    ("SELECT DISTINCT a FROM x", 1, 1, "DISTINCT"),
    ("SELECT TOP 3 a FROM x", 1, 1, "TOP"),
    ("SELECT a FROM x ORDER BY a", 1, 26, "ORDER BY"),
    ("SELECT a FROM x UNION SELECT b FROM x", 1, 1, "UNION"),
    ("SELECT a FROM s.x", 1, 15, "input"),
    ("SELECT a AS n, b AS N FROM x", 1, 16, "two columns are named N"),
    ("SELECT 1, 2 FROM x", 1, 11, "two columns have no name"),
    ("SELECT COUNT(*) FROM x", 1, 8, "GROUP BY"),
    ("SELECT a FROM x WHERE COUNT(*) > 1", 1, 23, "GROUP BY"),
    ("SELECT a FROM x HAVING a > 1", 1, 24, "HAVING"),
    ("SELECT a FROM x GROUP BY a", 1, 26, "no window"),
    ("SELECT b FROM x GROUP BY a, TumblingWindow(minute, 1)", 1, 8, "neither in GROUP BY"),
    ("SELECT * FROM x GROUP BY a, TumblingWindow(minute, 1)", 1, 8, "GROUP BY"),
    ("SELECT 1 AS a FROM x GROUP BY 1, TumblingWindow(minute, 1)", 1, 31, "constant"),
    ("SELECT 1 AS a FROM x GROUP BY TumblingWindow(minute, 0)", 1, 54, "at least 1"),
    ("SELECT 1 AS a FROM x GROUP BY TumblingWindow(day, 8)", 1, 51, "7 days"),
    ("SELECT 1 AS a FROM x GROUP BY TumblingWindow(year, 1)", 1, 46, "no unit"),
    ("SELECT 1 AS a FROM x GROUP BY TumblingWindow(minute, 1.5)", 1, 54, "whole number"),
    ("SELECT 1 AS a FROM x GROUP BY TumblingWindow(minute)", 1, 31, "TUMBLINGWINDOW(unit, size"),
    ("SELECT 1 AS a FROM x GROUP BY HoppingWindow(minute, 1, 2)", 1, 31, "hop"),
    ("SELECT 1 AS a FROM x GROUP BY HoppingWindow(Duration(day, 7), Hop(ms, 1))", 1, 31, "more than"),
    ("SELECT 1 AS a FROM x GROUP BY SlidingWindow(minute, 1, 1)", 1, 31, "SLIDINGWINDOW"),
    ("SELECT 1 AS a FROM x GROUP BY SessionWindow(minute, 5, 1)", 1, 31, "shorter"),
    ("SELECT 1 AS a FROM x GROUP BY TumblingWindow(minute, 1), SlidingWindow(minute, 1)", 1, 58, "two windows"),
    ("SELECT 1 AS a FROM x GROUP BY Windows()", 1, 31, "empty"),
    (
        "SELECT 1 AS a FROM x GROUP BY Windows(Window('a', TumblingWindow(minute, 1)), Window('a', TumblingWindow(minute, 2)))",
        1,
        79,
        "id 'a'",
    ),
    ("SELECT 1 AS a FROM x GROUP BY TUMBLE(minute, 1)", 1, 31, "unknown window"),
    ("SELECT TumblingWindow(minute, 1) AS w FROM x", 1, 8, "GROUP BY"),
    ("SELECT System.Window().Id AS w FROM x", 1, 8, "GROUP BY"),
    ("SELECT System.Foo AS w FROM x", 1, 8, "System"),
    ("SELECT SUM() AS s FROM x GROUP BY TumblingWindow(minute, 1)", 1, 8, "SUM"),
    ("SELECT SUM(DISTINCT a) AS s FROM x GROUP BY TumblingWindow(minute, 1)", 1, 8, "DISTINCT"),
    ("SELECT SUM('a') AS s FROM x GROUP BY TumblingWindow(minute, 1)", 1, 8, "text"),
    ("SELECT SUM(COUNT(*)) AS s FROM x GROUP BY TumblingWindow(minute, 1)", 1, 12, "no group"),
    ("SELECT TOPONE() AS s FROM x GROUP BY TumblingWindow(minute, 1)", 1, 8, "ORDER BY"),
    (
        "SELECT PERCENTILE_CONT(1.5) OVER (ORDER BY a) AS s FROM x GROUP BY TumblingWindow(minute, 1)",
        1,
        24,
        "0.0 to 1.0",
    ),
    ("SELECT COLLECTTOP(0) OVER (ORDER BY a) AS s FROM x GROUP BY TumblingWindow(minute, 1)", 1, 19, "whole number"),
    ("SELECT AVG(a) OVER (PARTITION BY b) AS s FROM x GROUP BY TumblingWindow(minute, 1)", 1, 8, "analytic"),
    ("WITH s AS (SELECT a FROM x) SELECT b FROM s", 1, 36, "no column b"),
    ("WITH s AS (SELECT a FROM x), s AS (SELECT a FROM x) SELECT a FROM s", 1, 30, "two steps"),
    ("WITH s AS (SELECT a INTO o FROM x) SELECT a FROM s", 1, 6, "INTO"),
    ("SELECT a FROM x SELECT a FROM y", 1, 31, "neither the input"),
    ("SELECT a FROM x TIMESTAMP BY t SELECT a FROM x TIMESTAMP BY u", 1, 48, "another TIMESTAMP BY"),
    ("WITH s AS (SELECT a FROM x) SELECT a FROM s TIMESTAMP BY a", 1, 45, "not to a step"),
    ("SELECT a FROM x TIMESTAMP BY System.Timestamp()", 1, 17, "System.Timestamp"),
    ("SELECT a FROM x CROSS APPLY Foo(a) AS b", 1, 29, "cannot be applied"),
    ("SELECT a FROM x CROSS APPLY GetArrayElements(a)", 1, 29, "name"),
    ("SELECT b.Foo FROM x CROSS APPLY GetArrayElements(a) AS b", 1, 8, "ArrayIndex"),
    ("CREATE TABLE x (a bigint)", 1, 1, "CAST(x AS type)"),
    (
        "SELECT a FROM x MATCH_RECOGNIZE (LIMIT DURATION(minute, 1) PATTERN (A) DEFINE A AS a > 1) AS m",
        1,
        17,
        "patterns",
    ),
    ("SELECT COUNT(*) OVER (LIMIT DURATION(minute, 1)) AS c FROM x", 1, 8, "COUNT as an analytic function"),
    ("SELECT a FROM x TIMESTAMP BY t AS y", 1, 32, "alias stands before"),
    ("SELECT a FROM x WHERE a !< 2", 1, 25, "unexpected"),
    ("SELECT ISNULL(a, 1) AS b FROM x", 1, 8, "COALESCE"),
    ("SELECT GETMETADATAPROPERTYVALUE(x, 'y') AS b FROM x", 1, 8, "message body"),
    ("SELECT CreatePoint(a, b) AS p FROM x", 1, 8, "geospatial"),
    ("SELECT ST_DISTANCE(a, b) AS p FROM x", 1, 8, "geospatial"),
    ("SELECT AnomalyDetection_SpikeAndDip(a, 95, 120, 'spikes') AS p FROM x", 1, 8, "models"),
    ("SELECT RAND() AS r FROM x", 1, 8, "computed again"),
    ("SELECT uda.f(a) AS s FROM x GROUP BY TumblingWindow(minute, 1)", 1, 8, "handler"),
    ("SELECT a FROM x WHERE a = TRUE", 1, 27, "CAST(1 AS bit)"),
    ("SELECT a FROM x LIMIT 5", 1, 1, "LIMIT"),
    ("SELECT a FROM x WITH (NOLOCK)", 1, 23, "hints"),
    (
        "SELECT 1 AS a FROM x GROUP BY Windows(Window('a', TumblingWindow(minute, 1)), Window('A', TumblingWindow(minute, 2)))",
        1,
        79,
        "id 'A'",
    ),
    (
        "SELECT 1 AS a FROM x GROUP BY Windows(Window('a', TumblingWindow(minute, 1)), TumblingWindow(minute, 2))",
        1,
        79,
        "some have none",
    ),
    (
        "SELECT 1 AS a FROM x GROUP BY Windows(TumblingWindow(minute, 1), TumblingWindow(minute, 1))",
        1,
        66,
        "holds this window twice",
    ),
    ("SELECT 1 AS a FROM x GROUP BY Windows(Windows(TumblingWindow(minute, 1)))", 1, 39, "holds windows"),
    (
        "SELECT TOPONE() OVER (ORDER BY a NULLS LAST) AS s FROM x GROUP BY TumblingWindow(minute, 1)",
        1,
        32,
        "smallest value",
    ),
    ("SELECT ((((((((((((((((((((a)))))))))))))))))))) FROM x", 1, 24, "nested"),
];

#[test]
fn every_bad_query_is_refused_at_its_place() {
    assert!(BAD.len() >= 100);
    let mut wrong = Vec::new();
    for (query, line, column, part) in BAD {
        match parse(query) {
            Ok(_) => wrong.push(format!("accepted: {query}")),
            Err(e) if !e.to_string().contains(part) || (*line, *column) != (e.line, e.column) => {
                wrong.push(format!("{query}\n   expected {line}:{column} {part}\n   got {e}"));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_transform_has_neither_windows_nor_outputs_nor_time() {
    for (query, at, part) in [
        ("SELECT a FROM x GROUP BY TumblingWindow(minute, 1)", (1, 26), "GROUP BY"),
        ("SELECT COUNT(*) AS c FROM x", (1, 8), "COUNT stands where there is no group"),
        ("SELECT a INTO b FROM x", (1, 15), "INTO"),
        ("SELECT a\nFROM x TIMESTAMP BY t", (2, 8), "TIMESTAMP BY"),
        ("SELECT a FROM x SELECT b FROM x", (1, 17), "one SELECT"),
    ] {
        let error = parse_transform(query).unwrap_err();
        assert!(error.message.contains(part) && (error.line, error.column) == at, "{query}: {error}");
    }
    assert!(parse_transform("SELECT a.b AS c FROM x WHERE a.b > 1").is_ok());
}
