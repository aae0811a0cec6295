//! Where this host's programs are.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Directories that are searched after `PATH`: a user's `PATH` often lacks the administrator's programs.
const MORE_DIRECTORIES: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The program that was named, or else the one called `name` in the directories where programs are. `Err` says, for people, what
/// is wrong.
pub fn find(named: Option<&Path>, name: &str) -> Result<PathBuf, String> {
    match named {
        Some(path) if is_program(path) => Ok(path.to_owned()),
        Some(path) => Err(format!("{} is no program", path.display())),
        None => installed(name).ok_or_else(|| format!("{name} is not installed")),
    }
}

pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(MORE_DIRECTORIES.map(PathBuf::from));
    directories.map(|directory| directory.join(name)).find(|path| is_program(path))
}

pub(crate) fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|facts| facts.is_file() && facts.mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_was_named_is_not_looked_for_elsewhere() {
        assert!(find(None, "sh").is_ok());
        assert_eq!(find(None, "no such program").unwrap_err(), "no such program is not installed");
        assert_eq!(find(Some(Path::new("/etc/passwd")), "sh").unwrap_err(), "/etc/passwd is no program");
    }
}
