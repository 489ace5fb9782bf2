//! The page on the query language: each of its lines names tests or examples that exist.

use std::{collections::BTreeSet, fs, path::Path};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The lines of a table below a heading, without its head.
fn table(page: &str, heading: &str) -> Vec<String> {
    let part = page.split(&format!("\n## {heading}\n")).nth(1).unwrap();
    let part = part.split("\n## ").next().unwrap();
    part.lines().filter(|l| l.starts_with('|')).skip(2).map(str::to_owned).collect()
}

/// What stands in backticks in the last column.
fn named(line: &str) -> Vec<String> {
    let last = line.trim_end_matches(['|', ' ']).rsplit(" | ").next().unwrap();
    last.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Tests, and cases of the file of cases.
fn tests() -> BTreeSet<String> {
    let files =
        ["query_cases.rs", "query_cli.rs", "query_fuzz.rs", "query_oracle.rs", "query_transform.rs", "query_values.rs"];
    let mut texts: Vec<String> = files.iter().map(|f| read(&format!("tests/{f}"))).collect();
    texts.push(read("../crds/tests/query_refused.rs"));
    let functions = texts.iter().flat_map(|t| t.split("#[test]\nfn ").skip(1));
    let mut names: BTreeSet<String> = functions.filter_map(|t| t.split('(').next()).map(str::to_owned).collect();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&read("tests/query_cases.json")).unwrap();
    names.extend(cases.iter().map(|c| c["name"].as_str().unwrap().to_owned()));
    names
}

#[test]
fn each_line_of_the_page_names_tests_that_exist() {
    let (page, tests) = (read("../docs/src/query-language.md"), tests());
    for heading in ["Supported", "Different"] {
        for line in table(&page, heading) {
            let names = named(&line);
            assert!(!names.is_empty(), "no test: {line}");
            for name in names {
                assert!(tests.contains(&name), "there is no test {name}: {line}");
            }
        }
    }
}

#[test]
fn each_refused_form_has_an_example_that_is_tested() {
    let (page, refused) = (read("../docs/src/query-language.md"), read("../crds/tests/query_refused.rs"));
    for line in table(&page, "Refused") {
        let examples = named(&line);
        assert!(!examples.is_empty(), "no example: {line}");
        for example in examples {
            assert!(refused.contains(&format!("\"{example}\"")), "not tested: {example}");
        }
    }
}

#[test]
fn every_case_is_on_the_page() {
    let page = read("../docs/src/query-language.md");
    let cases: Vec<serde_json::Value> = serde_json::from_str(&read("tests/query_cases.json")).unwrap();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        assert!(page.contains(&format!("`{name}`")), "{name} is not on the page");
    }
}
