//! Starting a program in the sandbox.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::process::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;
use tokio::time::Instant;

use rds_protocol::limits::USER_ID;

use super::{Keepers, Sandbox, fork, jail};
use crate::cgroup::Cgroup;
use crate::pipe;
use crate::reaper::Ended;

/// Group of terminals, which `mesg` and `write` know.
const TTY_GROUP: u32 = 5;

/// Where programs are looked for, whatever `PATH` a call sets.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to start and how.
pub(crate) struct Launch {
    /// The program's file.
    pub(crate) executable: Executable,
    /// Its arguments, its own name first.
    pub(crate) arguments: Vec<CString>,
    /// Its whole environment.
    pub(crate) environment: Vec<CString>,
    /// Its working directory.
    pub(crate) directory: CString,
    /// Its standard streams.
    pub(crate) streams: Streams,
    /// A file to write first.
    pub(crate) script: Option<Script>,
}

/// Which file is run.
pub(crate) enum Executable {
    /// A name to look for in [`PATH`], or a path.
    Named(&'static str),
    /// The agent itself.
    Agent,
}

/// A program's ends of its standard streams.
pub(crate) enum Streams {
    /// Standard input, output and error.
    Three([OwnedFd; 3]),
    /// All three are the terminal with this number, which also becomes the controlling one.
    Terminal(u32),
}

/// A file that is made as the user in the user's files, where nothing may be in its place.
pub(crate) struct Script {
    /// Its absolute path.
    pub(crate) path: CString,
    /// What is in it.
    pub(crate) text: String,
}

impl Script {
    /// The last component of its path.
    pub(crate) fn name(&self) -> &str {
        self.path.to_str().ok().and_then(|path| path.rsplit('/').next()).unwrap_or_default()
    }
}

/// A program that runs. Dropping it kills it with all its descendants; [`Child::leave`] doesn't.
pub(crate) struct Child {
    /// Its process, as the agent numbers it. It leads a session and process group.
    pub(crate) pid: Pid,
    /// Just before it was started.
    pub(crate) started: Instant,
    ended: oneshot::Receiver<Ended>,
    /// There until it was left or dropped.
    cgroup: Option<Cgroup>,
    keepers: Rc<Keepers>,
}

impl Child {
    /// Waits for its end. To be called until it has returned, and not after that.
    pub(crate) async fn end(&mut self) -> Ended {
        (&mut self.ended).await.unwrap_or(Ended::unknown())
    }

    /// Kills it with all its descendants. Its end is still to be waited for.
    pub(crate) fn kill(&self) {
        if let Some(cgroup) = &self.cgroup {
            // A group that can't be killed is gone.
            let _ = cgroup.kill();
        }
    }

