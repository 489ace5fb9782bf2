//! The chart: what it holds, what it renders, and that its README tells the values as they are.
//!
//! Rendering needs Helm in `PATH` (`make test-pure` sees to it) and no network. `make chart-readme` rewrites the values in the README.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn chart() -> PathBuf {
    repository().join("charts/drover")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Files of a directory with that ending, by name.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<PathBuf> =
        entries.map(|e| e.unwrap().path()).filter(|p| p.to_string_lossy().ends_with(ending)).collect();
    found.sort();
    found
}

/// Runs Helm; `None` where there is none.
fn helm(arguments: &[&str]) -> Option<Output> {
    let scratch = std::env::temp_dir().join("drover-chart-test");
    let run = Command::new("helm")
        .args(arguments)
        .current_dir(chart())
        .env("HELM_CACHE_HOME", &scratch)
        .env("HELM_CONFIG_HOME", &scratch)
        .env("HELM_DATA_HOME", &scratch)
        .env_remove("KUBECONFIG")
        .output();
    if run.is_err() {
        eprintln!("helm is not in PATH: nothing was rendered (make test-pure builds it)");
    }
    run.ok()
}

fn render(values: &Path, more: &[&str]) -> Option<String> {
    let mut arguments =
        vec!["template", "drover", ".", "--namespace", "drover-system", "--values", values.to_str().unwrap()];
    arguments.extend(more);
    let output = helm(&arguments)?;
    assert!(output.status.success(), "{}: {}", values.display(), String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

/// What Helm says of values that it must refuse, each `name=value`.
fn refused(values: &[&str]) -> Option<String> {
    let mut arguments = vec!["template", "drover", ".", "--set", "image.registry=r.example"];
    arguments.extend(values.iter().flat_map(|value| ["--set", *value]));
    let output = helm(&arguments)?;
    assert!(!output.status.success(), "{values:?} is accepted");
    Some(String::from_utf8(output.stderr).unwrap())
}

fn objects(yaml: &str) -> Vec<Value> {
    yaml.split("\n---\n")
        .map(|text| serde_saphyr::from_str::<Value>(text).unwrap_or_else(|e| panic!("{e}\n{text}")))
        .filter(|object| !object.is_null())
        .collect()
}

fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|o| o["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn example(name: &str) -> PathBuf {
    chart().join(format!("ci/{name}-values.yaml"))
}

/// All rules of all roles that are bound to the operator.
fn rules(objects: &[Value]) -> Vec<Value> {
    let bound: Vec<&Value> =
        objects.iter().filter(|o| !o["roleRef"].is_null()).map(|o| &o["roleRef"]["name"]).collect();
    objects
        .iter()
        .filter(|o| o["rules"].is_array() && bound.contains(&&o["metadata"]["name"]))
        .flat_map(|o| o["rules"].as_array().unwrap().clone())
        .collect()
}

#[test]
fn the_chart_holds_the_crds_of_the_repository() {
    let ours = files(&repository().join("crds"), ".yaml");
    let held = files(&chart().join("files/crds"), ".yaml");
    let names = |paths: &[PathBuf]| paths.iter().map(|p| p.file_name().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&held), "make crds");
    assert_eq!(ours.len(), 2, "one file a kind");
    for (our, copy) in ours.iter().zip(&held) {
        assert!(read(our) == read(copy), "{} differs from {}: make crds", copy.display(), our.display());
    }
    assert!(!chart().join("crds").exists(), "Helm installs charts/drover/crds once and never updates it");
}

#[test]
fn the_chart_has_the_version_of_the_workspace() {
    let chart: Value = serde_saphyr::from_str(&read(&chart().join("Chart.yaml"))).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn lint_finds_nothing() {
    for values in files(&chart().join("ci"), "-values.yaml") {
        let Some(output) = helm(&["lint", "--strict", ".", "--values", values.to_str().unwrap()]) else { return };
        assert!(output.status.success(), "{}: {}", values.display(), String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn examples_render_as_before() {
    for values in files(&chart().join("ci"), "-values.yaml") {
        let name = values.file_name().unwrap().to_string_lossy().replace("-values.yaml", "");
        let Some(text) = render(&values, &["--set", "crds.install=false"]) else { return };
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn crds_are_rendered_as_they_are_and_kept() {
    let Some(text) = render(&example("minimal"), &["--show-only", "templates/crds.yaml"]) else { return };
    let rendered = objects(&text);
    let ours: Vec<Value> =
        files(&chart().join("files/crds"), ".yaml").iter().map(|p| serde_saphyr::from_str(&read(p)).unwrap()).collect();
    assert_eq!(rendered.len(), ours.len());
    for (theirs, our) in rendered.iter().zip(&ours) {
        assert_eq!(theirs["metadata"]["name"], our["metadata"]["name"]);
        assert_eq!(theirs["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        assert_eq!(plain(&theirs["spec"]), plain(&our["spec"]), "{}", our["metadata"]["name"]);
    }
}

/// Numbers without their kind: YAML on its way through Helm turns 1.0 into 1.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(n) => Value::from(n.as_f64()),
        Value::Array(list) => list.iter().map(plain).collect(),
        Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), plain(v))).collect()),
        other => other.clone(),
    }
}

#[test]
fn a_missing_registry_is_named_with_what_to_set() {
    let Some(output) = helm(&["template", "drover", "."]) else { return };
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("--set image.registry=REGISTRY"), "{error}");
}

#[test]
fn a_service_monitor_without_a_service_is_refused() {
    let Some(error) = refused(&["metrics.serviceMonitor.enabled=true", "service.enabled=false"]) else { return };
    assert!(error.contains("needs service.enabled"), "{error}");
}

#[test]
fn values_that_mean_nothing_are_refused() {
    let bad = [
        ("crd.install=true", "crd"),
        ("image.repository=x", "repository"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("image.digests.operator=sha256:12", "operator"),
        ("image.registry=https://registry.example", "registry"),
        ("log.format=xml", "format"),
        ("service.port=0", "port"),
        ("watchNamespaces={Iot}", "watchNamespaces"),
        ("resources.request.cpu=1", "request"),
        ("serviceAccount.annotations.a=1", "annotations"),
        ("networkPolicy.egressPorts={https}", "egressPorts"),
        ("replicas=2", "replicas"),
        ("allowedHosts={hub.example:5671}", "allowedHosts"),
        ("metrics.podMonitor.interval=often", "interval"),
        ("metrics.podMonitor.interval=30s1m", "interval"),
        ("metrics.rule.enabled=true", "rule"),
        ("metrics.dashboard.labels.grafana_dashboard=1", "grafana_dashboard"),
        ("podDisruptionBudget.minAvailable=1", "minAvailable"),
        ("tracing.endpoint=collector:4318", "endpoint"),
        ("tracing.endpoint=https://user:password@collector", "endpoint"),
        ("tracing.sampleRatio=2", "sampleRatio"),
        ("tracing.sampleRatio=1.5", "sampleRatio"),
        ("tracing.sampleRatio=half", "sampleRatio"),
        ("tracing.ratio=1", "ratio"),
        ("terminationGracePeriodSeconds=0", "terminationGracePeriodSeconds"),
        ("enabled=maybe", "enabled"),
        ("nameOverride=Drover_Op", "nameOverride"),
        ("fullnameOverride=Drover_Op", "fullnameOverride"),
        ("fullnameOverride=1drover", "fullnameOverride"),
    ];
    for (value, field) in bad {
        let Some(error) = refused(&[value]) else { return };
        assert!(error.contains(field), "{value}: {error}");
    }
}

#[test]
fn numbers_are_taken_as_text_too_and_durations_of_several_units() {
    let values = "tracing.endpoint=http://collector:4318,tracing.sampleRatio=0.5,\
                  metrics.podMonitor.enabled=true,metrics.podMonitor.interval=1m30s";
    let Some(text) = render(&example("minimal"), &["--set", values]) else { return };
    let objects = objects(&text);
    assert_eq!(one(&objects, "PodMonitor")["spec"]["podMetricsEndpoints"][0]["interval"], "1m30s");
    let container = &one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    let ratio = container["env"].as_array().unwrap().iter().find(|v| v["name"] == "DROVER_TRACES_RATIO").unwrap();
    assert_eq!(ratio["value"], "0.5");
}

#[test]
fn a_parent_chart_switches_it_on_and_off() {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("parent");
    let _ = fs::remove_dir_all(&parent);
    fs::create_dir_all(parent.join("charts")).unwrap();
    std::os::unix::fs::symlink(chart().canonicalize().unwrap(), parent.join("charts/drover")).unwrap();
    let dependency = r#"{ name: drover, version: ">=0", condition: drover.enabled }"#;
    let description = format!("apiVersion: v2\nname: parent\nversion: 0.1.0\ndependencies: [{dependency}]\n");
    fs::write(parent.join("Chart.yaml"), description).unwrap();
    for enabled in [true, false] {
        let values = format!("drover.enabled={enabled},drover.image.registry=r.example");
        let Some(output) = helm(&["template", "parent", parent.to_str().unwrap(), "--set", &values]) else { return };
        assert!(output.status.success(), "{enabled}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap().contains("kind: Deployment"), enabled);
    }
}

#[test]
fn a_block_with_nothing_in_it_is_an_empty_one() {
    let base = "metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true,metrics.rules.enabled=true,\
                metrics.dashboard.enabled=true,metrics.dashboard.labels.grafana_dashboard=null";
    let Some(wanted) = render(&example("minimal"), &["--set", base]) else { return };
    let may_be_empty = [
        "commonLabels",
        "commonAnnotations",
        "podLabels",
        "podAnnotations",
        "image.digests",
        "serviceAccount.annotations",
        "service.annotations",
        "metrics.serviceMonitor.labels",
        "metrics.podMonitor.labels",
        "metrics.rules.labels",
        "metrics.rules.alertLabels",
        "metrics.dashboard.labels",
        "metrics.dashboard.annotations",
        "networkPolicy.egress",
    ];
    for key in may_be_empty {
        let Some(text) = render(&example("minimal"), &["--set", base, "--set", &format!("{key}=null")]) else { return };
        assert!(text == wanted, "{key}");
    }
}

#[test]
fn a_default_that_is_taken_away_is_named() {
    let needed = [
        "image",
        "image.pullPolicy",
        "replicaCount",
        "maxRollouts",
        "tracing",
        "tracing.sampleRatio",
        "crds",
        "crds.install",
        "rbac",
        "rbac.create",
        "rbac.aggregate",
        "serviceAccount",
        "serviceAccount.create",
        "log",
        "log.format",
        "service",
        "service.enabled",
        "service.port",
        "metrics",
        "metrics.serviceMonitor",
        "metrics.podMonitor",
        "metrics.rules",
        "metrics.dashboard",
        "podDisruptionBudget",
        "networkPolicy",
        "networkPolicy.enabled",
        "terminationGracePeriodSeconds",
    ];
    for key in needed {
        let Some(error) = refused(&[&format!("{key}=null")]) else { return };
        let last = key.rsplit('.').next().unwrap();
        assert!(error.contains(&format!("missing property '{last}'")), "{key}: {error}");
    }
}

#[test]
fn an_account_that_the_chart_does_not_make_has_a_name() {
    let Some(error) = refused(&["serviceAccount.create=false"]) else { return };
    assert!(error.contains("set serviceAccount.name"), "{error}");
    let values = "serviceAccount.create=false,serviceAccount.name=ours";
    let Some(text) = render(&example("minimal"), &["--set", values]) else { return };
    let objects = objects(&text);
    assert!(objects.iter().all(|o| o["kind"] != "ServiceAccount"));
    assert_eq!(one(&objects, "ClusterRoleBinding")["subjects"][0]["name"], "ours");
    assert_eq!(one(&objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"], "ours");
}

#[test]
fn ports_and_rules_each_limit_what_the_operator_connects_to() {
    let rule = r#"networkPolicy.egress=[{"to":[{"ipBlock":{"cidr":"192.0.2.0/24"}}],"ports":[{"port":6443}]}]"#;
    for (values, rules) in [(vec![], 0), (vec!["networkPolicy.egressPorts=[6443]"], 3), (vec![rule], 3)] {
        let arguments: Vec<&str> = values.iter().flat_map(|value| ["--set-json", *value]).collect();
        let Some(text) = render(&example("minimal"), &arguments) else { return };
        let objects = objects(&text);
        let spec = &one(&objects, "NetworkPolicy")["spec"];
        assert_eq!(spec["policyTypes"].as_array().unwrap().contains(&Value::from("Egress")), rules > 0, "{values:?}");
        let egress = spec["egress"].as_array().map_or(&[][..], Vec::as_slice);
        assert_eq!(egress.len(), rules, "{values:?}");
        // A rule without ports lets out everything.
        assert!(egress.iter().all(|rule| rule["ports"].as_array().is_some_and(|p| !p.is_empty())), "{egress:?}");
    }
}

#[test]
fn labels_of_the_pod_win_over_common_ones_and_none_over_the_selector() {
    let values = [
        "commonLabels.team=platform",
        "podLabels.team=messaging",
        r"commonLabels.app\.kubernetes\.io/part-of=iot",
        r"commonLabels.app\.kubernetes\.io/name=other",
        r"podLabels.app\.kubernetes\.io/instance=other",
    ];
    let Some(text) = render(&example("minimal"), &["--set", &values.join(",")]) else { return };
    let objects = objects(&text);
    let deployment = one(&objects, "Deployment");
    assert_eq!(deployment["metadata"]["labels"]["team"], "platform");
    let pod = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(pod["team"], "messaging");
    for (label, value) in deployment["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&pod[label], value, "{label}");
    }
    for object in &objects {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/part-of"], "iot", "{object}");
        assert_eq!(labels["app.kubernetes.io/name"], "drover", "{object}");
    }
}

/// What is not text where Kubernetes wants text: names, namespaces, labels, and values of the environment.
fn not_text(parent: &str, key: &str, value: &Value, found: &mut Vec<String>) {
    const TEXTS: [&str; 6] = ["name", "namespace", "value", "serviceAccountName", "priorityClassName", "resourceNames"];
    const MAPS: [&str; 4] = ["labels", "annotations", "matchLabels", "selector"];
    match value {
        Value::Object(map) => map.iter().for_each(|(child, value)| not_text(key, child, value, found)),
        Value::Array(list) => list.iter().for_each(|value| not_text(parent, key, value, found)),
        Value::String(_) => {}
        other if TEXTS.contains(&key) || MAPS.contains(&parent) => found.push(format!("{parent}.{key}: {other}")),
        _ => {}
    }
}

#[test]
fn names_that_look_like_numbers_stay_text() {
    let values = example("observed");
    let text = "nameOverride=1e5,serviceAccount.name=17,priorityClassName=17,commonLabels.a=1";
    let mut arguments = vec!["template", "1e5", ".", "--namespace", "20260101", "--values", values.to_str().unwrap()];
    arguments.extend(["--set", "crds.install=false,replicaCount=2", "--set-string", text, "--set-string"]);
    for more in ["fullnameOverride=true", "watchNamespaces={1234}"] {
        let Some(output) = helm(&[arguments.as_slice(), &[more]].concat()) else { return };
        assert!(output.status.success(), "{more}: {}", String::from_utf8_lossy(&output.stderr));
        let mut found = Vec::new();
        for object in objects(&String::from_utf8(output.stdout).unwrap()) {
            not_text("", object["kind"].as_str().unwrap(), &object, &mut found);
        }
        assert_eq!(found, Vec::<String>::new(), "{more}");
    }
}

#[test]
fn the_operator_reads_secrets_by_name_only() {
    for name in ["minimal", "namespaced"] {
        let Some(text) = render(&example(name), &[]) else { return };
        let rules = rules(&objects(&text));
        let secrets: Vec<&Value> =
            rules.iter().filter(|r| r["resources"].as_array().unwrap().contains(&Value::from("secrets"))).collect();
        assert!(!secrets.is_empty(), "{name}: {rules:?}");
        for rule in secrets {
            assert_eq!(rule["verbs"], serde_json::json!(["get"]));
            assert_eq!(rule["resources"], serde_json::json!(["secrets"]));
        }
        for rule in &rules {
            for part in ["apiGroups", "resources", "verbs"] {
                assert!(!rule[part].as_array().unwrap().contains(&Value::from("*")), "{rule}");
            }
        }
    }
}

#[test]
fn namespaces_that_are_named_are_all_the_operator_gets() {
    let Some(text) = render(&example("namespaced"), &[]) else { return };
    let objects = objects(&text);
    assert!(objects.iter().all(|o| !o["kind"].as_str().unwrap().starts_with("Cluster")), "{text}");
    let namespaces: Vec<&Value> =
        objects.iter().filter(|o| o["kind"] == "Role").map(|o| &o["metadata"]["namespace"]).collect();
    assert_eq!(namespaces, ["iot", "billing"]);
    assert!(text.contains("value: \"iot,billing\""), "{text}");
}

#[test]
fn the_operator_runs_under_pod_security_restricted() {
    let Some(text) = render(&example("minimal"), &[]) else { return };
    let objects = objects(&text);
    let deployment = objects.iter().find(|o| o["kind"] == "Deployment").unwrap();
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert!(pod["volumes"].is_null() && pod["hostNetwork"].is_null());
    for container in pod["containers"].as_array().unwrap() {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
    }
    assert_eq!(deployment["spec"]["strategy"]["type"], "Recreate");
}

#[test]
fn several_replicas_take_a_lease_by_its_name_and_one_takes_none() {
    let lease = |rule: &&Value| rule["resources"] == serde_json::json!(["leases"]);
    let Some(text) = render(&example("minimal"), &[]) else { return };
    assert_eq!(rules(&objects(&text)).iter().filter(lease).count(), 0);
    assert!(!text.contains("DROVER_LEADER_ELECTION"));
    let Some(text) = render(&example("replicated"), &[]) else { return };
    let objects = objects(&text);
    let rules = rules(&objects);
    let found: Vec<_> = rules.iter().filter(lease).map(|r| (&r["verbs"], &r["resourceNames"])).collect();
    let (create, rest) = (serde_json::json!(["create"]), serde_json::json!(["get", "update"]));
    assert_eq!(found, [(&create, &Value::Null), (&rest, &serde_json::json!(["drover"]))]);
    for kind in ["Role", "PodDisruptionBudget"] {
        assert!(objects.iter().any(|o| o["kind"] == kind && o["metadata"]["namespace"] == "drover-system"), "{kind}");
    }
}

#[test]
fn the_readme_tells_every_value() {
    let path = chart().join("README.md");
    let readme = read(&path);
    let (before, rest) = readme.split_once("<!-- values -->\n").expect("the readme marks where the values are");
    let (_, after) = rest.split_once("<!-- /values -->").expect("the readme marks where the values end");
    let wanted =
        format!("{before}<!-- values -->\n{}<!-- /values -->{after}", table(&read(&chart().join("values.yaml"))));
    if std::env::var_os("UPDATE_README").is_some() {
        fs::write(&path, &wanted).unwrap();
        return;
    }
    assert!(readme == wanted, "{} does not tell the values as they are: make chart-readme", path.display());
}

/// The values as a table: a row for each key with a comment above it.
fn table(yaml: &str) -> String {
    let values: Value = serde_saphyr::from_str(yaml).unwrap();
    let mut rows = "| value | default | what |\n| --- | --- | --- |\n".to_owned();
    let (mut comment, mut path, mut told) = (Vec::new(), Vec::<&str>::new(), None::<usize>);
    for line in yaml.lines() {
        let text = line.trim_start();
        let depth = (line.len() - text.len()) / 2;
        if let Some(words) = text.strip_prefix("# ") {
            comment.push(words);
            continue;
        }
        let Some((key, value)) = text.split_once(':') else {
            comment.clear();
            continue;
        };
        path.truncate(depth);
        path.push(key);
        told = told.filter(|of| depth > *of);
        if !comment.is_empty() {
            let default = path.iter().fold(&values, |value, key| &value[*key]);
            writeln!(rows, "| `{}` | `{default}` | {} |", path.join("."), comment.join(" ")).unwrap();
            told = Some(depth);
        }
        assert!(told.is_some() || value.is_empty(), "values.yaml: {} has no comment above it", path.join("."));
        comment.clear();
    }
    rows
}
