#!/usr/bin/env bash
# Fuzzes the query parser and the event decoder, FUZZ_SECONDS each (60). A crash is printed with its input and fails the run.
#
# cargo-fuzz asks for a nightly compiler only for its sanitizers. The code is safe Rust, so it goes without them, and
# RUSTC_BOOTSTRAP lets the pinned stable compiler take the remaining flags of coverage.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${DROVER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/drover}
seconds=${FUZZ_SECONDS:-60}
export CARGO_TARGET_DIR=$cache/target-fuzz RUSTC_BOOTSTRAP=1 PATH=$cache/cargo/bin:$PATH
command -v cargo-fuzz > /dev/null || cargo install cargo-fuzz --version 0.13.2 --locked --root "$cache/cargo"
for target in parser decoder; do
    corpus=$cache/fuzz/$target
    mkdir -p "$corpus"
    cargo fuzz run --sanitizer none "$target" "$corpus" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1
done
