//! The distribution's part of the image: `mmdebstrap` makes it and streams it out as a tar archive.
//!
//! It is told no mirror, so it uses the one that it or the host is set up for. The archive carries owners and modes, so
//! that the rest of the build works the same with and without root.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use crate::ImageError;
use crate::debian::tree::Tree;
use crate::program::{Call, Program};
use crate::progress::{Event, Progress};

/// The release that the image is made of.
pub(crate) const SUITE: &str = "trixie";

const MMDEBSTRAP: Program = Program { name: "mmdebstrap", package: "mmdebstrap", limit: Duration::from_secs(900) };

/// Beyond the minimal system. libatomic1 is for Node.js, procps for people.
const PACKAGES: &str = "git,ca-certificates,curl,iproute2,libatomic1,procps";

/// Later than no file that a package brings, so only what the build itself makes gets this time.
const SOURCE_DATE_EPOCH: &str = "1735689600";

/// Options of dpkg: no syncing of every file, which is for systems that must survive a crash in between, and nothing that
/// is only read by people. Licences stay.
const DPKG_OPTIONS: [&str; 11] = [
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/bug/*",
    "path-exclude=/usr/share/bash-completion/*",
    "path-exclude=/usr/share/gitweb/*",
    "path-exclude=/usr/share/perl/*/unicore/*.txt",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
];

/// Puts the package of the newest cloud kernel into the tree without installing it: what an installed kernel needs to
/// boot a real machine (an initramfs generator, module tools) has no place in the image.
const FETCH_KERNEL: &str = r#"chroot "$1" sh -c 'set -e; mkdir /kernel; cd /kernel; package=$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/^ *Depends: \(linux-image-[^ ]*\)\$/\1/p" | head -n 1); apt-get -q -o APT::Sandbox::User=root download "$package"'"#;

pub(crate) fn run(site: &Path, progress: &dyn Progress) -> Result<Tree, ImageError> {
    let root = rustix::process::geteuid().is_root();
    let mut env = vec![("SOURCE_DATE_EPOCH", OsString::from(SOURCE_DATE_EPOCH))];
    if root {
        // Not for user namespaces: their root may not be able to enter the directories above.
        env.push(("TMPDIR", site.into()));
    }
    let cancelled = || progress.cancelled();
    let call = Call { args: args(root), env, cancelled: Some(&cancelled), ..Call::default() };
    let (tree, _) = MMDEBSTRAP.stream(&call, |out| {
        Tree::unpack(Counted { inner: out, done: 0, reported: 0, progress }, &site.join("tree"))
    })?;
    Ok(tree)
}

fn args(root: bool) -> Vec<OsString> {
    let mode = if root { "--mode=root" } else { "--mode=unshare" };
    let mut args: Vec<OsString> = [mode].map(OsString::from).into();
    args.extend(["--variant=minbase", "--architectures=amd64", "--format=tar"].map(OsString::from));
    args.push(format!("--include={PACKAGES}").into());
    args.extend(DPKG_OPTIONS.iter().map(|option| format!("--dpkgopt={option}").into()));
    args.push(format!("--customize-hook={FETCH_KERNEL}").into());
    args.extend([SUITE, "-"].map(OsString::from));
    args
}

/// Reports how much has been read.
struct Counted<'a> {
    inner: &'a mut dyn Read,
    done: u64,
    reported: u64,
    progress: &'a dyn Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.done += length as u64;
        if self.done - self.reported >= 1 << 20 {
            self.reported = self.done;
            self.progress.event(Event::Advanced { done: self.done, total: None });
        }
        Ok(length)
    }
}
