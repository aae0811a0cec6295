#!/usr/bin/env bash
# Boots the host in a box and runs a script in it: `run.sh DIR IMAGE`. DIR holds the script `run` and what it needs, IMAGE
# a guest image; they are /run/payload and /run/image in there. The exit code is the script's.
#
# Where this machine's own KVM can run a KVM, that is used; elsewhere the box is emulated, processor and all. BOX_KVM=1 or 0
# decides without trying. BOX_MEMORY (6G), BOX_DISK (20G) and BOX_LIMIT (seconds, 3600) bound it.

source "$(dirname "$0")/../common.sh"

payload=$(realpath "$1") image=$(realpath "$2")
box=$PWD/target/box
work=$(mktemp -d "${TMPDIR:-/var/tmp}/box.XXXXXX")
trap 'rm -rf "$work"' EXIT

# disk NAME FROM: a file system with the files of a directory.
disk() {
    local kib
    kib=$(($(du --summarize --apparent-size --block-size=1K "$2" | cut -f1) * 11 / 10 + 32768))
    mke2fs -q -t ext4 -O ^has_journal -d "$2" "$work/$1.ext4" ${kib}k
}
disk payload "$payload"
disk image "$image"
truncate -s "${BOX_DISK:-20G}" "$work/scratch.ext4"
mke2fs -q -t ext4 -O ^has_journal "$work/scratch.ext4"

# The box's own QEMU: under 7.2 the box's kernel found its stacks corrupted while machines ran in it.
own=$box/qemu
qemu=("$own/lib64/ld-linux-x86-64.so.2" --library-path "$own/lib/x86_64-linux-gnu" "$own/bin/qemu-system-x86_64"
    -L "$own/share/seabios" -L "$own/share/qemu")
# Under emulation there is one processor: with two that run at once, machines in the box end with triple faults, and its
# kernel with code that it was just rewriting. The kernel must not measure its clock by timers that come late, on a busy
# machine five times too late: it is told how fast the emulated counter is, which is this machine's. Nothing is to take
# `rep movsb` for fast, which is carried out byte by byte. And page tables need no fifth level, which is walked by hand: twice
# for machines in here.
accelerator=(-accel tcg -cpu "max,-erms,-fsrm,-la57" -smp 1) line="no_timer_check tsc=reliable tsc_early_khz=$("$box/tsc")"
# A KVM that opens may still run no kernel, so the box's own is tried in it.
kvm_runs_kvm() {
    [[ -w /dev/kvm ]] || return
    local said
    said=$(timeout 20 "${qemu[@]}" -machine q35 -accel kvm -cpu host -m 512M -nodefaults -display none -no-reboot -serial stdio \
        -kernel "$box/kernel" -initrd "$box/initramfs.cpio" -append "console=ttyS0 quiet panic=-1 probe=1" </dev/null 2>&1) || true
    [[ $said == *"box: runs machines"* ]]
}
if [[ -z ${BOX_KVM:-} ]] && kvm_runs_kvm; then BOX_KVM=1; fi
if [[ ${BOX_KVM:-} == 1 ]]; then
    accelerator=(-accel kvm -cpu host -smp 2) line=
    say "The box runs under KVM."
else
    say "The box is emulated."
fi
drives=()
for drive in "$box/host.ext4,snapshot=on" "$work/payload.ext4,readonly=on" "$work/image.ext4,readonly=on" "$work/scratch.ext4"; do
    drives+=(-drive "if=none,id=d${#drives[@]},format=raw,cache=unsafe,file=$drive" -device "virtio-blk-pci,drive=d${#drives[@]}")
done

exec 3> >(tee "$work/output")
timeout --foreground "${BOX_LIMIT:-3600}" "${qemu[@]}" -machine q35 "${accelerator[@]}" -m "${BOX_MEMORY:-6G}" \
    -nodefaults -display none -no-reboot -device virtio-rng-pci -serial stdio \
    -kernel "$box/kernel" -initrd "$box/initramfs.cpio" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests $line" "${drives[@]}" </dev/null >&3 2>&1 ||
    say "The box was stopped."
exec 3>&-
wait
code=$(sed -n 's/^box: exit \([0-9]*\).*/\1/p' "$work/output" | tail -n 1)
exit "${code:-1}"
