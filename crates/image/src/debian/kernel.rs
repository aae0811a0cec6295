//! Kernel and modules out of the distribution's kernel package.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::ImageError;
use crate::debian::modules::{self, Available, canonical};
use crate::debian::tree::Tree;
use crate::debian::{bzimage, manifest::KernelPackage};
use crate::program::{Call, Program};

const DPKG_DEB: Program = Program { name: "dpkg-deb", package: "dpkg", limit: Duration::from_secs(120) };

/// Where [`super::bootstrap`] leaves the package in the tree.
const DOWNLOADED: &str = "kernel";

/// The parts of a kernel package that matter here, still compressed.
#[derive(Default)]
struct Contents {
    bzimage: Vec<u8>,
    modules: Available,
}

/// Writes the kernel to `kernel` and its modules to `modules`, and takes the package out of the tree.
pub(crate) fn extract(tree: &Tree, kernel: &Path, modules: &Path) -> Result<KernelPackage, ImageError> {
    let downloaded = tree.path().join(DOWNLOADED);
    let package = only_file(&downloaded).map_err(ImageError::io("find the kernel in", &downloaded))?;
    let contents = read(&package)?;
    let vmlinux = bzimage::vmlinux(&contents.bzimage)?;
    fs::write(kernel, vmlinux).map_err(ImageError::io("write", kernel))?;
    let archive = modules::archive(contents.modules)?;
    fs::write(modules, archive).map_err(ImageError::io("write", modules))?;
    fs::remove_dir_all(&downloaded).map_err(ImageError::io("remove", &downloaded))?;
    KernelPackage::from_file_name(&package)
}

fn only_file(dir: &Path) -> io::Result<PathBuf> {
    let entry = fs::read_dir(dir)?.next().ok_or(io::ErrorKind::NotFound)??;
    Ok(entry.path())
}

fn read(package: &Path) -> Result<Contents, ImageError> {
    let args = vec!["--fsys-tarfile".into(), package.into()];
    let (contents, _) = DPKG_DEB.stream(&Call { args, ..Call::default() }, |out| contents(out))?;
    Ok(contents)
}

fn contents(archive: impl Read) -> io::Result<Contents> {
    let mut contents = Contents::default();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        let mut bytes = Vec::new();
        if name.starts_with("vmlinuz-") {
            entry.read_to_end(&mut contents.bzimage)?;
        } else if name == "modules.builtin" {
            entry.read_to_end(&mut bytes)?;
            contents.modules.builtin = String::from_utf8_lossy(&bytes).lines().filter_map(module_name).collect();
        } else if let Some(name) = module_name(&name) {
            entry.read_to_end(&mut bytes)?;
            contents.modules.files.insert(name, bytes);
        }
    }
    Ok(contents)
}

/// The name of the module in a file `…/NAME.ko`, `NAME.ko.xz` or the like.
fn module_name(path: &str) -> Option<String> {
    let (name, extension) = path.rsplit('/').next()?.split_once(".ko")?;
    (extension.is_empty() || extension.starts_with('.')).then(|| canonical(name))
}
