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

for source in fuzz/targets/*.rs; do
    name=$(basename "$source" .rs)
    mkdir -p "target/fuzz/$name"
    step "Fuzz $name for $seconds s" "target/fuzz/$target/release/$name" "target/fuzz/$name" \
        -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=10 -verbosity=0 -artifact_prefix="target/fuzz/$name/found-"
done
