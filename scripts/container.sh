#!/usr/bin/env bash
# Tries the container without a container engine: its root filesystem, made of the packages that the Dockerfile names and the
# programs that were built, read-only, in namespaces of its own, with the capabilities that docker-compose.yml adds and no
# others. There the server starts, and a VM, with a network card where there is /dev/net/tun, runs a command. Needs root, and a
# guest image in target/image.
#
# With FIRECRACKER_BIN and JAILER_BIN the container has these, as the Dockerfile's has, and the VM runs in Firecracker where
# KVM works. `container.sh box` tries that in the host in a box (scripts/box), where it does.

source "$(dirname "$0")/common.sh"

# make_root DIR: makes the container's root filesystem.
make_root() {
    local packages
    packages=$(sed -n 's/^ARG PACKAGES="\(.*\)"$/\1/p' Dockerfile)
    mkdir "$1"
    mmdebstrap --quiet --variant=minbase --include="${packages// /,}" --dpkgopt=force-unsafe-io --format=tar trixie - |
        tar --extract --directory="$1" --exclude='./dev/*'
    install -m 755 target/debug/rds target/debug/rds-agent "$1/usr/local/bin/"
    if [[ -n ${FIRECRACKER_BIN:-} && -n ${JAILER_BIN:-} ]]; then
        install -m 755 "$FIRECRACKER_BIN" "$1/usr/local/bin/firecracker"
        install -m 755 "$JAILER_BIN" "$1/usr/local/bin/jailer"
    fi
    mkdir -p "$1/var/lib/run-dat-sheesh" "$1/image"
}
isolate=(unshare --mount --pid --fork --kill-child --net --uts --ipc --propagation private)

if [[ ${1:-} != inside ]]; then
    if ((EUID != 0)); then say "*** The container is not tried: that needs root ***"; exit; fi
    if [[ ${1:-} == box ]]; then : "${FIRECRACKER_BIN:?}" "${JAILER_BIN:?}"; fi
    cargo build "${quiet[@]}" --locked --package rds
    work=$(mktemp -d "${TMPDIR:-/var/tmp}/container.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    make_root "$work/root"
    if [[ ${1:-} != box ]]; then
        "${isolate[@]}" "$0" inside "$work/root"
        exit
    fi
    step "Host in a box" scripts/box/build.sh
    strip "$work/root/usr/local/bin/rds"
    mkdir -p "$work"/repository/{scripts,target/image} "$work/image"
    cp Cargo.toml Dockerfile docker-compose.yml "$work/repository/"
    cp scripts/common.sh scripts/container.sh "$work/repository/scripts/"
    for file in kernel rootfs modules; do cp --reflink=auto --sparse=always "target/image/$file" "$work/image/"; done
    cat >"$work/run" <<END
set -o pipefail
mount --bind /run/image /run/payload/repository/target/image
export RDS_HYPERVISOR=firecracker
${isolate[@]} /run/payload/repository/scripts/container.sh inside /run/payload/root 2>&1 | cat
END
    mkdir "$work/payload"
    mv "$work/root" "$work/repository" "$work/run" "$work/payload/"
    scripts/box/run.sh "$work/payload" "$work/image"
    exit
fi

root=$2
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
for dir in dev run tmp var/lib/run-dat-sheesh; do mount -t tmpfs tmpfs "$root/$dir"; done
mkdir "$root/dev/net"
ln -s /proc/self/fd "$root/dev/fd"
for device in full kvm net/tun null random tty urandom zero; do
    [[ -e /dev/$device ]] || continue
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount --bind -o ro target/image "$root/image"
mount -o remount,bind,ro "$root"
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward

capabilities=$(sed -n '/^    cap_add:/,/^    security_opt:/s/^      - \([A-Z_]*\)$/+\L\1/p;/^  caddy:/q' docker-compose.yml | paste -sd ,)
export API_KEY=key VM_SECRET_KEY=0123456789abcdef0123456789abcdef ENABLE_SNAPSHOTS=false
export KERNEL_PATH=/image/kernel BASE_ROOTFS_PATH=/image/rootfs MODULES_PATH=/image/modules RDS_API_KEY=key
# The settings that the Dockerfile makes.
while read -r setting; do export "${setting?}"; done < <(sed -n 's/^ENV \(BIND.*\)/\1/p' Dockerfile | tr ' ' '\n')
chroot "$root" setpriv --bounding-set="-all,$capabilities" --inh-caps=-all --no-new-privs /usr/local/bin/rds serve &
server=$!
trap 'kill $server; wait $server' EXIT
in_it() { chroot "$root" "$@"; }
mapfile -t healthy < <(sed -n 's/^HEALTHCHECK.* CMD \[\(.*\)\]$/\1/p' Dockerfile | tr -d '",' | tr ' ' '\n')
for _ in {1..100}; do
    if in_it "${healthy[@]}"; then break; fi
    kill -0 $server || die "The server ended."
    sleep 0.2
done
# shellcheck disable=SC2016 # for the shell in the VM
command='echo "$API_KEY"; cat /sys/class/net/eth0/operstate'
vm=$(in_it rds vm create --mem 128 --secret API_KEY)
answer=$(in_it rds exec "$vm" -- "$command") || true
[[ $answer == key* ]] || die "The VM does not answer."
if [[ -e /dev/net/tun ]]; then [[ $answer == key$'\n'?* ]] || die "The VM has no network card."; fi
# A process may end meanwhile, which is no failure.
monitor=$(grep -hsE '^(firecracker|qemu)' "$root"/proc/[0-9]*/comm | head -n 1) || true
[[ -n $monitor ]] || die "No monitor runs."
in_it rds vm rm "$vm" >/dev/null
say "The server runs in the container's root filesystem, and so does a VM in $monitor, with: $capabilities"
