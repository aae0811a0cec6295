#!/usr/bin/env bash
# Builds the Debian image into target/image, unless it is there from the same sources.

source "$(dirname "$0")/common.sh"

image=target/image
sources=$(cat crates/image/src/*.rs crates/image/src/debian/*.rs | sha256sum)
[[ -f $image/image.json && $(cat $image.sources 2>/dev/null) == "$sources" ]] && exit

rm -rf "$image"
cargo run "${quiet[@]}" --locked --package rds-image --example debian -- "$image"
printf '%s\n' "$sources" >$image.sources
