"""What the metrics are, read from the Rust sources: their names, types and labels.

metrics.py write                writes docs/src/metrics.md
metrics.py check                fails where docs/src/metrics.md is not what `write` makes
metrics.py names FILE…          fails where a file speaks of a metric that no source registers
metrics.py answers DASHBOARD…   a real Prometheus scrapes an exposition made from the sources and must answer every expression
"""

import http.server
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
SOURCES = [REPO / "operator/src/metrics.rs", REPO / "worker/src/ingest/meter.rs", REPO / "worker/src/stream/meter.rs"]
REGISTER = re.compile(
    r'register(?:_with_unit)?\(\s*"(\w+)",\s*("[^"]*"|\w+),\s*(?:Unit::(\w+),\s*)?&?\w+(?:\.\w+)*?\.(\w+)\.clone\(\)'
)
FIELD = re.compile(r"(\w+): (?:Family<(\w+), )?(Counter|Gauge|Number|Histogram)\b")
# What a label says in the exposition; the workers' namespace, name and revision are Prometheus' to add.
VALUES = {"namespace": "iot", "name": "telemetry", "outcome": "written", "stage": "sink", "reason": "IdReused",
          "kind": "IngestPipeline", "verb": "apply", "class": "content", "partition": "0"}
PAGE = REPO / "docs/src/metrics.md"
HEAD = """# Metrics

Made from the sources by `make reference`. Operator and workers answer at `/metrics` on port 8080, as OpenMetrics. A histogram has `_bucket`, `_sum` and `_count`.

With the Prometheus operator, the chart brings what reads them, alerts and a dashboard: `metrics.serviceMonitor`, `metrics.podMonitor`, `metrics.rules` and
`metrics.dashboard` in [its values](https://github.com/drover-dev/drover/blob/main/charts/drover/README.md#values). Without it, `charts/drover/files/alerts.yaml` is a rule file
and `charts/drover/files/dashboard.json` can be imported into Grafana. Three things to know:

- Workers let in the operator, and namespaces with the label `drover.dev/metrics: allowed`.
- The operator's metrics name an object by `kind`, `namespace` and `name`. Keep those labels as they are (`honor_labels: true`), or Prometheus puts the operator's own namespace
  in their place.
- A worker does not name its object. The chart's PodMonitor adds `kind` and `name` from the pod's label `drover.dev/pipeline` or `drover.dev/query`, and `revision` from
  `drover.dev/revision`; the dashboard and the alerts rely on that. It leaves out previews (label `drover.dev/preview`), which count copies of messages.

What a pipeline has cost, in worker hours of the last 30 days, for charging back:

```promql
sum by (kind, namespace, name) (increase(drover_operator_replica_time_seconds_total[30d])) / 3600
```
"""
STARTS_WITHIN = 60  # seconds until every expression must have an answer


def labels(source):
    """Label names of each struct of labels."""
    found = re.findall(r"EncodeLabelSet\)\]\s*(?:pub )?struct (\w+) \{(.*?)\n\}", source, re.S)
    return {name: re.findall(r"^\s*(?:pub )?(\w+):", body, re.M) for name, body in found}


def registered():
    """Every metric: name, type, labels and what it tells."""
    for path in SOURCES:
        source = path.read_text()
        prefix = re.search(r'with_prefix\("(\w+)"\)', source).group(1)
        fields = {field: (family, kind) for field, family, kind in FIELD.findall(source)}
        sets = labels(source)
        entries = REGISTER.findall(source)
        if len(entries) != len(re.findall(r"\bregister(?:_with_unit)?\(\s*\"", source)):
            raise SystemExit(f"{path}: a metric is registered in a form that is not understood here")
        for name, told, unit, field in entries:
            family, kind = fields[field]
            full = f"{prefix}_{name}" + (f"_{unit.lower()}" if unit else "")
            if not told.startswith('"'):
                told = re.search(rf'let {told} = ("[^"]*");', source).group(1)
            yield full, kind, sets.get(family, []), told.strip('"')


def series(name, kind):
    """Names of the series that a metric has."""
    if kind == "Counter":
        return {f"{name}_total"}
    if kind == "Histogram":
        return {f"{name}_{end}" for end in ("bucket", "sum", "count")}
    return {name}


def page():
    lines = [HEAD]
    for title, prefix in (("The operator", "drover_operator"), ("A worker of a pipeline", "drover_worker"), ("A worker of a query", "drover_query")):
        lines.append(f"\n## {title}\n\n| metric | type | labels | what |\n| --- | --- | --- | --- |\n")
        for name, kind, keys, told in registered():
            if name.startswith(prefix):
                shown = f"{name}_total" if kind == "Counter" else name
                shape = {"Number": "gauge"}.get(kind, kind.lower())
                lines.append(f"| `{shown}` | {shape} | {', '.join(f'`{key}`' for key in keys)} | {told} |\n")
    return "".join(lines)


