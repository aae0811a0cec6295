# shellcheck shell=bash
# For `source`: strict mode, the repository as working directory, and how a script speaks.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Where rustup and cargo put programs, which a fresh login shell may not know yet. They come before the distribution's Rust,
# which may be older.
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Programs are where these scripts look for them and built as they say, whatever a user's other projects need.
export CARGO_TARGET_DIR=$PWD/target
unset CARGO_BUILD_TARGET CARGO_ENCODED_RUSTFLAGS RUSTFLAGS

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# A person sees how far programs are; a log gets only what matters.
# shellcheck disable=SC2034 # for the scripts that read this one
if [[ -t 2 ]]; then quiet=(); else quiet=(--quiet); fi

rust_version=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
rust_is_new_enough() {
    have cargo && have rustc || return 1
    local installed
    installed=$(rustc --version 2>/dev/null | cut -d' ' -f2) || return 1
    [[ $(printf '%s\n' "$rust_version" "$installed" | sort -V | head -n1) == "$rust_version" ]]
}
# A toolchain of rustup's that is too old stays its user's default: these scripts then use the stable one. Only
# prerequisites.sh installs it.
export RUSTUP_AUTO_INSTALL=0
rust_is_new_enough || export RUSTUP_TOOLCHAIN=stable

# Runs a command under a heading and tells how long it took when that is over a second.
step() {
    local name=$1 started=$SECONDS
    shift
    say "== $name"
    "$@" || die "== $name: failed after $((SECONDS - started)) s"
    if ((SECONDS - started > 1)); then say "== $name: $((SECONDS - started)) s"; fi
}
