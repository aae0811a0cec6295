//! The arguments of the jailer and, behind `--`, of Firecracker. Pure.

use std::path::Path;

use rds_protocol::REHEARSE;

use super::jail::inside;
use crate::hypervisor::VmId;

/// Descriptors that a monitor may have open. Each stream of its guest channel is one.
const DESCRIPTORS: u32 = 2048;

/// Everything that decides the arguments.
#[derive(Debug)]
pub(super) struct Arguments<'a> {
    pub(super) id: VmId,
    pub(super) program: &'a Path,
    /// User and group.
    pub(super) user: u32,
    /// Where jails are made.
    pub(super) jails: &'a Path,
    /// Bytes of the largest file that it may write.
    pub(super) largest_file: u64,
    pub(super) log_level: &'a str,
    /// The jailer's options for the machine's control group.
    pub(super) cgroup: Vec<String>,
}

impl Arguments<'_> {
    /// The arguments behind the jailer's name. There is none that turns seccomp filters off.
    pub(super) fn render(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
        let user = self.user.to_string();
        add(&["--id", &self.id.to_string(), "--uid", &user, "--gid", &user]);
        add(&["--exec-file", &self.program.display().to_string()]);
        add(&["--chroot-base-dir", &self.jails.display().to_string(), "--new-pid-ns"]);
        add(&["--resource-limit", &format!("fsize={}", self.largest_file)]);
        add(&["--resource-limit", &format!("no-file={DESCRIPTORS}")]);
        self.cgroup.iter().for_each(|word| add(&[word]));
        add(&[
            "--",
            "--api-sock",
            inside::API,
            "--log-path",
            inside::LOG,
            "--level",
            self.log_level,
            "--metrics-path",
            inside::METRICS,
        ]);
        arguments
    }
}

/// The kernel's command line. `panic=-1 reboot=k` ends the process of a guest that panicked: its keyboard controller,
/// which Firecracker has for that alone, is told to reset it. The other options keep the kernel from looking for what the
/// machine does not have.
pub(super) fn command_line(agent_port: u16, rehearse: bool) -> String {
    let mut line = format!(
        "console=ttyS0 quiet panic=-1 reboot=k cryptomgr.notests pci=off i8042.noaux i8042.nomux i8042.dumbkbd \
         8250.nr_uarts=1 rds.vsock_port={agent_port}"
    );
    if rehearse {
        line.push(' ');
        line.push_str(REHEARSE);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jailer_gets_what_its_machine_needs() {
        let arguments = Arguments {
            id: "6c0b0d0e-4d8c-4e4a-9f0b-0a1b2c3d4e5f".parse().unwrap(),
            program: Path::new("/usr/bin/firecracker"),
            user: 200_000,
            jails: Path::new("/srv/jailer"),
            largest_file: 536_870_912,
            log_level: "Warning",
            cgroup: vec!["--cgroup-version".into(), "2".into()],
        };
        insta::assert_snapshot!(arguments.render().join(" ").replace(" -", "\n-"));
        assert!(command_line(8080, false).ends_with(" rds.vsock_port=8080"));
        assert!(command_line(8080, true).ends_with(" rds.vsock_port=8080 rds.rehearse"));
    }
}
