//! Whether this host has what virtual machines need, and how to get what it lacks.
//!
//! Facts are gathered in `host`; judging them here is pure. Printing them is the command line's business.

mod host;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Version;
use crate::choice::{Candidates, Choice, MonitorWish};
use crate::firecracker;
use crate::hypervisor::Description;
use crate::privileges::{self, Need, Task};
use crate::programs::{installed, is_program};
use crate::qemu::{OLDEST, version_of};

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but slower, less safely or not for everything.
    Warn,
    /// No VM can run.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What was looked at, in a word or two.
    pub name: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it, if anything.
    pub how_to_fix: Option<String>,
}

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The findings, the most important first.
    pub checks: Vec<Check>,
    /// The driver and accelerator that will be used and why; absent if none can.
    pub hypervisor: Option<Description>,
}

impl Report {
    /// Whether VMs can run here.
    pub fn is_usable(&self) -> bool {
        self.hypervisor.is_some() && self.checks.iter().all(|check| check.verdict != Verdict::Fail)
    }
}

/// What to look at.
#[derive(Debug, Clone)]
pub struct Subject {
    /// How the driver would be chosen.
    pub candidates: Candidates,
    /// Where the manager's data is or will be.
    pub storage: PathBuf,
    /// The guest agent's program.
    pub agent: PathBuf,
    /// uids and gids that VMs' processes would run as.
    pub users: RangeInclusive<u32>,
}

/// Looks at this host. Runs QEMU, and KVM if that has not been tried since the host booted; takes two seconds at most.
pub async fn examine(subject: Subject) -> Report {
    let root = rustix::process::geteuid().is_root();
    let wish = subject.candidates.wish;
    let qemu_program = subject.candidates.qemu.program.clone().unwrap_or_else(|| crate::qemu::PROGRAM.into());
    let version = version_of(&qemu_program).await.map_err(|error| error.to_string());
    let choice = subject.candidates.choose().await;
    let hypervisor = choice.hypervisor.as_ref().ok().map(|driver| driver.description().clone());
    let mut checks = Vec::new();
    if wish != MonitorWish::Qemu {
        checks.push(firecracker_of(&choice, wish));
    }
    if hypervisor.as_ref().is_none_or(|driver| driver.name == "qemu") {
        checks.push(qemu(version));
    }
    if hypervisor.as_ref().is_some_and(|driver| driver.name == firecracker::PROGRAM) {
        checks.push(groups(firecracker::no_groups()));
    }
    checks.push(kvm_node(&host::kvm_node()));
    checks.extend(hypervisor.as_ref().map(|driver| accelerator(driver, choice.not_proved.as_deref())));
    checks.push(agent(&subject.agent, is_program(&subject.agent)));
    checks.push(program("mke2fs", installed("mke2fs"), Verdict::Fail, "e2fsprogs", "make disks"));
    let own_users = privileges::missing(Task::Users);
    if own_users.is_none() {
        checks.push(ids(&subject.users, host::subordinate(&subject.users)));
    }
    checks.push(user(own_users));
    checks.push(capabilities(&privileges::held(), &privileges::lacking()));
    let storage = host::nearest(&subject.storage);
    checks.push(space(&storage, host::free_bytes(&storage)));
    checks.push(reflink(&storage, host::can_reflink(&storage)));
    let builder = program("mmdebstrap", installed("mmdebstrap"), Verdict::Warn, "mmdebstrap", "build images");
    checks.push(keyring_of(builder, host::has_keyring()));
    checks.push(program("npm", installed("npm"), Verdict::Warn, "npm", "build images"));
    checks.push(namespaces(root, host::namespace_obstacle()));
    Report { checks, hypervisor }
}

fn check(name: &'static str, verdict: Verdict, found: impl Into<String>, fix: Option<&str>) -> Check {
    Check { name, verdict, found: found.into(), how_to_fix: fix.map(str::to_owned) }
}

fn install(package: &str) -> String {
    format!("apt-get install {package}")
}

/// Firecracker is better where it works, and needed where it was asked for.
fn firecracker_of(choice: &Choice, wish: MonitorWish) -> Check {
    const FIX: &str = "install Firecracker and its jailer (rds setup), or name both by FIRECRACKER_BIN and JAILER_BIN; run as \
                       root where KVM works";
    match (&choice.hypervisor, &choice.not_firecracker) {
        (_, Some(why)) => check("firecracker", Verdict::Warn, format!("not used: {why}"), Some(FIX)),
        (Ok(driver), None) => check("firecracker", Verdict::Ok, driver.description().version.clone(), None),
        (Err(why), None) => {
            let verdict = if wish == MonitorWish::Firecracker { Verdict::Fail } else { Verdict::Warn };
            check("firecracker", verdict, why.to_string(), Some(FIX))
        }
    }
}

