//! Doing once, for nobody, what makes a guest a VM and starts a program in it, so that it is fast the next time: an
//! emulator has translated the code then, and what is read from the image is in memory.
//!
//! It happens in a copy of the agent with mounts of its own, and all of it is gone with that copy, but for what it wrote
//! to the disk.

use std::ffi::CString;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Signal, WaitOptions, pidfd_send_signal, waitpid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::launch::{Executable, Launch, Streams};
use super::tree::Prepared;
use super::{Keepers, Waiting, fork};
use crate::error::{SystemError, While};
use crate::exec::command::environment;

/// How long the kernel may take to let go of the disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks whether it has.
const POLL: Duration = Duration::from_millis(1);

/// Whether the guest is to rehearse before it listens.
pub(crate) fn is_asked_for() -> Result<bool, SystemError> {
    let line = std::fs::read_to_string("/proc/cmdline").while_("read the kernel's command line")?;
    Ok(line.split_whitespace().any(|word| word == rds_protocol::REHEARSE))
}

/// Rehearses. The disk is nobody's again when this returns, and its content is not as it was.
pub(crate) async fn rehearse(prepared: &Prepared, keepers: &Keepers) -> Result<(), SystemError> {
    let copy = fork(None, &prepared.descriptors(), || match perform(prepared) {
        Ok(()) => 0,
        Err(error) => {
            crate::log::failure(format_args!("rehearsal: {error}"));
            1
        }
    });
    let ended = keepers.reaper.watch(copy.while_("start a rehearsal")?).await;
    if ended.map_or(-1, |ended| ended.code) != 0 {
        return Err(std::io::Error::other("it failed")).while_("rehearse");
    }
    let released = async {
        // Refused while the disk is mounted anywhere. The last close drops what is in memory of it.
        let busy = || {
            let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
            matches!(rustix::fs::open("/dev/vdb", flags, Mode::empty()), Err(Errno::BUSY))
        };
        while busy() {
            tokio::time::sleep(POLL).await;
        }
    };
    let released = tokio::time::timeout(PATIENCE, released).await;
    released.map_err(std::io::Error::other).while_("see the disk released")
}

fn perform(prepared: &Prepared) -> Result<(), SystemError> {
    // SAFETY: only a namespace is unshared, no open files.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.while_("make a mount namespace")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).while_("keep mounts apart")?;
    let waiting = Waiting::start()?;
    let (tree, _) = prepared.build("rehearsal")?;
    let has_bash = tree.has_bash;
    let shell = if has_bash { "bash" } else { "sh" };
    let sandbox = waiting.enclose(tree)?;
    let null = || rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).while_("open /dev/null");
    let text = |text: &str| CString::new(text).expect("constants have no NUL");
    // By its language a shell chooses files that it reads.
    let variables = environment(has_bash, false).into_iter();
    let launch = Launch {
        executable: Executable::Named(shell),
        arguments: [shell, "-c", "true"].map(text).into(),
        environment: variables.map(|(name, value)| text(&format!("{name}={value}"))).collect(),
        directory: text("/workspace"),
        streams: Streams::Three([null()?, null()?, null()?]),
        script: None,
    };
    let reporter = null()?;
    let program = sandbox.fork(None, &launch, &reporter).while_("start a program")?;
    waitpid(Some(program), WaitOptions::empty()).while_("wait for a program")?;
    pidfd_send_signal(&sandbox.init, Signal::KILL).while_("end the sandbox")?;
    // With its init everything in the namespace has ended.
    let _ = rustix::process::wait(WaitOptions::empty());
    Ok(())
}
