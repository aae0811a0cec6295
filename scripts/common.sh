# shellcheck shell=bash
# For `source`: strict mode, the repository as working directory, and how a script speaks.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Where rustup and cargo put programs, which a fresh login shell may not know yet.
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# A person sees how far programs are; a log gets only what matters.
# shellcheck disable=SC2034 # for the scripts that read this one
if [[ -t 2 ]]; then quiet=(); else quiet=(--quiet); fi

# Runs a command under a heading and tells how long it took when that is over a second.
step() {
    local name=$1 started=$SECONDS
    shift
    say "== $name"
    "$@" || die "== $name: failed after $((SECONDS - started)) s"
    if ((SECONDS - started > 1)); then say "== $name: $((SECONDS - started)) s"; fi
}
