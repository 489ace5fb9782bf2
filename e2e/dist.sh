#!/usr/bin/env bash
# What a release consists of, in dist/: the chart, the CRDs, a tarball and an SBOM of each binary, and checksums.
#   dist.sh [chart|binaries]   one part; both unless named. What was in dist/ before is removed.
#   DROVER_DIST=DIRECTORY      there instead of in dist/; it must be empty
#   CHART_REGISTRY=oci://registry.example/charts   the chart is pushed there too, as an OCI artifact (helm registry login before)
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/cluster/lib.sh"
cd "$REPO"
export PATH=$BIN:$PATH
DIST=${DROVER_DIST:-$REPO/dist}
TOOLS=$CACHE/cargo-tools
VERSION=$(awk -F'"' '/^version/ { print $2; exit }' Cargo.toml)
# Time stamps in archives, so that the same commit gives the same bytes.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# Helm writes the files' own time stamps into the archive.
chart() {
    local copy
    copy=$(mktemp -d)
    cp -r charts/drover "$copy/drover"
    find "$copy/drover" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
    helm package "$copy/drover" --destination "$DIST"
    rm -rf "$copy"
    for file in crds/*.yaml; do printf -- '---\n'; cat "$file"; done > "$DIST/drover-crds-$VERSION.yaml"
}

push_chart() { helm push "$DIST/drover-$VERSION.tgz" "$CHART_REGISTRY"; }

# binaries: package, binary and directory of each that ships, one a line.
binaries() {
    cargo metadata --no-deps --format-version 1 | python3 -c '
import json, os, sys
for package in json.load(sys.stdin)["packages"]:
    for target in package["targets"]:
        if "bin" in target["kind"] and package["name"] != "drover-e2e":
            print(package["name"], target["name"], os.path.dirname(package["manifest_path"]))'
}

# Tools that are built once: `cargo audit bin` reads what the first writes into binaries, the second writes SBOMs.
tools() {
    unset CARGO_TARGET_DIR
    [ -x "$TOOLS/bin/cargo-auditable" ] || cargo install --locked --root "$TOOLS" cargo-auditable --version '^0.7'
    [ -x "$TOOLS/bin/cargo-cyclonedx" ] || cargo install --locked --root "$TOOLS" cargo-cyclonedx --version '^0.5'
}

compile() {
    local packages=()
    mapfile -t packages < <(binaries | awk '{ print "-p"; print $1 }')
    PATH=$TOOLS/bin:$PATH cargo auditable build --release --locked "${packages[@]}"
}

archives() {
    local name host
    host=$(rustc -vV | awk '$1 == "host:" { print $2 }')
    binaries | while read -r _ name _; do
        tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
            -C "$TARGET/release" -cf - "$name" -C "$REPO" LICENSE | gzip -n > "$DIST/$name-$VERSION-$host.tar.gz"
    done
}

boms() {
    local name directory
    PATH=$TOOLS/bin:$PATH cargo cyclonedx --format json --describe binaries
    binaries | while read -r _ name directory; do
        mv "$directory/${name}_bin.cdx.json" "$DIST/$name-$VERSION.cdx.json"
    done
    git ls-files --others --exclude-standard -z '*.cdx.json' | xargs -0 -r rm -f
}

checksums() {
    local files
    cd "$DIST"
    files=(*)
    sha256sum "${files[@]}" > SHA256SUMS
    sha256sum --check --quiet SHA256SUMS
}

what=${1:-all}
case $what in all | chart | binaries) ;; *) die "unknown part $what: chart, binaries" ;; esac
[ -n "${DROVER_DIST:-}" ] || rm -rf "$DIST"
mkdir -p "$DIST"
[ -z "$(ls -A "$DIST")" ] || die "$DIST is not empty"
if [ "$what" != binaries ]; then
    "$REPO/e2e/cluster/build.sh" clients
    step "dist: chart and CRDs" chart
    [ -z "${CHART_REGISTRY:-}" ] || step "dist: push the chart" push_chart
fi
if [ "$what" != chart ]; then
    command -v cargo > /dev/null || die "Rust is missing: install it with  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
    command -v python3 > /dev/null || need_packages python3=python3
    own_target
    step "dist: tools (once, minutes)" tools
    step "dist: compile, auditable" compile
    step "dist: tarballs" archives
    step "dist: SBOMs" boms
fi
step "dist: checksums" checksums
ls -l "$DIST"
