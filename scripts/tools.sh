#!/usr/bin/env bash
# Installs tools into target/tools: those that only tests use, or with `dist` what a release needs besides. Their versions are
# pinned here.
#
# The two cargo tools are built without optimisation, which takes a minute in all and is fast enough for one run each.
# cargo-deny comes without its network features: they are for advisories, which are not checked here.

source "$(dirname "$0")/common.sh"

tools=$PWD/target/tools
cargo_tool() {
    local name=$1 version=$2
    shift 2
    [[ " $("$tools/bin/$name" --version 2>/dev/null)" == *" $version" ]] && return
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 CARGO_TARGET_DIR=$tools/build \
        cargo install --quiet --locked --debug --force --root "$tools" "$name@$version" "$@"
    rm -rf "$tools/build"
}
if [[ ${1:-} == dist ]]; then
    cargo_tool cargo-sbom 0.10.0
    exit
fi
cargo_tool cargo-machete 0.9.2
cargo_tool cargo-deny 0.20.2 --no-default-features

# Checks programs that use generated proxies.
typescript=typescript@5.9.3
if [[ $(cat "$tools/typescript/installed" 2>/dev/null) != "$typescript" ]]; then
    npm install --silent --no-audit --no-fund --prefix "$tools/typescript" "$typescript"
    echo "$typescript" >"$tools/typescript/installed"
fi

# The validator of OpenAPI documents is not of this project's making, nor written in its language.
validator=openapi-spec-validator==0.9.0
if [[ $(cat "$tools/python/installed" 2>/dev/null) != "$validator" ]]; then
    python3 -m venv --clear "$tools/python"
    "$tools/python/bin/pip" install --quiet "$validator"
    echo "$validator" >"$tools/python/installed"
fi
