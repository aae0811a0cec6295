//! The arguments of a QEMU process. Pure: descriptors are numbers here.

use std::fmt::Write as _;
use std::os::fd::RawFd;

use rds_netif::Mac;
use rds_protocol::{REHEARSE, TIMER_HZ};
use serde_json::json;

use super::version::{READ_ONLY_TEMPLATES, WHOLE_FLAGS};
use crate::Version;
use crate::accelerator::Accelerator;
use crate::hypervisor::VmId;

/// Numbers of the descriptors that the process inherits. It opens no path but its own firmware.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Descriptors {
    pub(super) kernel: RawFd,
    pub(super) initramfs: RawFd,
    pub(super) rootfs: RawFd,
    pub(super) disk: RawFd,
    pub(super) serial: RawFd,
    /// Listening sockets.
    pub(super) qmp: RawFd,
    pub(super) port_in: RawFd,
    pub(super) port_out: RawFd,
    /// The tap device; meaningless for a machine without a network interface.
    pub(super) tap: RawFd,
}

/// What a machine's memory is made of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Memory {
    /// Anonymous and shared, so that a snapshot can leave it out of the device state and copy it from outside. Never a
    /// file on a disk: it holds the guest's secrets.
    Fresh,
    /// A private, copy-on-write map of this descriptor's file.
    CopyOf(RawFd),
}

/// Everything that decides the arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arguments {
    pub(super) id: VmId,
    pub(super) vcpus: u8,
    pub(super) mem_mib: u32,
    pub(super) accelerator: Accelerator,
    pub(super) version: Version,
    /// Rate of the host's time stamp counter.
    pub(super) tsc_khz: u64,
    pub(super) descriptors: Descriptors,
    pub(super) memory: Memory,
    /// Hardware address of the network interface, if there is one.
    pub(super) mac: Option<Mac>,
    /// Whether the guest rehearses before it listens.
    pub(super) rehearse: bool,
    /// Whether the process waits to be given a snapshot's device state.
    pub(super) incoming: bool,
}

/// Prefix of `-name`; the VM's id follows.
pub(super) const NAME_PREFIX: &str = "rds-";

/// Name of the device that is the guest's disk.
pub(super) const DISK_DEVICE: &str = "disk";

/// A balloon, of which programs get back what they need. QEMU tries to give the host what is in it, and can for a machine that
/// was booted. Memory that was copied from a file it takes from the file, whosever it is, so machines are given files that
/// nobody can change, and it says that it failed for each page. Reports of pages that are free would only make more of that.
const BALLOON: &str = "virtio-balloon-device,deflate-on-oom=on,free-page-reporting=off";

/// A network interface without a control queue: there is nothing to steer, and in a machine that was restored QEMU 7.2 does
/// not hear of what the guest asks through it, for which the guest waits for ever.
const NO_CONTROL: &str = "ctrl_vq=off,ctrl_rx=off,ctrl_vlan=off,ctrl_rx_extra=off,ctrl_mac_addr=off,ctrl_guest_offloads=off,\
                          guest_announce=off";

/// How often the emulated local APIC's timer counts in a second: a gigahertz (QEMU's hw/intc/apic_common.c counts nanoseconds),
/// of which Linux takes every sixteenth (`APIC_DIVISOR` in its arch/x86/kernel/apic/apic.c).
const APIC_HZ: u32 = 1_000_000_000 / 16;

/// The kernel's number of the processor's `cmpxchg16b`, `X86_FEATURE_CX16` in its cpufeatures.h. Names are not known to all
/// kernels.
const CMPXCHG16B: u32 = 4 * 32 + 13;

/// The emulated processor, as `-cpu` wants it: all that there is but two things.
///
/// The promise that `rep movsb` and `rep stosb` are fast: the emulator carries them out byte by byte; kernels and libraries
/// that are not promised it copy and clear by words. Measured with QEMU 7.2 and 10.0: data through a pipe 6 to 8 times as
/// fast, memory that a program copies 8 times, new pages 2 times, pages that are written to after a fork 2 to 3 times.
///
/// Page tables of five levels, of which the emulator walks each by hand, for addresses above 128 TiB. Measured with QEMU 7.2,
/// by turns: a create and its first command take 5 % less without.
pub const EMULATED_PROCESSOR: &str = "max,-erms,-fsrm,-la57";

/// MiB of translated code that a process under emulation may hold. QEMU's default is a gibibyte for each VM.
const TRANSLATION_MIB: u32 = 256;

