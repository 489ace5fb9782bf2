//! The command line: what it prints where, and how it ends.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A directory of one test, which goes with it.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> &Self {
        fs::write(self.0.join(name), text).unwrap();
        self
    }

    fn manifest(&self, query: &str) -> &Self {
        let query = query.replace('\n', "\n    ");
        self.file(
            "query.yaml",
            &format!("apiVersion: drover.dev/v1alpha1\nkind: WindowQuery\nmetadata: {{name: q}}\nspec:\n  query: |\n    {query}\n"),
        )
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_drover-worker"))
            .arg("query")
            .args(args)
            .current_dir(&self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A run that fails before it reads closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// It fails with this message, and prints nothing else.
fn fails(output: &Output, message: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).contains(message), "{}", text(&output.stderr));
}

const COUNT: &str = "SELECT k, COUNT(*) AS c FROM input TIMESTAMP BY t GROUP BY k, TumblingWindow(second, 10)";

#[test]
fn a_file_gives_rows_in_the_order_of_their_windows() {
    let dir = Dir::new("rows");
    dir.manifest(COUNT).file(
        "e.ndjson",
        "{\"t\":\"2026-01-01T00:00:11Z\",\"k\":\"a\"}\n\n{\"t\":\"2026-01-01T00:00:08Z\",\"k\":\"b\"}\n{\"t\":\"2026-01-01T00:00:30Z\",\"k\":\"c\"}\n",
    );
    let output = dir.run(&["--input", "e.ndjson", "query.yaml"], b"");
    assert!(output.status.success());
    assert_eq!(
        text(&output.stdout),
        "{\"k\":\"a\",\"c\":1}\n{\"k\":\"b\",\"c\":1}\n{\"k\":\"c\",\"c\":1}\n",
        "b is late and adjusted to a's window"
    );
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn standard_input_is_a_file_too_and_an_event_in_error_names_its_line() {
    let dir = Dir::new("stdin");
    dir.manifest("SELECT 10 / x AS q FROM input");
    let deep = format!("{{\"x\":{}", "[".repeat(20_000));
    let input =
        format!("{{\"x\":2}}\n\n{{\"x\":0}}\n{deep}\n{{\"x\":9223372036854775808}}\n\0\n{{\"x\":\"\\u0000\"}}\nnull\n");
    let output = dir.run(&["query.yaml", "--input", "-"], input.as_bytes());
    assert!(output.status.success(), "events in error are no failure of the run");
    assert_eq!(text(&output.stdout), "{\"q\":5}\n");
    let notes: Vec<&str> = text(&output.stderr).lines().collect();
    assert_eq!(notes[0], "line 3: division by zero");
    for (note, start) in notes[1..].iter().zip([
        "line 4: the event cannot be read: recursion limit",
        "line 5: the event cannot be read: 9223372036854775808 does not fit a bigint",
        "line 6: the event cannot be read",
        "line 7: division does not take nvarchar(max)",
        "line 8: the event cannot be read",
    ]) {
        assert!(note.starts_with(start), "{note}");
    }
    assert_eq!(notes.len(), 6);
}

#[test]
fn outputs_are_named_only_where_there_are_several() {
    let dir = Dir::new("outputs");
    dir.manifest("SELECT a INTO one FROM input");
    assert_eq!(text(&dir.run(&["--input", "-", "query.yaml"], b"{\"a\":1}").stdout), "{\"a\":1}\n");
    dir.manifest("SELECT a INTO one FROM input\nSELECT b INTO two FROM input WHERE b > 1");
    let output = dir.run(&["--input", "-", "query.yaml"], b"{\"a\":1,\"b\":2}");
    assert_eq!(text(&output.stdout), "{\"a\":1,\"_output\":\"one\"}\n{\"b\":2,\"_output\":\"two\"}\n");
}

#[test]
fn a_bad_query_is_refused_with_line_and_column() {
    let dir = Dir::new("bad-query");
    dir.manifest("SELECT k\nFROM input WHERE UPER(k) = 'A'");
    fails(
        &dir.run(&["--explain", "query.yaml"], b""),
        "error: query.yaml: the query, line 2, column 18: unknown function UPER (did you mean UPPER?)",
    );
}

#[test]
fn a_bad_manifest_is_refused_with_its_line() {
    let dir = Dir::new("bad-manifest");
    dir.file("query.yaml", "kind: Other\n---\nkind: WindowQuery\nspec: {query: 5, ordering: {policy: Maybe}}\n");
    fails(&dir.run(&["--explain", "query.yaml"], b""), "line 4");
    dir.file("query.yaml", "kind: [\n");
    fails(&dir.run(&["--explain", "query.yaml"], b""), "query.yaml: the manifest cannot be read");
    dir.file("query.yaml", "kind: IngestPipeline\n");
    fails(&dir.run(&["--explain", "query.yaml"], b""), "query.yaml: the manifest holds no WindowQuery");
    dir.file("query.yaml", "kind: WindowQuery\nspec: {query: SELECT a FROM x, ordering: {lateArrivalSeconds: -1}}\n");
    fails(&dir.run(&["--explain", "query.yaml"], b""), "lateArrivalSeconds is out of range");
}

#[test]
fn missing_files_are_named() {
    let dir = Dir::new("missing");
    dir.manifest(COUNT);
    fails(&dir.run(&["--explain", "none.yaml"], b""), "error: none.yaml: No such file");
    fails(&dir.run(&["--input", "none.ndjson", "query.yaml"], b""), "error: none.ndjson: No such file");
}

#[test]
fn wrong_arguments_end_with_2() {
    let dir = Dir::new("usage");
    dir.manifest(COUNT);
    for args in [
        &["--input", "-", "--explain", "query.yaml"][..],
        &["--arrival-field", "a", "query.yaml"],
        &["--explain"],
        &["--input", "-"],
    ] {
        assert_eq!(dir.run(args, b"").status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn without_a_manifest_variables_say_what_runs() {
    fails(&Dir::new("streams").run(&[], b""), "error: DROVER_STREAM: is missing");
}

#[test]
fn explain_reads_like_the_query() {
    let dir = Dir::new("explain");
    dir.manifest(
        "WITH s AS (SELECT k, COUNT(*) AS c, TOPONE(v) OVER (ORDER BY v DESC, w) AS top FROM input i TIMESTAMP BY i.t OVER i.d\n\
         CROSS APPLY GetArrayElements(i.xs) AS x WHERE x.ArrayValue.a LIKE 'b%' AND NOT v IS NULL\n\
         GROUP BY k, Windows(Window('m', TumblingWindow(Duration(minute, 5), Offset(ms, -1))), Window('s', SessionWindow(second, 90, 3600) OVER (PARTITION BY k)))\n\
         HAVING COUNT(*) > 1) SELECT *, CASE WHEN c > 2 THEN 'it''s' ELSE NULL END AS n INTO big FROM s",
    );
    let output = dir.run(&["--explain", "query.yaml"], b"");
    assert_eq!(
        text(&output.stdout),
        "\
input input
  time      t
  time per  d
  reads     t, d, xs, v, k, w
step s from input
  apply     GetArrayElements(xs)
  where     (ArrayValue.a LIKE 'b%' AND NOT v IS NULL)
  window    'm': tumbling 5 min, offset -1 ms
  window    's': session, gaps up to 90 s, checked every 1 h, per k
  group by  k
  having    (COUNT(*) > 1)
  column    k = k
  column    c = COUNT(*)
  column    top = TOPONE(v) OVER (ORDER BY v DESC, w)
select 2 from step s
  column    all fields of the row
  column    n = CASE WHEN (c > 2) THEN 'it''s' ELSE NULL END
  into      big
"
    );
}
