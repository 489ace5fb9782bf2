//! The documentation: links lead somewhere, every page is in the book, examples are what the API takes, fields and defaults are told.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use drover_crds::{
    api::{IngestPipeline, WindowQuery},
    resolved, resolved_query,
};
use kube::CustomResourceExt;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Files below a directory with that ending.
fn below(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(below(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Everything that people read.
fn pages() -> Vec<PathBuf> {
    let root = repository();
    let mut pages = below(&root.join("docs"), ".md");
    pages.extend(
        ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "charts/drover/README.md"]
            .map(|p| root.join(p)),
    );
    pages
}

/// Lines that are text, and fenced blocks with their language.
fn split(markdown: &str) -> (Vec<&str>, Vec<(&str, String)>) {
    let (mut text, mut blocks, mut open) = (Vec::new(), Vec::new(), None::<(&str, String)>);
    for line in markdown.lines() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => open = Some((language.trim(), String::new())),
            (None, Some((_, block))) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => text.push(line),
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    (text, blocks)
}

/// Targets of the links in a page.
fn links(markdown: &str) -> Vec<&str> {
    let (text, _) = split(markdown);
    text.into_iter()
        .flat_map(|line| line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target)))
        .collect()
}

/// The anchors that a page's headings make.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let (text, _) = split(markdown);
    text.into_iter()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            title
                .chars()
                .filter_map(|c| match c {
                    ' ' => Some('-'),
                    c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                    _ => None,
                })
                .collect()
        })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut dead = Vec::new();
    for page in pages() {
        for link in links(&read(&page)) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').map_or((link, None), |(f, a)| (f, Some(a)));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let found = target.is_file() && anchor.is_none_or(|a| anchors(&read(&target)).contains(a));
            if !found {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

#[test]
fn every_page_is_in_the_book() {
    let book = repository().join("docs/src");
    let summary = read(&book.join("SUMMARY.md"));
    let told: BTreeSet<PathBuf> = links(&summary).into_iter().map(|link| book.join(link)).collect();
    let there: BTreeSet<PathBuf> = below(&book, ".md").into_iter().filter(|p| !p.ends_with("SUMMARY.md")).collect();
    let apart: Vec<&PathBuf> = told.symmetric_difference(&there).collect();
    assert!(apart.is_empty(), "only in SUMMARY.md or only on disk: {apart:?}");
}

/// Every document of every YAML block in the pages, and of the examples, with its place.
fn examples() -> Vec<(String, Value)> {
    let mut sources: Vec<(String, String)> = pages()
        .into_iter()
        .flat_map(|page| {
            let text = read(&page);
            let (_, blocks) = split(&text);
            let place = page.display().to_string();
            blocks
                .into_iter()
                .filter(|(language, _)| *language == "yaml")
                .map(|(_, block)| (place.clone(), block))
                .collect::<Vec<_>>()
        })
        .collect();
    sources.extend(
        below(&repository().join("docs/examples"), ".yaml")
            .into_iter()
            // Objects of the tests of scripts for Argo CD: any version's, with what it may say in its status.
            .filter(|p| !p.components().any(|c| c.as_os_str() == "testdata"))
            .map(|p| (p.display().to_string(), read(&p))),
    );
    sources
        .into_iter()
        .flat_map(|(place, text)| {
            text.split("\n---\n")
                .map(|document| {
                    let value = serde_saphyr::from_str(document).unwrap_or_else(|e| panic!("{place}: {e}\n{document}"));
                    (place.clone(), value)
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Reads an object, and refuses what the type does not know.
fn exactly<T: DeserializeOwned + Serialize>(place: &str, value: &Value) -> T {
    let object: T = serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{place}: {e}"));
    let back = serde_json::to_value(&object).unwrap();
    let mut lost = Vec::new();
    missing(value, &back, "", &mut lost);
    assert!(lost.is_empty(), "{place}: unknown: {lost:?}");
    object
}

fn missing(before: &Value, after: &Value, path: &str, lost: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                let path = format!("{path}.{key}");
                match after.get(key) {
                    Some(there) => missing(value, there, &path, lost),
                    None => lost.push(path),
                }
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (index, (value, there)) in before.iter().zip(after).enumerate() {
                missing(value, there, &format!("{path}[{index}]"), lost);
            }
        }
        _ => {}
    }
}

#[test]
fn every_example_is_accepted() {
    let mut checked = 0;
    for (place, value) in examples() {
        match value["kind"].as_str() {
            Some("IngestPipeline") => {
                let pipeline: IngestPipeline = exactly(&place, &value);
                resolved::Pipeline::resolve(&pipeline.spec).unwrap_or_else(|e| panic!("{place}: {e}"));
                checked += 1;
            }
            Some("WindowQuery") => {
                let object: WindowQuery = exactly(&place, &value);
                resolved_query::Query::resolve(&object.spec).unwrap_or_else(|e| panic!("{place}: {e}"));
                checked += 1;
            }
            _ => {}
        }
    }
    assert!(checked >= 6, "only {checked} examples were found");
}

/// A property of the schema with its path.
fn properties(schema: &Value, path: &str, depth: usize, found: &mut Vec<String>) {
    let schema = if schema["items"].is_object() { &schema["items"] } else { schema };
    let Some(map) = schema["properties"].as_object() else { return };
    for (name, inner) in map {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        // Kubernetes' own types, and what is told once, are told by their name.
        let ours = !["resources", "env", "egress", "podTemplate", "secretRef"].contains(&name.as_str());
        if depth > 1 && ours {
            properties(inner, &path, depth - 1, found);
        }
        found.push(path);
    }
}

#[test]
fn every_field_is_in_the_reference() {
    let crd = serde_json::to_value(IngestPipeline::crd()).unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut fields = Vec::new();
    properties(spec, "", 4, &mut fields);
    let reference = read(&repository().join("docs/src/ingest-pipeline.md")).replace("[]", "");
    let told = |field: &str| {
        let name = field.rsplit('.').next().unwrap();
        let forms = [format!("`{field}`"), format!("`{field}."), format!("### {field}\n"), format!("| `{name}` |")];
        forms.iter().any(|form| reference.contains(form))
    };
    let untold: Vec<&String> = fields.iter().filter(|field| !told(field)).collect();
    assert!(fields.len() > 30, "{fields:?}");
    assert!(untold.is_empty(), "docs/src/ingest-pipeline.md says nothing of {untold:?}");
}

#[test]
fn the_reference_has_the_defaults_that_are_used() {
    let spec = serde_json::json!({
        "hub": { "secretRef": { "name": "hub" } },
        "source": { "queue": "q" },
        "sink": { "discard": {} },
    });
    let plain = resolved::Pipeline::resolve(&serde_json::from_value(spec).unwrap()).unwrap();
    let reference = read(&repository().join("docs/src/ingest-pipeline.md"));
    for (field, default) in [
        ("suspend", plain.suspend.to_string()),
        ("source.adopt", plain.adopt.to_string()),
        ("source.prefetch", plain.prefetch.to_string()),
        ("source.maxBytes", plain.max_bytes.to_string()),
        ("worker.concurrency", plain.concurrency.to_string()),
        ("scaling.mode", format!("{:?}", plain.scaling.mode)),
        ("scaling.replicas", plain.scaling.replicas.to_string()),
        ("scaling.minReplicas", plain.scaling.min_replicas.to_string()),
        ("scaling.maxReplicas", plain.scaling.max_replicas.to_string()),
        ("scaling.targetUtilization", plain.scaling.target_utilization.to_string()),
        ("scaling.catchUpSeconds", plain.scaling.catch_up_seconds.to_string()),
        ("scaling.cooldownSeconds", plain.scaling.cooldown_seconds.to_string()),
        ("scaling.fallbackReplicas", plain.scaling.fallback_replicas.to_string()),
        ("deadLetter.retentionSeconds", plain.retention_seconds.to_string()),
        ("hub.rotateDays", resolved::ROTATE_DAYS.to_string()),
        ("retry.attempts", plain.retry.attempts.to_string()),
        ("retry.initialSeconds", plain.retry.initial_seconds.to_string()),
        ("retry.maxSeconds", plain.retry.max_seconds.to_string()),
        ("deadLetter.maxMessages", plain.max_dead_letters.to_string()),
        ("deletionPolicy", format!("{:?}", plain.deletion_policy)),
    ] {
        assert!(reference.contains(&format!("| `{field}` | `{default}` |")), "{field}: {default}");
    }
    for (field, default) in
        [("port", u32::from(resolved::HANDLER_PORT)), ("timeoutSeconds", resolved::HANDLER_TIMEOUT_SECONDS)]
    {
        assert!(reference.contains(&format!("| `{field}` | `{default}` |")), "{field}: {default}");
    }
    assert_eq!(plain.id, resolved::MessageId::Property);
    assert_eq!(plain.dead_letter_queue, "q.dead");
    let memory = &plain.resources.limits.as_ref().unwrap()["memory"].0;
    assert!(reference.contains(&format!("limit {memory}")), "{memory}");
}

/// Reasons of conditions in the code: the first text of a problem, and names that an enum gives itself.
fn reasons(code: &str) -> BTreeSet<String> {
    let literal =
        |text: &str| text.trim_start().strip_prefix('"').and_then(|t| t.split_once('"')).map(|(l, _)| l.to_owned());
    let camel = |text: &String| {
        text.starts_with(|c: char| c.is_ascii_uppercase())
            && text.chars().filter(char::is_ascii_uppercase).count() > 1
            && text.chars().all(|c| c.is_ascii_alphanumeric())
    };
    let problems = code.split("Problem::new(").skip(1).filter_map(literal);
    let named = code.split("Self::").skip(1).filter_map(|rest| {
        let (name, after) = rest.split_once(" => ")?;
        literal(after).filter(|l| l == name)
    });
    problems.chain(named).filter(camel).collect()
}

#[test]
fn every_reason_is_in_the_runbook() {
    let runbook = read(&repository().join("docs/src/conditions.md"));
    let mut code = below(&repository().join("operator/src"), ".rs");
    code.extend(below(&repository().join("worker/src"), ".rs").into_iter().filter(|path| {
        let path = path.to_string_lossy();
        path.contains("/src/hub") || path.contains("/src/store")
    }));
    let untold: Vec<String> = code
        .iter()
        .flat_map(|path| reasons(&read(path)))
        .filter(|reason| !runbook.contains(&format!("`{reason}`")))
        .collect();
    assert!(untold.is_empty(), "docs/src/conditions.md does not say what to do about {untold:?}");
}

#[test]
fn reasons_are_found_in_code() {
    let code = r#"Problem::new(
        "HubRefuses", "no"); Self::TlsFailed => "TlsFailed", Self::Other => "Another", Problem::new(reason, "x")"#;
    assert_eq!(reasons(code).into_iter().collect::<Vec<_>>(), ["HubRefuses", "TlsFailed"]);
}