impl Arguments {
    /// The arguments behind the program's name.
    pub(super) fn render(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
        add(&["-name", &format!("{NAME_PREFIX}{}", self.id)]);
        add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        add(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
        // No PIT: nobody stops it where the kernel does without, and it wakes the process 36 times a second for ever. The
        // kernel calibrates its clocks by the frequency that its command line or KVM tells. A core dump would write the
        // guest's secrets to the disk.
        let machine = "microvm,x-option-roms=off,rtc=on,pit=off,pic=on,memory-backend=ram,dump-guest-core=off";
        // Without option ROMs SeaBIOS finds no kernel in QEMU 10; qboot needs none.
        add(&["-bios", "qboot.rom", "-machine", machine, "-accel", &self.accel(), "-cpu", self.processor()]);
        add(&["-smp", &self.vcpus.to_string(), "-m", &self.mem_mib.to_string(), "-object", &self.memory()]);

        let fds = &self.descriptors;
        for (set, fd) in [(1, fds.serial), (2, fds.rootfs), (3, fds.disk)] {
            add(&["-add-fd", &format!("fd={fd},set={set}")]);
        }
        add(&["-kernel", &format!("/dev/fd/{}", fds.kernel), "-initrd", &format!("/dev/fd/{}", fds.initramfs)]);
        add(&["-append", &command_line(self.accelerator, self.version, self.tsc_khz, self.rehearse)]);
        add(&["-chardev", &listener("qmp", fds.qmp), "-mon", "chardev=qmp,mode=control"]);
        add(&["-chardev", "file,id=serial,path=/dev/fdset/1,append=on", "-serial", "chardev:serial"]);

        add(&["-device", "virtio-serial-device,max_ports=3"]);
        add(&["-chardev", &listener("in", fds.port_in), "-device", &port("in", 1)]);
        add(&["-chardev", &listener("out", fds.port_out), "-device", &port("out", 2)]);
        add(&["-blockdev", &block("root", 2, true), "-device", "virtio-blk-device,drive=root"]);
        let disk = format!("virtio-blk-device,id={DISK_DEVICE},drive=disk");
        add(&["-blockdev", &block("disk", 3, false), "-device", &disk]);
        add(&["-object", "rng-builtin,id=rng", "-device", "virtio-rng-device,rng=rng"]);
        add(&["-device", BALLOON]);
        if let Some(mac) = self.mac {
            let device = format!("virtio-net-device,netdev=net,mac={mac},{NO_CONTROL}");
            add(&["-netdev", &format!("tap,id=net,fd={}", fds.tap), "-device", &device]);
        }
        if self.incoming {
            // Not before the disk has its size.
            add(&["-S", "-incoming", "defer"]);
        }
        arguments
    }

    fn accel(&self) -> String {
        match self.accelerator {
            Accelerator::Kvm => "kvm".into(),
            Accelerator::Tcg => format!("tcg,tb-size={TRANSLATION_MIB}"),
        }
    }

    fn processor(&self) -> &'static str {
        match self.accelerator {
            Accelerator::Kvm => "max",
            Accelerator::Tcg => EMULATED_PROCESSOR,
        }
    }

    fn memory(&self) -> String {
        let size = self.mem_mib;
        match self.memory {
            Memory::Fresh => format!("memory-backend-memfd,id=ram,size={size}M,share=on"),
            Memory::CopyOf(fd) => {
                let access = if self.version >= READ_ONLY_TEMPLATES { ",readonly=on,rom=off" } else { "" };
                format!("memory-backend-file,id=ram,size={size}M,mem-path=/dev/fd/{fd},share=off{access}")
            }
        }
    }
}

