#!/usr/bin/env bash
# Runs every fuzz target for a while: `fuzz.sh SECONDS`. What it finds is left in target/fuzz/NAME.
#
# Coverage comes from the compiler's own pass, so the usual toolchain is enough: no nightly, no cargo-fuzz.

source "$(dirname "$0")/common.sh"
seconds=${1:?seconds}

target=x86_64-unknown-linux-gnu
export CARGO_TARGET_DIR=$PWD/target/fuzz
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="--cfg fuzzing -C debug-assertions -C codegen-units=1 \
-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=4 -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
-C llvm-args=-sanitizer-coverage-pc-table -C llvm-args=-sanitizer-coverage-trace-compares"
cargo build --quiet --locked --release --manifest-path fuzz/Cargo.toml --target "$target"

fuzz() {
    local name=$1 found=target/fuzz/$1
    mkdir -p "$found"
    "target/fuzz/$target/release/$name" "$found" -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 \
        -artifact_prefix="$found/found-" >"$found.log" 2>&1 || { tail -n 40 "$found.log" >&2; return 1; }
    tail -n 1 "$found.log" >&2
}
for source in fuzz/fuzz_targets/*.rs; do
    name=$(basename "$source" .rs)
    step "Fuzz $name for $seconds s" fuzz "$name"
done
