#!/usr/bin/env bash
# Builds the host in a box into target/box, unless it is there from the same sources: a root file system and a kernel of
# the distribution's packages, an initramfs that finds the root, the QEMU of these packages for the box itself, and a program
# that tells how fast this machine's counter is. Needs root.

source "$(dirname "$0")/../common.sh"

box=target/box
sources=$(cat scripts/box/{build.sh,init,initramfs-init,tsc.rs} | sha256sum)
[[ -f $box/host.ext4 && $(cat $box/sources 2>/dev/null) == "$sources" ]] && exit
((EUID == 0)) || die "The host in a box is built by root."

rm -rf $box
mkdir -p $box/root $box/initramfs/{bin,dev,mnt}
packages=linux-image-cloud-amd64,busybox-static,e2fsprogs,iproute2,kmod,nftables,openssl,procps,qemu-system-x86,util-linux
mmdebstrap --quiet --variant=minbase --architectures=amd64 --include=$packages --format=tar \
    --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' trixie - | tar --extract --directory=$box/root --exclude=./dev/*
install -m 755 scripts/box/init $box/root/box-init
kernels=("$box"/root/lib/modules/*)
version=${kernels[0]##*/}
mv "$box/root/boot/vmlinuz-$version" $box/kernel
rm -rf $box/root/boot
mkdir $box/qemu
(cd $box/root/usr && cp --archive --parents bin/qemu-system-x86_64 lib/x86_64-linux-gnu lib64 share/qemu share/seabios ../../qemu)

install -m 755 scripts/box/initramfs-init $box/initramfs/init
cp $box/root/bin/busybox $box/initramfs/bin/
xz --decompress --stdout "$box/root/lib/modules/$version/kernel/drivers/block/virtio_blk.ko.xz" >$box/initramfs/virtio_blk.ko
(cd $box/initramfs && find . | cpio --quiet --create --format=newc) >$box/initramfs.cpio
rustc --edition 2024 -o $box/tsc scripts/box/tsc.rs
mke2fs -q -t ext4 -O ^has_journal -d $box/root $box/host.ext4 1600M
rm -rf $box/root $box/initramfs
printf '%s\n' "$sources" >$box/sources
