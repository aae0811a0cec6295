//! The kernel modules that a guest needs before it can reach its image, as a cpio archive.
//!
//! The archive holds `modules/*.ko` and `modules/order`, one file name a line in the order in which the agent loads
//! them. Which modules those need is read from the modules themselves, so a new kernel needs no change here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::ImageError;
use crate::cpio::{Archive, Node};
use crate::debian::compression::decompress;

/// What a guest is made of: its bus, disks, network interface, root filesystem, channel on Firecracker, entropy, and balloon.
const WANTED: [&str; 7] = [
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "overlay",
    "vmw_vsock_virtio_transport",
    "virtio_rng",
    "virtio_balloon",
];

/// What one kernel has, by name, with hyphens written as underscores.
#[derive(Debug, Default)]
pub(crate) struct Available {
    /// The files of its modules, as they are packed.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// What is a part of the kernel itself.
    pub(crate) builtin: BTreeSet<String>,
}

/// Modules that were chosen: their unpacked files by name, and the order to load them in.
#[derive(Default)]
struct Chosen {
    files: BTreeMap<String, Vec<u8>>,
    order: Vec<String>,
}

/// Packs the wanted modules and all they need.
pub(crate) fn archive(mut available: Available) -> Result<Vec<u8>, ImageError> {
    let mut chosen = Chosen::default();
    for name in WANTED {
        choose(name, &mut available, &mut chosen)?;
    }
    pack(&chosen).map_err(|source| ImageError::Io { what: "cannot pack kernel modules".into(), source })
}

/// Adds what a module needs, then the module.
fn choose(name: &str, available: &mut Available, chosen: &mut Chosen) -> Result<(), ImageError> {
    if chosen.files.contains_key(name) || available.builtin.contains(name) {
        return Ok(());
    }
    let Some(packed) = available.files.remove(name) else {
        return Err(ImageError::Invalid(format!("the kernel has no module {name}")));
    };
    let mut module = decompress(packed)?;
    let needed = dependencies(&module);
    module.truncate(unsigned_length(&module));
    chosen.files.insert(name.to_owned(), module);
    for needed in needed {
        choose(&needed, available, chosen)?;
    }
    chosen.order.push(name.to_owned());
    Ok(())
}

/// The modules named in `.modinfo`, a section of `key=value` strings that end with a NUL.
fn dependencies(module: &[u8]) -> Vec<String> {
    let value = module.split(|byte| *byte == 0).find_map(|text| text.strip_prefix(b"depends="));
    let text = String::from_utf8_lossy(value.unwrap_or_default());
    text.split(',').filter(|name| !name.is_empty()).map(canonical).collect()
}

/// The length of a module without the signature behind it, which a guest has no use for: its kernel does not insist on
/// one, and would only spend time on checking it. How much is not settled: under emulation one pair of runs loaded in
/// 103 instead of 272 ms, two later ones saved nothing. The form is `struct module_signature` of the kernel's
/// `include/linux/module_signature.h`.
fn unsigned_length(module: &[u8]) -> usize {
    const DESCRIPTION: usize = 12;
    let length = || {
        let end = module.strip_suffix(b"~Module signature appended~\n")?.len();
        let size: [u8; 4] = module.get(end.checked_sub(4)?..end)?.try_into().ok()?;
        end.checked_sub(DESCRIPTION)?.checked_sub(u32::from_be_bytes(size) as usize)
    };
    length().unwrap_or(module.len())
}

/// The kernel takes a hyphen and an underscore in a module's name for the same.
pub(crate) fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn pack(chosen: &Chosen) -> io::Result<Vec<u8>> {
    let mut archive = Archive::new(Vec::new());
    archive.add("modules", Node::Directory)?;
    let order: String = chosen.order.iter().map(|name| format!("{name}.ko\n")).collect();
    archive.add("modules/order", Node::File { mode: 0o644, content: order.as_bytes() })?;
    for (name, content) in &chosen.files {
        archive.add(&format!("modules/{name}.ko"), Node::File { mode: 0o644, content })?;
    }
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(depends: &str) -> Vec<u8> {
        format!("\x7fELF\0license=GPL\0depends={depends}\0retpoline=Y\0").into_bytes()
    }

    fn build(modules: &[(&str, &str)], builtin: &[&str]) -> Result<String, ImageError> {
        let archive = archive(Available {
            files: modules.iter().map(|(name, depends)| (canonical(name), module(depends))).collect(),
            builtin: builtin.iter().map(|name| canonical(name)).collect(),
        })?;
        let text = String::from_utf8_lossy(&archive).into_owned();
        let list = text.split("modules/order\0").nth(1).unwrap().trim_start_matches('\0');
        Ok(list.split('\0').next().unwrap().split("070701").next().unwrap().to_owned())
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let modules = [
            ("virtio_mmio", ""),
            ("virtio_blk", ""),
            ("virtio_net", "net-failover"),
            ("net_failover", "failover"),
            ("failover", ""),
            ("overlay", ""),
            ("vsock", ""),
            ("vmw_vsock_virtio_transport", "vsock,failover"),
            ("unused", ""),
        ];
        let order = build(&modules, &["virtio-rng", "virtio-balloon"]);
        assert_eq!(
            order.unwrap(),
            "virtio_mmio.ko\nvirtio_blk.ko\nfailover.ko\nnet_failover.ko\nvirtio_net.ko\noverlay.ko\nvsock.ko\n\
             vmw_vsock_virtio_transport.ko\n"
        );
    }

    #[test]
    fn signatures_are_left_out() {
        let mut module = b"\x7fELF and so on".to_vec();
        assert_eq!(unsigned_length(&module), 14);
        module.extend(
            [b"signature", &[0u8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9][..], b"~Module signature appended~\n"].concat(),
        );
        assert_eq!(unsigned_length(&module), 14);
        let broken = [&[255; 4][..], b"~Module signature appended~\n"].concat();
        assert_eq!(unsigned_length(&broken), broken.len());
    }

    #[test]
    fn a_kernel_without_a_needed_module_is_refused() {
        let error = build(&[("overlay", "gone")], &WANTED.map(|name| if name == "overlay" { "" } else { name }));
        let error = error.unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
        assert!(build(&[], &WANTED).is_ok_and(|order| order.is_empty()));
    }
}
