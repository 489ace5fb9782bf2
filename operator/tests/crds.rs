//! The CRDs in `crds/` are those that the operator prints.

#[test]
fn the_committed_crds_are_current() {
    let printed = drover_operator::crds::yaml().unwrap();
    for document in printed.split("---\n").filter(|d| !d.is_empty()) {
        let plural = if document.contains("kind: WindowQuery\n") { "windowqueries" } else { "ingestpipelines" };
        let path = format!("{}/../crds/{plural}.yaml", env!("CARGO_MANIFEST_DIR"));
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == document, "{path} is not what the types say: run make crds");
    }
}
