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
python_tools() {
    local venv=$tools/$1
    shift
    [[ $(cat "$venv/installed" 2>/dev/null) == "$*" ]] && return
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet "$@"
    echo "$*" >"$venv/installed"
}
if [[ ${1:-} == dist ]]; then
    cargo_tool cargo-sbom 0.10.0
    python_tools python-dist hatchling==1.33.0
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
python_tools python openapi-spec-validator==0.9.0
# What the Python client is made, checked and tested with.
python_tools python-client datamodel-code-generator==0.89.0 ruff==0.17.6 mypy==2.4.1 pytest==9.2.0 \
    httpx==0.28.1 httpx-sse==0.4.3 typing-extensions==4.16.0
