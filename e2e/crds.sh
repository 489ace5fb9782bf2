#!/usr/bin/env bash
# Writes the CRDs, as the operator prints them, to crds/ and to the chart: one file a kind.
# shellcheck source=e2e/cluster/lib.sh
. "$(dirname "$0")/cluster/lib.sh"
cd "$REPO"
all=$(mktemp)
trap 'rm -f "$all"' EXIT
own_target
cargo run -q -p drover-operator -- crds > "$all"
# Documents are parted by ---; the plural in metadata.name names the file.
awk '
    function flush(   name) {
        if (text == "") return
        if (match(text, /\n  name: [a-z]+\.drover\.dev\n/)) {
            name = substr(text, RSTART + 9, RLENGTH - 10); sub(/\.drover\.dev.*/, "", name)
            file = "crds/" name ".yaml"; printf "%s", text > file; close(file); print file
        }
        text = ""
    }
    /^---/ { flush(); next }
    { text = text $0 "\n" }
    END { flush() }' "$all"
# Not the chart's own crds/: Helm installs what is there once and never updates it.
mkdir -p charts/drover/files/crds
cp crds/*.yaml charts/drover/files/crds/
