#!/usr/bin/env bash
# Runs the integration suite on Firecracker: `firecracker.sh box [FILTER...]` in a host in a box, which runs anywhere, and
# `firecracker.sh here [FILTER...]` on this host, which must have KVM and be used by root. Filters choose cases by parts
# of their names. `firecracker.sh bench [OPTION...]` measures in the box, with options of `rds bench`.
#
# The box also runs the tests of a hostile monitor; the filter `hostile_monitor` chooses those alone. It fails if its first test
# starts later than BOX_BOOT_LIMIT seconds after its boot (30, which an idle machine keeps), and if a case is skipped that
# could run there.
#
# FIRECRACKER_BIN and JAILER_BIN name the programs, of release 1.16.1 or newer. Without them nothing runs, and that is said.
# RDS_TEST_IMAGE names a directory with another guest image than the one that is built.

source "$(dirname "$0")/common.sh"
where=${1:?box, here or bench}
shift

skipped() { say "*** The suite on Firecracker is skipped: $* ***"; exit 0; }
for name in FIRECRACKER_BIN JAILER_BIN; do
    [[ -n ${!name:-} ]] || skipped "$name is not set"
    [[ -x ${!name} ]] || skipped "$name=${!name} is no program"
done
FIRECRACKER_BIN=$(realpath "$FIRECRACKER_BIN") JAILER_BIN=$(realpath "$JAILER_BIN")

step "Guest agent" scripts/agent.sh
image=${RDS_TEST_IMAGE:-$PWD/target/image}
if [[ -z ${RDS_TEST_IMAGE:-} ]]; then step "Guest image" scripts/image.sh; fi
# In an emulated host a server that is not optimized takes ten times as long to save a machine.
step "Build" cargo build "${quiet[@]}" --locked --release --package rds
programs=(target/release/rds) work="/run/payload/rds bench"
# test_program PACKAGE NAME: the program of a package's tests.
test_program() {
    cargo test "${quiet[@]}" --locked --package "$1" --test "$2" --no-run --message-format=json |
        sed -n "s/.*\"executable\":\"\([^\"]*$2-[^\"]*\)\".*/\1/p" | tail -n 1
}
if [[ $where != bench ]]; then
    suite=$(test_program rds suite)
    programs+=("$suite")
fi

if [[ $where == here ]]; then
    export FIRECRACKER_BIN JAILER_BIN RDS_HYPERVISOR=firecracker
    export RDS_AGENT_PATH=$PWD/target/x86_64-unknown-linux-gnu/agent/rds-agent
    export KERNEL_PATH=$image/kernel BASE_ROOTFS_PATH=$image/rootfs MODULES_PATH=$image/modules
    for filter in "${@:-}"; do "$suite" ${filter:+"$filter"}; done
    exit
fi

if [[ $where == box ]]; then
    programs+=("$(test_program rds-vmm hostile_monitor)")
    work=/run/payload/tests.sh
fi
step "Host in a box" scripts/box/build.sh
payload=$(mktemp -d "${TMPDIR:-/var/tmp}/payload.XXXXXX")
trap 'rm -rf "$payload"' EXIT
for program in "${programs[@]}"; do
    name=${program##*/}
    strip -o "$payload/${name%%-*}" "$program"
done
cp target/x86_64-unknown-linux-gnu/agent/rds-agent "$payload/"
if [[ $where == box ]]; then
    cp scripts/box/tests.sh "$payload/"
    mkdir "$payload/hostile"
    rustc --edition 2024 -C target-feature=+crt-static -C strip=symbols --target x86_64-unknown-linux-gnu \
        -o "$payload/hostile/firecracker" crates/vmm/tests/hostile_monitor/monitor.rs
fi
# The jailer insists on the name.
cp "$FIRECRACKER_BIN" "$payload/firecracker"
cp "$JAILER_BIN" "$payload/jailer"
cat >"$payload/run" <<END
mkdir -p "$PWD/target/debug"
ln -s /run/payload/rds "$PWD/target/debug/rds"
export RDS_HYPERVISOR=firecracker FIRECRACKER_BIN=/run/payload/firecracker JAILER_BIN=/run/payload/jailer
export RDS_AGENT_PATH=/run/payload/rds-agent
export KERNEL_PATH=/run/image/kernel BASE_ROOTFS_PATH=/run/image/rootfs MODULES_PATH=/run/image/modules
export HOSTILE_MONITOR=/run/payload/hostile/firecracker
export BOX_THREADS=${BOX_THREADS:-} BOX_BOOT_LIMIT=${BOX_BOOT_LIMIT:-}
$work$(if (($# > 0)); then printf ' %q' "$@"; fi)
END
files=$(mktemp -d "${TMPDIR:-/var/tmp}/image.XXXXXX")
trap 'rm -rf "$payload" "$files"' EXIT
for file in kernel rootfs modules; do cp --reflink=auto --sparse=always "$image/$file" "$files/"; done
scripts/box/run.sh "$payload" "$files"