/// Without control groups the kernel limits what a monitor writes and how many threads it has, not its memory.
fn groups(obstacle: Option<String>) -> Check {
    let Some(why) = obstacle else {
        return check(
            "control groups",
            Verdict::Ok,
            "every VM's process has limits of memory, threads and processors",
            None,
        );
    };
    let found = format!("VMs' processes run without limits of memory and processors: {why}");
    let fix = "use control groups of version 2 (systemd.unified_cgroup_hierarchy=1); limit a container's VMs together, by its \
               mem_limit, cpus and pids_limit";
    check("control groups", Verdict::Warn, found, Some(fix))
}

fn qemu(version: Result<Version, String>) -> Check {
    let fix = install("qemu-system-x86");
    match version {
        Err(why) => check("qemu", Verdict::Fail, why, Some(&fix)),
        Ok(version) if version < OLDEST => {
            let found = format!("{version}, older than {}", OLDEST);
            check("qemu", Verdict::Fail, found, Some(&format!("{fix} from a newer release of the distribution")))
        }
        Ok(version) => check("qemu", Verdict::Ok, version.to_string(), None),
    }
}

fn kvm_node(found: &Result<String, String>) -> Check {
    let fix = "turn virtualisation on in the firmware, or nested virtualisation at the provider, and load kvm_intel or \
               kvm_amd";
    match found {
        Ok(rights) => check("/dev/kvm", Verdict::Ok, rights.clone(), None),
        Err(why) => check("/dev/kvm", Verdict::Warn, why.clone(), Some(fix)),
    }
}

fn accelerator(description: &Description, not_proved: Option<&str>) -> Check {
    let mut found = format!("{}: {}", description.accelerator, description.reason);
    if let Some(why) = not_proved {
        found.push_str(&format!("; that it runs guests is not proved: {why}"));
    }
    let (verdict, fix) = match description.accelerator {
        "kvm" if not_proved.is_some() => (
            Verdict::Warn,
            Some(
                "install qemu-system-x86 and leave RDS_HYPERVISOR and RDS_ACCELERATOR at auto: KVM is then tried once for each boot",
            ),
        ),
        "kvm" => (Verdict::Ok, None),
        _ => (
            Verdict::Warn,
            Some("guests run ten to twenty times slower than they could; a host with working KVM helps"),
        ),
    };
    check("accelerator", verdict, found, fix)
}

fn agent(path: &Path, executable: bool) -> Check {
    let found = path.display().to_string();
    match executable {
        true => check("guest agent", Verdict::Ok, found, None),
        false => check("guest agent", Verdict::Fail, format!("{found} is not there"), Some("make agent")),
    }
}

fn program(name: &'static str, path: Option<PathBuf>, missing: Verdict, package: &str, what_for: &str) -> Check {
    match path {
        Some(path) => check(name, Verdict::Ok, path.display().to_string(), None),
        None => check(name, missing, format!("not found; needed to {what_for}"), Some(&install(package))),
    }
}

fn keyring_of(builder: Check, keyring: bool) -> Check {
    if keyring || builder.verdict != Verdict::Ok {
        return builder;
    }
    let found = format!("{}, but the distribution's keys are missing", builder.found);
    check(builder.name, Verdict::Warn, found, Some(&install("debian-archive-keyring")))
}

fn user(missing: Option<String>) -> Check {
    let Some(missing) = missing else {
        return check("user", Verdict::Ok, "every VM's process gets a user of its own", None);
    };
    check(
        "user",
        Verdict::Warn,
        format!("not root, nor has {missing}: every VM's process runs as this user"),
        Some("run as root, or accept that only QEMU's sandbox keeps the VMs' processes apart"),
    )
}

/// A process in somebody's container with the uid of a VM's process may do to that what its user may.
fn ids(users: &RangeInclusive<u32>, taken: Option<String>) -> Check {
    let range = format!("VMs' processes run as {} to {}", users.start(), users.end());
    match taken {
        None => check("user ids", Verdict::Ok, range, None),
        Some(taken) => check(
            "user ids",
            Verdict::Warn,
            format!("{range}, of which some are given to containers: {taken}"),
            Some("set VM_FIRST_UID, while no VM runs, so that no line of /etc/subuid and /etc/subgid has one of them"),
        ),
    }
}

