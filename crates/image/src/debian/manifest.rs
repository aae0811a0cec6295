//! `image.json`: what an image is made of.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::ImageError;
use crate::debian::tree::Tree;
use crate::debian::{KERNEL, MANIFEST, MODULES, ROOTFS, bootstrap, runtimes};
use crate::digest;

/// What an image is made of, as `image.json` beside its files says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// A short name for lists.
    pub name: String,
    /// What it is, for a person.
    pub description: String,
    /// The processor that it runs on, as `uname -m` says.
    pub architecture: String,
    /// The distribution's release.
    pub suite: String,
    /// The package that the kernel is from.
    pub kernel_package: KernelPackage,
    /// Versions of what is not from the distribution's packages, by name.
    pub runtimes: BTreeMap<String, String>,
    /// Versions of the distribution's packages, by name.
    pub packages: BTreeMap<String, String>,
    /// The image's files by name.
    pub files: BTreeMap<String, FileDigest>,
}

/// Name and version of a kernel package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelPackage {
    /// Its name, which holds the kernel's release.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Size and digest of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hex digits.
    pub sha256: String,
}

impl Manifest {
    pub(crate) fn from_json(text: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(text)
    }
}

impl KernelPackage {
    /// From `NAME_VERSION_ARCHITECTURE.deb`, in which the colon of a version is written `%3a`.
    pub(crate) fn from_file_name(path: &Path) -> Result<Self, ImageError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match name.split('_').collect::<Vec<_>>()[..] {
            [name, version, _] => Ok(Self { name: name.to_owned(), version: version.replace("%3a", ":") }),
            _ => Err(ImageError::Invalid(format!("{name} is no name of a package"))),
        }
    }
}

/// Writes `image.json` for the files in `image`.
pub(crate) fn write(image: &Path, tree: &Tree, kernel_package: KernelPackage) -> Result<Manifest, ImageError> {
    let runtimes: BTreeMap<_, _> =
        runtimes::PACKAGES.iter().map(|package| (package.runtime.to_owned(), package.version.to_owned())).collect();
    let with: Vec<_> = runtimes.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let manifest = Manifest {
        name: "debian".into(),
        description: format!("Debian {} with git, {}", bootstrap::SUITE, with.join(", ")),
        architecture: "x86_64".into(),
        suite: bootstrap::SUITE.into(),
        kernel_package,
        runtimes,
        packages: tree.packages()?,
        files: [KERNEL, ROOTFS, MODULES].into_iter().map(|name| file(image, name)).collect::<Result<_, _>>()?,
    };
    let path = image.join(MANIFEST);
    let mut text = serde_json::to_vec_pretty(&manifest).map_err(|error| super::invalid(&path, &error))?;
    text.push(b'\n');
    fs::write(&path, text).map_err(ImageError::io("write", &path))?;
    Ok(manifest)
}

fn file(image: &Path, name: &str) -> Result<(String, FileDigest), ImageError> {
    let path = image.join(name);
    let bytes = fs::metadata(&path).map_err(ImageError::io("read", &path))?.len();
    let sha256 = digest::sha256_file(&path).map_err(ImageError::io("read", &path))?;
    Ok((name.to_owned(), FileDigest { bytes, sha256 }))
}
