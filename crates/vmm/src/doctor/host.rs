//! Facts about this host. None of them changes anything that stays.

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where the distributions keep the keys that sign Debian's packages.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// Settings that forbid user namespaces, each with the value that does.
const NAMESPACE_OBSTACLES: [(&str, &str, &str); 3] = [
    ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces = 0"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone = 0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns = 1"),
];

/// The rights to the KVM device.
pub(super) fn kvm_node() -> Result<String, String> {
    let facts = fs::metadata("/dev/kvm").map_err(|error| format!("/dev/kvm: {error}"))?;
    Ok(format!("mode {:04o}, user {}, group {}", facts.mode() & 0o7777, facts.uid(), facts.gid()))
}

/// Who may use one of these uids or gids in containers of his: the first line that says so, and its file.
pub(super) fn subordinate(ids: &RangeInclusive<u32>) -> Option<String> {
    let line = |path: &&str| {
        let line = first_overlap(&fs::read_to_string(path).ok()?, ids)?.to_owned();
        Some(format!("{line} in {path}"))
    };
    ["/etc/subuid", "/etc/subgid"].iter().find_map(line)
}

/// The first line of a file like `/etc/subuid` (subuid(5)) whose ids are partly these.
fn first_overlap<'a>(file: &'a str, ids: &RangeInclusive<u32>) -> Option<&'a str> {
    let overlaps = |line: &&str| {
        let mut numbers = line.split(':').skip(1).map(|number| number.trim().parse::<u64>());
        let (Some(Ok(first)), Some(Ok(count))) = (numbers.next(), numbers.next()) else { return false };
        let last = first.saturating_add(count.saturating_sub(1));
        count > 0 && first <= u64::from(*ids.end()) && last >= u64::from(*ids.start())
    };
    file.lines().filter(|line| !line.starts_with('#')).find(overlaps)
}

pub(super) fn has_keyring() -> bool {
    KEYRINGS.iter().any(|path| Path::new(path).exists())
}

pub(super) fn namespace_obstacle() -> Option<&'static str> {
    let holds = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    NAMESPACE_OBSTACLES.iter().find(|(path, value, _)| holds(path, value)).map(|(_, _, words)| *words)
}

/// The path itself or the nearest directory above it that exists.
pub(super) fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

pub(super) fn free_bytes(directory: &Path) -> Result<u64, String> {
    let facts = rustix::fs::statvfs(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
}

/// Tries it with two unnamed files.
pub(super) fn can_reflink(directory: &Path) -> bool {
    use rustix::fs::{Mode, OFlags, ioctl_ficlone, open};
    let unnamed = || open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    let (Ok(from), Ok(to)) = (unnamed(), unnamed()) else { return false };
    rustix::io::write(&from, &[0; 4096]).is_ok() && ioctl_ficlone(&to, &from).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_containers_are_known() {
        let file = "# alice:200000:1\nalice:100000:65536\nbob:165536:65536\ncarol:300000:x\nroot:265536:65536\n";
        let overlap = |ids| first_overlap(file, &ids);
        assert_eq!(overlap(199_999..=265_535), Some("bob:165536:65536"));
        assert_eq!(overlap(165_535..=165_535), Some("alice:100000:65536"));
        assert_eq!(overlap(231_072..=265_535), None);
        assert_eq!(overlap(331_071..=400_000), Some("root:265536:65536"));
        assert_eq!(overlap(331_072..=400_000), None);
    }

    #[test]
    fn facts_can_be_had_anywhere() {
        assert_eq!(nearest(Path::new("/proc/nonexistent/x")), Path::new("/proc"));
        assert!(free_bytes(Path::new("/")).is_ok());
        assert!(free_bytes(Path::new("/nonexistent")).is_err());
        assert!(!can_reflink(Path::new("/proc")));
    }
}