/// What the server will keep of what it is given, and what it would need besides.
fn capabilities(held: &[&str], lacking: &[Need]) -> Check {
    let held = if held.is_empty() { "none".into() } else { held.join(", ") };
    if lacking.is_empty() {
        return check("capabilities", Verdict::Ok, format!("{held}; `rds serve` gives up all others"), None);
    }
    let lacking = lacking.iter().map(|need| format!("CAP_{} {}", need.name, need.why)).collect::<Vec<_>>().join("; ");
    check("capabilities", Verdict::Warn, held, Some(&format!("also give it {lacking}")))
}

const GIB: u64 = 1 << 30;

/// An image takes under 1 GiB and as much again while it is built; each VM's disk grows as it is written.
fn space(storage: &Path, free: Result<u64, String>) -> Check {
    let fix = "free some space, or set STORAGE_ROOT to a larger file system";
    let free = match free {
        Ok(free) => free,
        Err(why) => return check("disk space", Verdict::Fail, why, Some(fix)),
    };
    let verdict = match free {
        free if free < 2 * GIB => Verdict::Fail,
        free if free < 10 * GIB => Verdict::Warn,
        _ => Verdict::Ok,
    };
    let found = format!("{} GiB free at {}", free / GIB, storage.display());
    check("disk space", verdict, found, (verdict != Verdict::Ok).then_some(fix))
}

fn reflink(storage: &Path, supported: bool) -> Check {
    let words = if supported { "copies of disks share blocks" } else { "no shared blocks; disks are copied sparsely" };
    check("reflink", Verdict::Ok, format!("{}: {words}", storage.display()), None)
}

/// Without root, mmdebstrap needs user namespaces.
fn namespaces(root: bool, obstacle: Option<&str>) -> Check {
    match obstacle {
        _ if root => check("user namespaces", Verdict::Ok, "not needed by root", None),
        None => check("user namespaces", Verdict::Ok, "allowed", None),
        Some(setting) => check(
            "user namespaces",
            Verdict::Warn,
            format!("forbidden by {setting}; needed to build images without root"),
            Some("build images as root, or change that setting with sysctl"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_says_how_to_get_it() {
        let missing = [
            qemu(Err("cannot start qemu-system-x86_64: no such file".into())),
            qemu(Ok(Version { major: 6, minor: 2, patch: 0 })),
            groups(Some("the host has no control groups of version 2".into())),
            kvm_node(&Err("/dev/kvm: no such file".into())),
            accelerator(&on_kvm(), Some("Firecracker was asked for, and no guest tried")),
            agent(Path::new("/usr/bin/rds-agent"), false),
            program("npm", None, Verdict::Warn, "npm", "build images"),
            keyring_of(check("mmdebstrap", Verdict::Ok, "/usr/bin/mmdebstrap", None), false),
            user(Some("CAP_SETUID".into())),
            ids(&(199_999..=265_535), Some("bob:165536:65536 in /etc/subuid".into())),
            capabilities(&[], &privileges::NEEDS),
            space(Path::new("/var"), Ok(GIB)),
            space(Path::new("/var"), Err("/var: gone".into())),
            namespaces(false, Some("user.max_user_namespaces = 0")),
        ];
        assert!(missing.iter().all(|check| check.verdict != Verdict::Ok && check.how_to_fix.is_some()));
        insta::assert_json_snapshot!(missing);
    }

    #[test]
    fn what_is_there_needs_no_fix() {
        let there = [
            qemu(Ok(OLDEST)),
            accelerator(&on_kvm(), None),
            agent(Path::new("/a"), true),
            program("npm", Some("/bin/npm".into()), Verdict::Warn, "npm", "build images"),
            groups(None),
            user(None),
            ids(&(199_999..=265_535), None),
            capabilities(&["KILL"], &[]),
            space(Path::new("/var"), Ok(20 * GIB)),
            namespaces(true, Some("x")),
        ];
        assert!(there.iter().all(|check| check.verdict == Verdict::Ok && check.how_to_fix.is_none()));
    }

    fn on_kvm() -> Description {
        Description {
            name: "firecracker",
            version: "1.16.1".into(),
            accelerator: "kvm",
            reason: "it was asked for".into(),
        }
    }

    fn candidates() -> Candidates {
        let firecracker = Err("firecracker is not installed".into());
        Candidates { wish: MonitorWish::Auto, qemu: crate::qemu::Settings::default(), firecracker }
    }

    #[tokio::test]
    async fn this_host_is_examined() {
        let subject = Subject {
            candidates: candidates(),
            storage: "/nonexistent/x".into(),
            agent: "/nonexistent".into(),
            users: 199_999..=265_535,
        };
        let report = examine(subject).await;
        assert!(!report.is_usable(), "there is no agent");
        assert!(report.checks.iter().any(|check| check.name == "guest agent" && check.verdict == Verdict::Fail));
    }
}