/// The kernel's command line. `panic=-1 reboot=t` ends the process of a guest that panicked, with `-no-reboot`.
/// `cryptomgr.notests` leaves out self-tests that take a quarter of an emulated boot. Measured to matter nothing
/// under emulation: the console, `pci=off`, `nokaslr`, `8250.nr_uarts`, the virtio-rng device.
pub(super) fn command_line(accelerator: Accelerator, version: Version, tsc_khz: u64, rehearse: bool) -> String {
    let mut line = String::from("console=ttyS0 quiet panic=-1 reboot=t cryptomgr.notests");
    if accelerator == Accelerator::Tcg {
        // Emulated timers come late on a busy host. The kernel must neither measure its clock by them nor drop it for
        // disagreeing with them.
        //
        // The emulator knows translated code by its virtual address. With addresses chosen at random, each process of
        // the guest has its shell, loader and libraries translated anew. Measured with QEMU 7.2 for `true`: 6,000
        // blocks translated and 40 ms with random addresses, 11 blocks and 13 ms without. The buffer of translations
        // was full every 76 calls, and the call that met that took 130 ms. Deno starts three times as fast.
        //
        // What the kernel does against a processor's faults means nothing to a processor that is a program, and is a
        // tenth of the time of a start.
        let _ = write!(line, " no_timer_check tsc_early_khz={tsc_khz} tsc=reliable norandmaps mitigations=off");
        let _ = write!(line, " {TIMER_HZ}={APIC_HZ}");
        if version < WHOLE_FLAGS {
            // The kernel takes its memory with `cmpxchg16b`. An interrupt right behind it saves such flags, and to return
            // with them is a panic when they say that tasks are nested or that it goes by single steps.
            let _ = write!(line, " clearcpuid={CMPXCHG16B}");
        }
    }
    if rehearse {
        let _ = write!(line, " {REHEARSE}");
    }
    line
}

fn listener(id: &str, fd: RawFd) -> String {
    format!("socket,id={id},fd={fd},server=on,wait=off")
}

fn port(name: &str, number: u8) -> String {
    format!("virtserialport,chardev={name},name=rds.{name},nr={number}")
}

/// A raw image over descriptor set `set`.
///
/// Write-back through the host's page cache: a guest's flush is an `fdatasync`, so what the guest synced survives a
/// crash of the host, while ordinary writes cost no disk access; `O_DIRECT` would read the shared image once per VM.
/// No locks: many VMs share the image, and the manager alone decides who has a disk.
fn block(name: &str, set: u8, read_only: bool) -> String {
    json!({
        "driver": "raw", "node-name": name, "read-only": read_only, "discard": "unmap",
        "cache": {"direct": false, "no-flush": false},
        "file": {"driver": "file", "filename": format!("/dev/fdset/{set}"), "locking": "off"},
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> Arguments {
        let descriptors = Descriptors {
            kernel: 10,
            initramfs: 11,
            rootfs: 12,
            disk: 13,
            serial: 14,
            qmp: 15,
            port_in: 16,
            port_out: 17,
            tap: 19,
        };
        Arguments {
            id: "6c0b0d0e-4d8c-4e4a-9f0b-0a1b2c3d4e5f".parse().unwrap(),
            vcpus: 2,
            mem_mib: 256,
            accelerator: Accelerator::Tcg,
            version: Version { major: 7, minor: 2, patch: 22 },
            tsc_khz: 2_500_000,
            descriptors,
            memory: Memory::Fresh,
            mac: None,
            rehearse: false,
            incoming: false,
        }
    }

    /// One option with its value on a line.
    fn show(arguments: &Arguments) -> String {
        arguments.render().join(" ").replace(" -", "\n-")
    }

    #[test]
    fn a_cold_boot_under_emulation() {
        insta::assert_snapshot!(show(&arguments()));
        let new = Arguments { version: WHOLE_FLAGS, ..arguments() };
        assert_eq!(show(&new), show(&arguments()).replace(" clearcpuid=141", ""));
    }

    #[test]
    fn a_network_interface_is_an_open_tap() {
        let with = Arguments { mac: Some(Mac([2, 0xfc, 172, 16, 0, 5])), ..arguments() };
        let without = arguments().render();
        let more: Vec<String> = with.render().into_iter().filter(|word| !without.contains(word)).collect();
        insta::assert_snapshot!(more.join(" "), @"-netdev tap,id=net,fd=19 virtio-net-device,netdev=net,mac=02:fc:ac:10:00:05,ctrl_vq=off,ctrl_rx=off,ctrl_vlan=off,ctrl_rx_extra=off,ctrl_mac_addr=off,ctrl_guest_offloads=off,guest_announce=off");
    }

    #[test]
    fn a_cold_boot_under_kvm() {
        insta::assert_snapshot!(show(&Arguments { accelerator: Accelerator::Kvm, ..arguments() }));
    }

    #[test]
    fn a_restore_maps_memory_copy_on_write() {
        let restore = Arguments { memory: Memory::CopyOf(18), incoming: true, ..arguments() };
        let new = Arguments { version: Version { major: 10, minor: 0, patch: 2 }, ..restore };
        insta::assert_snapshot!([restore.memory(), new.memory()].join("\n"));
        assert!(restore.render().ends_with(&["-incoming".into(), "defer".into()]));
    }
}
