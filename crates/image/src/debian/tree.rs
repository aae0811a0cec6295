//! The image's files on their way into the filesystem: unpacked by whoever builds, with their true owners on the side.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::ImageError;

/// User and group of a file in the guest.
pub(crate) type Owner = (u32, u32);

/// Uid and gid that commands run as in every guest.
const USER: Owner = (1000, 1000);

/// A directory that becomes a filesystem.
pub(crate) struct Tree {
    path: PathBuf,
    /// Files that root does not own, by their path in the tree.
    owners: BTreeMap<PathBuf, Owner>,
}

impl Tree {
    /// Unpacks a tar archive of a whole system into the new directory `path`.
    pub(crate) fn unpack(archive: impl Read, path: &Path) -> io::Result<Self> {
        fs::create_dir(path)?;
        let mut owners = BTreeMap::new();
        let mut archive = tar::Archive::new(archive);
        for entry in archive.entries()? {
            let mut entry = entry?;
            // The agent mounts a devtmpfs over it, and only root may make device nodes.
            let name = relative(&entry.path()?);
            if name.starts_with("dev") && name != Path::new("dev") {
                continue;
            }
            let owner = (number(entry.header().uid()?)?, number(entry.header().gid()?)?);
            entry.set_preserve_permissions(true);
            if entry.unpack_in(path)? && owner != (0, 0) {
                owners.insert(name, owner);
            }
        }
        Ok(Self { path: path.to_owned(), owners })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Who owns a file in the guest.
    pub(crate) fn owner(&self, path: &Path) -> Owner {
        self.owners.get(path).copied().unwrap_or((0, 0))
    }
}

/// Makes the directory `name` below `root`, and those above it, for everyone to read whatever the umask is.
pub(crate) fn make_dir(root: &Path, name: &Path) -> io::Result<()> {
    if let Some(above) = name.parent() {
        make_dir(root, above)?;
    }
    let path = root.join(name);
    match fs::create_dir(&path) {
        Ok(()) => fs::set_permissions(&path, Permissions::from_mode(0o755)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a file for everyone to read whatever the umask is.
pub(crate) fn write_file(path: &Path, content: &str) -> io::Result<()> {
    fs::write(path, content)?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
}

fn relative(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect()
}

fn number(value: u64) -> io::Result<u32> {
    u32::try_from(value).map_err(|_| io::ErrorKind::InvalidData.into())
}
/// Files that differ from build to build, or that only matter to a running machine.
const REMOVED: [&str; 5] = ["var/log", "var/cache", "var/lib/apt/lists", "boot", "run"];

/// Directories that the guest or its tools expect.
const MADE: [&str; 7] = ["boot", "run", "workspace", "home/user", "var/log", "var/cache", "var/lib/apt/lists"];

/// Lines added for the user that commands run as. Its password is locked.
const USER_LINES: [(&str, &str); 4] = [
    ("etc/passwd", "user:x:1000:1000:user:/home/user:/bin/bash\n"),
    ("etc/group", "user:x:1000:\n"),
    ("etc/shadow", "user:!*:::::::\n"),
    ("etc/gshadow", "user:!::\n"),
];

/// Files whose content would otherwise come from the machine that builds.
const WRITTEN: [(&str, &str); 4] = [
    ("etc/hostname", "sandbox\n"),
    ("etc/hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n"),
    ("etc/resolv.conf", ""),
    ("etc/machine-id", ""),
];

impl Tree {
    /// Makes the system a guest: its user, no trace of the machine that built it.
    pub(crate) fn finish(&mut self) -> Result<(), ImageError> {
        self.try_finish().map_err(ImageError::io("finish", &self.path))
    }

    fn try_finish(&mut self) -> io::Result<()> {
        for name in REMOVED {
            fs::remove_dir_all(self.path.join(name))?;
            self.owners.retain(|path, _| !path.starts_with(name));
        }
        for name in MADE {
            make_dir(&self.path, Path::new(name))?;
        }
        for (name, content) in WRITTEN {
            write_file(&self.path.join(name), content)?;
        }
        for (name, line) in USER_LINES {
            fs::OpenOptions::new().append(true).open(self.path.join(name))?.write_all(line.as_bytes())?;
        }
        self.owners.extend(["home/user", "workspace"].map(|name| (PathBuf::from(name), USER)));
        Ok(())
    }

    /// Name and version of every package of the distribution.
    pub(crate) fn packages(&self) -> Result<BTreeMap<String, String>, ImageError> {
        let path = self.path.join("var/lib/dpkg/status");
        let status = fs::read_to_string(&path).map_err(ImageError::io("read", &path))?;
        Ok(installed(&status))
    }
}

fn installed(status: &str) -> BTreeMap<String, String> {
    let package = |paragraph: &str| {
        let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        Some((field("Package: ")?, field("Version: ")?))
    };
    status.split("\n\n").filter_map(package).collect()
}