def write(_):
    PAGE.write_text(page())


def check(_):
    if not PAGE.exists() or PAGE.read_text() != page():
        raise SystemExit(f"{PAGE} does not tell the metrics as they are: make reference")
    print("metrics.md is current")


def names(files):
    """Names in files that no source registers."""
    known = {one for name, kind, _, _ in registered() for one in series(name, kind)}
    unknown = []
    for file in files:
        for name in sorted(set(re.findall(r"\bdrover_(?:operator|worker|query)_[a-z_]+[a-z]\b", Path(file).read_text()))):
            if name not in known:
                unknown.append(f"{file}: {name} is not registered in {' or '.join(str(s.relative_to(REPO)) for s in SOURCES)}")
    if unknown:
        raise SystemExit("\n".join(unknown))
    print(f"{len(known)} series are known, and only these are named")


def exposition(prefix, tick):
    """The text of /metrics: counters grow with each look."""
    lines = []
    for name, kind, keys, _ in registered():
        if not name.startswith(prefix):
            continue
        inner = ",".join(f'{key}="{VALUES[key]}"' for key in keys)
        braces = f"{{{inner}}}" if inner else ""
        lines.append(f"# TYPE {name} {({'Number': 'Gauge'}.get(kind, kind)).lower()}")
        if kind == "Counter":
            lines.append(f"{name}_total{braces} {tick}")
        elif kind == "Histogram":
            for limit in ("1.0", "2.0", "+Inf"):
                lines.append(f'{name}_bucket{{le="{limit}"}} {tick}')
            lines += [f"{name}_sum {tick}", f"{name}_count {tick}"]
        else:
            lines.append(f"{name}{braces} 1")
    return "\n".join([*lines, "# EOF", ""])


class Exposition(http.server.BaseHTTPRequestHandler):
    """Serves /operator, /worker and /query."""

    tick = 0

    def do_GET(self):
        Exposition.tick += 1
        body = exposition(f"drover_{self.path.strip('/')}", Exposition.tick).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Silent."""


def expressions(file):
    """Expressions of a dashboard, its variables filled in."""
    dashboard = json.loads(Path(file).read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            text = target["expr"].replace("$__rate_interval", "5m").replace("$namespace", "iot").replace("$name", "telemetry")
            yield panel["title"], text
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            inner = re.fullmatch(r"label_values\((.*), \w+\)", variable["definition"]).group(1)
            yield f"variable {variable['name']}", inner.replace("$namespace", "iot")


def ask(port, expression):
    """How many series answer."""
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
            return sum(1 for one in result if one["value"][1] != "NaN")
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{expression}: {error.read().decode()}") from error
    except OSError:
        return 0


def answers(files):
    """Asks a Prometheus of its own for every expression, until all are answered."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exposition)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    target = f"127.0.0.1:{server.server_port}"
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [
        {"job_name": "operator", "metrics_path": "/operator", "honor_labels": True, "static_configs": [{"targets": [target]}]},
        *({"job_name": path, "metrics_path": f"/{path}",
           "static_configs": [{"targets": [target], "labels": {"kind": "IngestPipeline", "namespace": "iot", "name": "telemetry", "revision": "a1"}}]}
          for path in ("worker", "query")),
    ]}
    with tempfile.TemporaryDirectory() as scratch:
        with http.server.HTTPServer(("127.0.0.1", 0), Exposition) as free:
            port = free.server_port
        Path(scratch, "prometheus.yml").write_text(json.dumps(config))
        log = Path(scratch, "log")
        with log.open("w") as out:
            prometheus = subprocess.Popen(
                ["prometheus", f"--config.file={scratch}/prometheus.yml", f"--storage.tsdb.path={scratch}/data",
                 f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"], stdout=out, stderr=out)
        try:
            open_ones = [(title, text) for file in files for title, text in expressions(file)]
            total, end = len(open_ones), time.monotonic() + STARTS_WITHIN
            while open_ones and time.monotonic() < end and prometheus.poll() is None:
                time.sleep(0.5)
                open_ones = [(title, text) for title, text in open_ones if not ask(port, text)]
            if open_ones:
                missing = "\n".join(f"{title}: {text}" for title, text in open_ones)
                raise SystemExit(f"no answer to\n{missing}\n{log.read_text()}")
            print(f"{total} expressions are answered")
        finally:
            prometheus.terminate()
            prometheus.wait()


if __name__ == "__main__":
    {"write": write, "check": check, "names": names, "answers": answers}[sys.argv[1]](sys.argv[2:])
