//! What a machine has on the host that its process does not take along: its jail's place, its control group, its base.
//!
//! Links in the machine's directory, which no monitor sees, lead to what is elsewhere. So whoever ends the machine removes it,
//! whichever driver and settings that server has.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{cgroup, files, jail, snapshot};

/// Notes where the machine in `dir`, which is about to be started, has its jail and its group.
pub(super) fn note(dir: &Path, jail: &Path, group: Option<&Path>) -> io::Result<()> {
    symlink(std::path::absolute(jail)?, files::jail(dir))?;
    group.map_or(Ok(()), |group| symlink(group, files::group(dir)))
}

/// Removes all that is left of the machine in `dir`, of which no process should be any more, and what its processes were found
/// in, as their `/proc/PID/cgroup` had it. Tries everything, and gives the first error.
pub(crate) async fn remove(dir: &Path, found_in: &[String]) -> io::Result<()> {
    let (group, jail) = (files::group(dir), files::jail(dir));
    let mut removed = match noted(&group, dir) {
        Ok(Some(noted)) => cgroup::remove(&noted).await.and_then(|()| fs::remove_file(&group)),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    // A server that noted nothing may have started it.
    for found in found_in.iter().filter_map(|found| cgroup::of_machine(found, dir)) {
        removed = removed.and(cgroup::remove(&found).await);
    }
    let of_jail = match noted(&jail, dir) {
        Ok(Some(noted)) => jail::remove(&noted).and_then(|()| fs::remove_file(&jail)),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    removed.and(of_jail).and(snapshot::forget_base(dir).map(drop))
}

/// Where a link leads, if that is something of the machine in `dir`: it has the machine's name.
fn noted(link: &Path, dir: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_link(link) {
        Ok(target) if target.file_name() == dir.file_name() => Ok(Some(target)),
        Ok(_) => Err(io::Error::new(ErrorKind::InvalidData, format!("{} leads elsewhere", link.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_left_wherever_it_was() {
        let (host, vms) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let name = "6c0b0d0e-4d8c-4e4a-9f0b-0a1b2c3d4e5f";
        let [dir, other] = [name, "other"].map(|name| vms.path().join(name));
        let [jail, group] = ["jails", "groups"].map(|place| host.path().join(place).join(name));
        for made in [&dir, &other, &jail.join("root"), &group] {
            fs::create_dir_all(made).unwrap();
        }
        note(&dir, &jail, Some(&group)).unwrap();
        fs::write(files::base(&dir), "").unwrap();
        // The kernel has this file in every group, and takes it along.
        let kill = group.join("cgroup.kill");
        fs::write(&kill, "").unwrap();
        assert!(remove(&dir, &[]).await.is_err(), "the group is not empty");
        assert_eq!(fs::read(&kill).unwrap(), b"1");
        assert!(!jail.exists() && !files::jail(&dir).is_symlink() && !files::base(&dir).exists(), "all else is gone");
        fs::remove_dir_all(&group).unwrap();
        remove(&dir, &[]).await.unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        remove(&dir, &["0::/nowhere\n".into()]).await.unwrap();

        symlink(host.path(), files::jail(&other)).unwrap();
        assert!(remove(&other, &[]).await.is_err());
        assert!(host.path().exists(), "what is not the machine's stays");
    }
}
