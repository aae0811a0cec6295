#!/usr/bin/env bash
# Everything that must pass before a change goes in. Its parts can be run by hand, too.
#
# The integration suite gets what it needs by these variables:
#   RDS_AGENT_PATH                               the static guest agent
#   KERNEL_PATH, BASE_ROOTFS_PATH, MODULES_PATH  one built image, used in place
#   OPENAPI_VALIDATOR                            a program that takes the document as its argument and fails on a fault
#   TYPESCRIPT_CLIENT                            1 where sdk/typescript is built
#   PYTHON_CLIENT                                the interpreter that has what sdk/python is tested with

source "$(dirname "$0")/common.sh"

scripts() { shellcheck --external-sources --source-path SCRIPTDIR scripts/*.sh scripts/box/*.sh .ci/run; }
# Where there is systemd. The program is not where the unit says; any other will do. What systemd only warns of, it ignores,
# so nothing may be said of the unit but that systemd before 254 does not know the key for the server's own group.
unit_file() {
    have systemd-analyze || { say "*** The unit is not verified: there is no systemd ***"; return; }
    local dir said
    dir=$(mktemp -d)
    sed 's|/usr/local/bin/rds|/bin/true|' packaging/systemd/rds.service >"$dir/rds.service"
    said=$(systemd-analyze verify --man=no "$dir/rds.service" 2>&1) || { say "$said"; return 1; }
    rm -r "$dir"
    said=$(grep rds.service <<<"$said" || true)
    if (($(systemd-analyze --version | sed -n 's/^systemd \([0-9]*\).*/\1/p') < 254)); then
        said=$(grep --invert-match "Unknown key 'DelegateSubgroup'" <<<"$said" || true)
    fi
    [[ -z $said ]] || { say "$said"; return 1; }
}
# The other is the workspace's, without which nothing here is built.
lock_file() { cargo metadata --quiet --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null; }
unused() { target/tools/bin/cargo-machete --skip-target-dir; }
licences() { target/tools/bin/cargo-deny --locked --log-level error check licenses bans sources; }
# All but the suite, which needs the agent and an image.
unit() {
    local files=(crates/rds/tests/*.rs)
    local names=("${files[@]##*/}")
    names=("${names[@]%.rs}")
    cargo test --quiet --locked --workspace --no-fail-fast --exclude rds &&
        cargo test --quiet --locked --package rds --no-fail-fast --bins "${names[@]/#/--test=}"
}
heavy() { cargo test --quiet --locked --package rds-image --test debian -- --ignored --test-threads 1; }
# What needs a program is ignored by itself, so that nothing counts as passed that did not run.
programs() {
    local probe=payload_passes
    if [[ -e /dev/kvm ]]; then probe=qemu::probe; fi
    local deployment=(the_compose_file every_setting)
    if have systemd-analyze; then deployment+=(the_unit); fi
    cargo test --quiet --locked --package rds --test deployment -- --ignored "${deployment[@]}" &&
        cargo test --quiet --locked --package rds-manager --test manager -- --ignored on_postgres && proxies &&
        cargo test --quiet --locked --package rds-vmm --lib -- --ignored "$probe" && hostile_monitor
}
python=$PWD/target/tools/python-client/bin
tsc=$PWD/target/tools/typescript/node_modules/typescript/bin/tsc
# The pages' scripts, with the types that their comments say.
pages() { node "$tsc" --project crates/manager; }
# The client libraries: types that are what the API's document says, and what the suite runs.
clients() {
    npm ci --silent --no-audit --no-fund --prefix sdk/typescript &&
        (cd sdk/typescript && { node types.js | cmp - src/schema.ts; } && npm run --silent build) &&
        (cd sdk/python && "$python/datamodel-codegen" --check && "$python/ruff" check --quiet &&
            "$python/ruff" format --quiet --check && "$python/mypy" --no-error-summary)
}
proxies() {
    NODE=$(command -v node) TSC=$tsc \
        cargo test --quiet --locked --package rds-peers --test proxies -- --ignored tsc_
}
# Firecracker's jailer is no package of the distribution.
hostile_monitor() {
    if [[ ! -x ${JAILER_BIN:-} || ! -e /dev/kvm || $EUID != 0 ]]; then
        say "*** The tests of a hostile monitor are skipped: they need root, /dev/kvm and JAILER_BIN ***"
        return
    fi
    local skipped=()
    if ! grep -qsw memory /sys/fs/cgroup/cgroup.controllers; then
        say "*** The tests of a hostile monitor's control group are skipped: the host has none of version 2 ***"
        skipped=(--skip control_group)
    fi
    cargo test --quiet --locked --package rds-vmm --test hostile_monitor -- --ignored "${skipped[@]}"
}
suite() { cargo test --quiet --locked --package rds --test suite; }

step "Format" cargo fmt --all --check
step "Lock file of the fuzz targets" lock_file
step "Tools" scripts/tools.sh
step "Scripts" scripts
step "systemd unit" unit_file
step "Unused dependencies" unused
step "Licences" licences
step "Lints" cargo clippy --quiet --locked --workspace --all-targets -- --deny warnings
step "Pages" pages
step "Client libraries" clients
step "Unit tests" unit
step "Tests with programs" programs
step "Guest agent" scripts/agent.sh
step "Guest image" scripts/image.sh
step "Image builder" heavy
step "Container" scripts/container.sh
step "Release archive" scripts/dist.sh dev

export RDS_AGENT_PATH=$PWD/target/x86_64-unknown-linux-gnu/agent/rds-agent
export KERNEL_PATH=$PWD/target/image/kernel BASE_ROOTFS_PATH=$PWD/target/image/rootfs MODULES_PATH=$PWD/target/image/modules
export OPENAPI_VALIDATOR=$PWD/target/tools/python/bin/openapi-spec-validator
export TYPESCRIPT_CLIENT=1 PYTHON_CLIENT=$python/python
step "Integration suite" suite
step "Fuzz" scripts/fuzz.sh 15
