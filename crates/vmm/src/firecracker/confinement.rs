//! Whether a monitor is as confined as it should be: a build without seccomp filters is not, nor is an impostor.

use crate::HypervisorError;
use crate::process::{Process, text};

/// Fails for a process that has not put on Firecracker's seccomp filters, runs as somebody else, or can do more than any
/// user can.
pub(super) fn check(process: &Process, user: Option<u32>) -> Result<(), HypervisorError> {
    let status = |whose: &str| text(format!("/proc/{whose}/status")).unwrap_or_default();
    let wrong = fault(&status(&process.pid().to_string()), filters(&status("self")), user);
    wrong.map_or(Ok(()), |why| Err(HypervisorError::refused("starting a machine", &format!("its monitor {why}"))))
}

/// What is wrong with a process by its `/proc/<pid>/status`. It inherits `inherited` filters and was given one more.
fn fault(status: &str, inherited: u64, user: Option<u32>) -> Option<String> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if filters(status) < inherited + 2 {
        return Some("runs without seccomp filters".into());
    }
    if let Some(user) = user {
        let same = |name| field(name).is_some_and(|ids| ids.split_whitespace().all(|id| id == user.to_string()));
        if !same("Uid:") || !same("Gid:") || field("Groups:") != Some("") {
            return Some("runs as another user".into());
        }
    }
    let unable = |name| field(name).is_some_and(|set| set.bytes().all(|digit| digit == b'0'));
    if !["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"].into_iter().all(unable) {
        return Some("has capabilities".into());
    }
    (field("NoNewPrivs:") != Some("1")).then(|| "can gain privileges".into())
}

/// How many seccomp filters a process has.
fn filters(status: &str) -> u64 {
    let count = status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_confined_process_passes() {
        let none = "0000000000000000";
        let right = format!(
            "Uid:\t7\t7\t7\t7\nGid:\t7\t7\t7\t7\nGroups:\t \nCapInh:\t{none}\nCapPrm:\t{none}\nCapEff:\t{none}\n\
             CapBnd:\t00000000000000ff\nCapAmb:\t{none}\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n"
        );
        assert_eq!(fault(&right, 0, Some(7)), None);
        for (from, to, why) in [
            ("filters:\t2", "filters:\t1", "runs without seccomp filters"),
            ("Uid:\t7\t7", "Uid:\t7\t0", "runs as another user"),
            ("Gid:\t7", "Gid:\t0", "runs as another user"),
            ("Groups:\t", "Groups:\t0", "runs as another user"),
            ("CapAmb:\t0", "CapAmb:\t2", "has capabilities"),
            ("CapPrm:\t0", "CapPrm:\t2", "has capabilities"),
            ("Privs:\t1", "Privs:\t0", "can gain privileges"),
        ] {
            assert_eq!(fault(&right.replace(from, to), 0, Some(7)).as_deref(), Some(why), "{to}");
        }
        assert!(fault(&right, 1, Some(7)).is_some(), "one of them is the manager's own");
        assert!(fault("", 0, None).is_some());
    }
}