    /// Lets what it has left running live on.
    pub(crate) fn leave(mut self) {
        if let Some(cgroup) = self.cgroup.take() {
            self.keepers.cgroups.give_back(cgroup);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
        if let Some(cgroup) = self.cgroup.take() {
            self.keepers.cgroups.give_back(cgroup);
        }
    }
}

/// The steps between the agent and the program, to say which one failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// Entering the sandbox.
    Enter,
    /// Opening the terminal.
    Terminal,
    /// Changing to the working directory.
    Directory,
    /// Writing the script.
    Script,
    /// Running the file.
    Execute,
}

/// A program that could not be started.
#[derive(Debug)]
pub(crate) struct LaunchError {
    /// What failed.
    pub(crate) step: Step,
    /// Why.
    pub(crate) error: io::Error,
}

/// A copy of the agent that is becoming a program.
struct Begun {
    pid: Pid,
    /// Just before it was started.
    started: Instant,
    /// Where it says which step failed.
    report: Receiver,
}

impl Sandbox {
    /// Starts a program. It has taken over its process when this returns.
    pub(crate) async fn launch(&self, keepers: &Rc<Keepers>, launch: Launch) -> Result<Child, LaunchError> {
        let failed = |error: io::Error| LaunchError { step: Step::Enter, error };
        let cgroup = keepers.cgroups.take().map_err(|error| failed(io::Error::other(error)))?;
        let begun = self.begin(&cgroup, &launch);
        // The program has its ends of its streams; while the agent has them too, they do not end with the program.
        drop(launch);
        let Begun { pid, started, report } = match begun {
            Ok(begun) => begun,
            Err(error) => {
                keepers.cgroups.give_back(cgroup);
                return Err(failed(error));
            }
        };
        let ended = keepers.reaper.watch(pid);
        let mut child = Child { pid, started, ended, cgroup: Some(cgroup), keepers: Rc::clone(keepers) };
        match read_report(report).await {
            Ok(None) => Ok(child),
            Ok(Some(error)) => {
                child.end().await;
                Err(error)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn begin(&self, cgroup: &Cgroup, launch: &Launch) -> io::Result<Begun> {
        let (reporter, report) = pipe::output()?;
        let started = Instant::now();
        let pid = self.fork(Some(cgroup.directory().as_fd()), launch, &reporter)?;
        Ok(Begun { pid, started, report })
    }

    /// Starts a copy of the agent that becomes the program, or else says to `reporter` which step failed.
    pub(super) fn fork(&self, cgroup: Option<BorrowedFd<'_>>, launch: &Launch, reporter: &OwnedFd) -> io::Result<Pid> {
        let mut keep = [&self.init, &self.agent, reporter].map(AsRawFd::as_raw_fd).to_vec();
        if let Streams::Three(streams) = &launch.streams {
            keep.extend(streams.iter().map(AsRawFd::as_raw_fd));
        }
        fork(cgroup, &keep, || self.become_program(launch, reporter))
    }

    /// The child's side. Returns only when a step failed, after reporting it.
    fn become_program(&self, launch: &Launch, reporter: &OwnedFd) -> i32 {
        let LaunchError { step, error } = self.try_become_program(launch);
        let code = error.raw_os_error().unwrap_or(libc::EIO);
        let mut report = [step as u8, 0, 0, 0, 0];
        report[1..].copy_from_slice(&code.to_ne_bytes());
        let _ = rustix::io::write(reporter, &report);
        127
    }

    fn try_become_program(&self, launch: &Launch) -> LaunchError {
        match self.prepare(launch) {
            Ok(()) => LaunchError { step: Step::Execute, error: self.execute(launch) },
            Err(error) => error,
        }
    }

    /// All steps but the last.
    fn prepare(&self, launch: &Launch) -> Result<(), LaunchError> {
        at(Step::Enter, || jail::enter(&self.init))?;
        at(Step::Terminal, || connect(&launch.streams))?;
        at(Step::Enter, jail::become_user)?;
        at(Step::Directory, || Ok(rustix::process::chdir(&launch.directory)?))?;
        at(Step::Script, || launch.script.as_ref().map_or(Ok(()), write_script))?;
        at(Step::Enter, jail::close_the_rest)
    }

    /// Runs the file. Returns only when that failed.
    fn execute(&self, launch: &Launch) -> io::Error {
        let arguments = pointers(&launch.arguments);
        let environment = pointers(&launch.environment);
        let run = |directory: i32, path: &CStr, flags: i32| {
            // SAFETY: the strings and the null-terminated lists of them outlive the call.
            unsafe {
                let (path, arguments, environment) = (path.as_ptr(), arguments.as_ptr(), environment.as_ptr());
                libc::syscall(libc::SYS_execveat, directory, path, arguments, environment, flags);
            }
            io::Error::last_os_error()
        };
        match launch.executable {
            Executable::Agent => run(self.agent.as_raw_fd(), c"", libc::AT_EMPTY_PATH),
            Executable::Named(name) => {
                let mut last = io::Error::from_raw_os_error(libc::ENOENT);
                for directory in if name.starts_with('/') { "" } else { PATH }.split(':') {
                    let path = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
                    last = run(libc::AT_FDCWD, &CString::new(path).expect("constants have no NUL"), 0);
                    if last.raw_os_error() != Some(libc::ENOENT) {
                        break;
                    }
                }
                last
            }
        }
    }
}

fn at<T>(step: Step, work: impl FnOnce() -> io::Result<T>) -> Result<T, LaunchError> {
    work().map_err(|error| LaunchError { step, error })
}

/// Makes the program's ends its standard streams.
fn connect(streams: &Streams) -> io::Result<()> {
    let terminal;
    let [stdin, stdout, stderr] = match streams {
        Streams::Three([stdin, stdout, stderr]) => [stdin, stdout, stderr],
        Streams::Terminal(number) => {
            // Opened by its own path, so that `ttyname` finds it; a session's first terminal becomes its own.
            terminal = rustix::fs::open(format!("/dev/pts/{number}"), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
            rustix::fs::fchown(&terminal, Some(Uid::from_raw(USER_ID)), Some(Gid::from_raw(TTY_GROUP)))?;
            [&terminal; 3]
        }
    };
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    Ok(())
}

fn write_script(script: &Script) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(&script.path, flags, Mode::from_raw_mode(0o600))?;
    let written = File::from(file).write_all(script.text.as_bytes());
    if written.is_err() {
        let _ = rustix::fs::unlink(&script.path);
    }
    written
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Waits until the program runs (the pipe closes) or a step failed.
async fn read_report(mut report: Receiver) -> io::Result<Option<LaunchError>> {
    let mut bytes = Vec::with_capacity(5);
    report.read_to_end(&mut bytes).await?;
    let Some((step, code)) = bytes.split_first() else {
        return Ok(None);
    };
    let step = [Step::Enter, Step::Terminal, Step::Directory, Step::Script, Step::Execute]
        .into_iter()
        .find(|known| *known as u8 == *step)
        .unwrap_or(Step::Enter);
    let number = code.try_into().map(i32::from_ne_bytes).map_err(io::Error::other)?;
    Ok(Some(LaunchError { step, error: io::Error::from_raw_os_error(number) }))
}
