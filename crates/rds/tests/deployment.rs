//! What is shipped beside the program says what the program says.

#![expect(clippy::unwrap_used, reason = "a failure here fails the test, as it should")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use rds_vmm::privileges::NEEDS;

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)).unwrap()
}

fn needed() -> BTreeSet<String> {
    NEEDS.iter().map(|need| format!("CAP_{}", need.name)).collect()
}

#[test]
fn the_page_lists_every_capability() {
    let table: Vec<_> = NEEDS.iter().map(|need| format!("| `CAP_{}` | {} |\n", need.name, need.why)).collect();
    assert!(
        read("docs/deployment.md").contains(&table.concat()),
        "docs/deployment.md should have:\n{}",
        table.concat()
    );
}

/// The words of a setting of the unit.
fn unit(setting: &str) -> BTreeSet<String> {
    let unit = read("packaging/systemd/rds.service");
    let values = unit.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
    values.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn the_unit_gives_what_is_needed() {
    for setting in ["AmbientCapabilities", "CapabilityBoundingSet"] {
        assert_eq!(unit(setting), needed(), "{setting}");
    }
}

/// System calls that are easily forbidden, and what needs them.
const CALLS: [(&str, &[&str]); 5] = [
    (
        "the server",
        &[
            "openat2",
            "fsopen",
            "fsconfig",
            "fsmount",
            "move_mount",
            "open_tree",
            "mount_setattr",
            "memfd_create",
            "copy_file_range",
            "fallocate",
            "ioctl",
            "pidfd_open",
            "pidfd_send_signal",
            "inotify_init1",
            "name_to_handle_at",
        ],
    ),
    (
        "becoming a VM's user",
        &[
            "setuid",
            "setgid",
            "setgroups",
            "setresuid",
            "setresgid",
            "capset",
            "chown",
            "fchown",
            "fchownat",
            "prlimit64",
            "setrlimit",
            "setsid",
            "prctl",
        ],
    ),
    (
        "the jailer",
        &[
            "clone",
            "clone3",
            "unshare",
            "setns",
            "pivot_root",
            "mount",
            "umount2",
            "chroot",
            "mknod",
            "mknodat",
            "close_range",
        ],
    ),
    ("Firecracker", &["seccomp", "mincore", "userfaultfd", "madvise", "msync", "timerfd_create", "eventfd2"]),
    ("QEMU", &["seccomp", "mlock", "mbind", "membarrier", "ppoll", "sched_setaffinity"]),
];

#[test]
fn no_setting_of_the_unit_hides_a_call() {
    // systemd cannot look into the arguments of openat2, so it answers that there is no such call.
    assert_eq!(unit("RestrictSUIDSGID"), BTreeSet::new());
    // The groups that systemd 252 has. One that it does not know it ignores, with what is in it.
    let filter = unit("SystemCallFilter");
    let groups: Vec<_> = filter.iter().filter(|name| name.starts_with('@')).collect();
    assert_eq!(groups, ["@mount", "@system-service"]);
    assert!(filter.iter().all(|name| !name.starts_with('~')), "what is listed is allowed");
}

#[test]
#[ignore = "needs systemd-analyze"]
fn the_unit_allows_the_calls_that_are_needed() {
    let output = Command::new("systemd-analyze").args(["--no-pager", "syscall-filter"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut groups = BTreeMap::<&str, Vec<&str>>::new();
    let mut group = "";
    for line in text.lines() {
        match line.strip_prefix("    ") {
            Some(member) if !member.starts_with('#') => groups.entry(group).or_default().push(member),
            Some(_) => {}
            None => group = line,
        }
    }
    let mut open: Vec<String> = unit("SystemCallFilter").into_iter().collect();
    let mut allowed = BTreeSet::new();
    while let Some(name) = open.pop() {
        match groups.get(name.as_str()) {
            Some(members) => open.extend(members.iter().map(|&member| member.to_owned())),
            None => drop(allowed.insert(name)),
        }
    }
    for (who, calls) in CALLS {
        let missing: Vec<_> = calls.iter().filter(|&&call| !allowed.contains(call)).collect();
        assert!(missing.is_empty(), "{who} needs {missing:?}");
    }
}

#[test]
fn the_container_gives_what_is_needed() {
    let compose = read("docker-compose.yml");
    let (_, added) = compose.split_once("    cap_add:\n").unwrap();
    let names = added.lines().map_while(|line| line.strip_prefix("      - "));
    assert_eq!(names.map(|name| format!("CAP_{name}")).collect::<BTreeSet<_>>(), needed());
    // Docker's profiles forbid a part of what these are for, even where they are given.
    let (_, options) = added.split_once("    security_opt:\n").unwrap();
    let options =
        options.lines().take_while(|line| line.starts_with("      ")).filter_map(|line| line.split_once("- "));
    let wanted = ["no-new-privileges:true", "apparmor:unconfined", "seccomp=unconfined", "systempaths=unconfined"];
    assert_eq!(options.map(|(_, option)| option).collect::<Vec<_>>(), wanted);
}
