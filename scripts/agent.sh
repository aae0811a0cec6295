#!/usr/bin/env bash
# Builds the guest agent: static, because it runs before the image's libraries are there, and small.

source "$(dirname "$0")/common.sh"

target=x86_64-unknown-linux-gnu
# Only for this target, so that build scripts stay as they are.
CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build "${quiet[@]}" --locked --package rds-agent --profile agent --target "$target"
agent=target/$target/agent/rds-agent

size=$(stat -c %s "$agent")
((size <= 4 * 1024 * 1024)) || die "The agent has $size bytes; 4 MiB is the limit."
if [[ $(readelf -l "$agent") == *INTERP* ]]; then die "The agent is not static."; fi

# Beside the program, where it is looked for.
for dir in target/release target/debug; do
    mkdir -p "$dir"
    cmp -s "$agent" "$dir/rds-agent" || install -m 755 "$agent" "$dir/rds-agent"
done
