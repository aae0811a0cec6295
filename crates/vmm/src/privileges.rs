//! The capabilities that a server needs on its host, and why; giving up all others.
//!
//! It needs them beside or without being root. A monitor has none.

use std::io;

use rustix::thread::{
    CapabilitySet as Set, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// A part of what the server does and the capability that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The capability's name, without `CAP_`.
    pub name: &'static str,
    /// What it is used for.
    pub why: &'static str,
    set: Set,
    task: Task,
}

/// What is impossible without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Running every VM's process as a user of its own.
    Users,
    /// Jails, for Firecracker.
    Jails,
    /// VMs' network.
    Network,
}

const fn need(task: Task, set: Set, name: &'static str, why: &'static str) -> Need {
    Need { name, why, set, task }
}

/// Everything that the server needs.
pub const NEEDS: [Need; 10] = [
    need(Task::Users, Set::SETUID, "SETUID", "to start every VM's process as a user of its own"),
    need(Task::Users, Set::SETGID, "SETGID", "and as that user's group"),
    need(Task::Users, Set::CHOWN, "CHOWN", "to give that user the VM's disk"),
    need(Task::Users, Set::DAC_OVERRIDE, "DAC_OVERRIDE", "to copy disks and snapshots that such users own"),
    need(Task::Users, Set::KILL, "KILL", "to end such users' processes"),
    need(
        Task::Users,
        Set::SYS_PTRACE,
        "SYS_PTRACE",
        "to know VMs' processes again, open their sockets, and save their memory",
    ),
    need(Task::Jails, Set::SYS_ADMIN, "SYS_ADMIN", "to make jails: mounts, mount and process namespaces"),
    need(Task::Jails, Set::MKNOD, "MKNOD", "to make /dev/kvm and /dev/net/tun in them"),
    need(Task::Network, Set::NET_ADMIN, "NET_ADMIN", "to make VMs' taps and the firewall's rules"),
    need(Task::Network, Set::NET_BIND_SERVICE, "NET_BIND_SERVICE", "to answer VMs' lookups of names at port 53"),
];

/// What this process lacks for a task: the capabilities' names, for people.
pub fn missing(task: Task) -> Option<String> {
    let missing = lacking().into_iter().filter(|need| need.task == task);
    let names = missing.map(|need| format!("CAP_{}", need.name)).collect::<Vec<_>>();
    (!names.is_empty()).then(|| names.join(", "))
}

/// Whether every VM's process can run as a user of its own.
pub fn has_users() -> bool {
    missing(Task::Users).is_none()
}

/// Names of what this process has of [`NEEDS`].
pub fn held() -> Vec<&'static str> {
    NEEDS.iter().filter(|need| effective().contains(need.set)).map(|need| need.name).collect()
}

/// What of [`NEEDS`] it lacks.
pub fn lacking() -> Vec<Need> {
    NEEDS.into_iter().filter(|need| !effective().contains(need.set)).collect()
}

/// [`NEEDS`] as the kernel writes sets.
pub fn mask() -> u64 {
    needed().bits()
}

/// Gives up every capability that is not in [`NEEDS`], for this process and all that it will start. To be called while the
/// process has one thread: capabilities are a thread's.
pub fn drop_others() -> io::Result<()> {
    let sets = capabilities(None)?;
    // Only who has CAP_SETPCAP may shrink what a program of root's gets; others get no more than they have.
    if sets.effective.contains(Set::SETPCAP) {
        for capability in (Set::all() - needed()).iter() {
            if capability_is_in_bounding_set(capability).unwrap_or(false) {
                remove_capability_from_bounding_set(capability)?;
            }
        }
    }
    let kept = |set: Set| set & needed();
    let (effective, permitted) = (kept(sets.effective), kept(sets.permitted));
    Ok(set_capabilities(None, CapabilitySets { effective, permitted, inheritable: kept(sets.inheritable) })?)
}

/// Gives up every capability. Makes system calls alone, so it may be called between fork and exec.
pub(crate) fn drop_all() -> io::Result<()> {
    clear_ambient_capability_set()?;
    let none = Set::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
}

/// Leaves programs that this process becomes no capability but those of their user. Makes system calls alone, so it may be
/// called between fork and exec.
pub(crate) fn bequeath_none() -> io::Result<()> {
    let sets = capabilities(None)?;
    // None can be ambient then.
    Ok(set_capabilities(None, CapabilitySets { inheritable: Set::empty(), ..sets })?)
}

fn effective() -> Set {
    capabilities(None).map_or(Set::empty(), |sets| sets.effective)
}

fn needed() -> Set {
    NEEDS.iter().fold(Set::empty(), |all, need| all | need.set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_need_has_its_own_name_and_number() {
        assert_eq!(needed().bits().count_ones() as usize, NEEDS.len());
        assert!(NEEDS.iter().all(|need| Set::from_name(need.name) == Some(need.set)));
    }

    #[test]
    fn a_thread_keeps_what_it_needs() {
        // Capabilities are a thread's; this one ends with the test.
        std::thread::spawn(|| {
            let before = capabilities(None).unwrap();
            drop_others().unwrap();
            let after = capabilities(None).unwrap();
            assert_eq!(after.permitted, before.permitted & needed());
            drop_all().unwrap();
            assert!(capabilities(None).unwrap().permitted.is_empty());
            assert_eq!(missing(Task::Network).as_deref(), Some("CAP_NET_ADMIN, CAP_NET_BIND_SERVICE"));
            assert!(!has_users());
        })
        .join()
        .unwrap();
    }
}
