//! Runs other programs: never through a shell, always with a time limit.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::ImageError;

/// A program that this crate needs, and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// The distribution's package that holds it.
    pub(crate) package: &'static str,
    pub(crate) limit: Duration,
}

/// How a program is run.
#[derive(Default)]
pub(crate) struct Call<'a> {
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(&'static str, OsString)>,
    /// Written to its standard input, which is closed after it.
    pub(crate) input: &'a [u8],
    /// Asked several times a second; the program is ended when it says yes.
    pub(crate) cancelled: Option<&'a (dyn Fn() -> bool + Sync)>,
}

/// Directories where administrative programs live that an ordinary user's PATH may lack.
const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// How much of a program's standard error an error keeps, in bytes.
const KEPT_ERROR: usize = 2000;

/// How long a program that was told to end has to clean up.
const GRACE: Duration = Duration::from_secs(10);

/// Why a program was ended.
enum Stopped {
    Cancelled,
    TimedOut,
}

impl Program {
    /// Runs it to its end and returns what it wrote to standard error.
    pub(crate) fn run(self, args: Vec<OsString>) -> Result<Vec<u8>, ImageError> {
        let (_, stderr) = self.stream(&Call { args, ..Call::default() }, |out| io::copy(out, &mut io::sink()))?;
        Ok(stderr)
    }

    /// Runs it while `consume` reads what it writes to standard output. What `consume` leaves is dropped.
    ///
    /// The program's own failure is reported before one of `consume`, which is mostly its consequence.
    pub(crate) fn stream<T>(
        self,
        call: &Call<'_>,
        consume: impl FnOnce(&mut dyn Read) -> io::Result<T>,
    ) -> Result<(T, Vec<u8>), ImageError> {
        let spawned = self.command(call)?.spawn();
        let what = |verb: &str| format!("cannot {verb} {}", self.name);
        let mut child = spawned.map_err(|source| ImageError::Io { what: what("start"), source })?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(mut stdout), Some(mut stderr)) = pipes else {
            unreachable!("all three are pipes");
        };
        let (ended, end) = mpsc::channel::<()>();
        let (status, consumed, errors, stopped) = thread::scope(|scope| {
            // A program that does not want its input closes it; its exit status tells whether that matters.
            scope.spawn(move || stdin.write_all(call.input).ok());
            let errors = scope.spawn(move || {
                let mut bytes = Vec::new();
                stderr.read_to_end(&mut bytes).ok();
                bytes
            });
            let pid = Pid::from_child(&child);
            let watch = scope.spawn(move || self.watch(pid, &end, call.cancelled));
            let consumed = consume(&mut stdout);
            io::copy(&mut stdout, &mut io::sink()).ok();
            let status = wait_without_reaping(&mut child);
            drop(ended);
            let stopped = watch.join().ok().flatten();
            (status.and_then(|()| child.wait()), consumed, errors.join().unwrap_or_default(), stopped)
        });
        match stopped {
            Some(Stopped::Cancelled) => return Err(ImageError::Cancelled),
            Some(Stopped::TimedOut) => {
                return Err(ImageError::Timeout { program: self.name, seconds: self.limit.as_secs() });
            }
            None => {}
        }
        let status = status.map_err(|source| ImageError::Io { what: what("wait for"), source })?;
        if !status.success() {
            return Err(self.failure(status, &errors));
        }
        let consumed = consumed.map_err(|source| ImageError::Io { what: what("use the output of"), source })?;
        Ok((consumed, errors))
    }

    /// `setpriv`, a part of every Debian and Ubuntu, ends the program also when this process is killed.
    fn command(self, call: &Call<'_>) -> Result<Command, ImageError> {
        let path = format!("{}:{SBIN}", std::env::var("PATH").unwrap_or_default());
        let candidates = path.split(':').map(|dir| Path::new(dir).join(self.name));
        let Some(program) = candidates.into_iter().find(|file| file.is_file()) else {
            return Err(ImageError::Missing { program: self.name, package: self.package });
        };
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(program).args(&call.args);
        command.env("PATH", path).env("LC_ALL", "C.UTF-8");
        command.envs(call.env.iter().map(|(name, value)| (name, value)));
        // A Ctrl-C at the terminal is for this process, which decides what to end and says so.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    /// Ends the program when its time is over or it is no longer wanted; returns when `end` is closed.
    fn watch(
        self,
        pid: Pid,
        end: &mpsc::Receiver<()>,
        cancelled: Option<&(dyn Fn() -> bool + Sync)>,
    ) -> Option<Stopped> {
        let deadline = Instant::now() + self.limit;
        let stopped = loop {
            match end.recv_timeout(Duration::from_millis(100)) {
                Err(RecvTimeoutError::Timeout) => {}
                _ => return None,
            }
            if cancelled.is_some_and(|cancelled| cancelled()) {
                break Stopped::Cancelled;
            }
            if Instant::now() >= deadline {
                break Stopped::TimedOut;
            }
        };
        // The process is not reaped before `end` is closed, so the id is still its own. Ended already is as good.
        kill_process(pid, Signal::TERM).ok();
        if end.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
            kill_process(pid, Signal::KILL).ok();
        }
        Some(stopped)
    }

    fn failure(self, status: ExitStatus, stderr: &[u8]) -> ImageError {
        let tail = String::from_utf8_lossy(stderr.get(stderr.len().saturating_sub(KEPT_ERROR)..).unwrap_or_default());
        let message = if tail.trim().is_empty() { status.to_string() } else { tail.trim().to_owned() };
        ImageError::Program { program: self.name, message }
    }
}

/// Waits for the end of a process but keeps its id taken, so that nobody else can be meant by it.
fn wait_without_reaping(child: &mut Child) -> io::Result<()> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    loop {
        match waitid(WaitId::Pid(Pid::from_child(child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn program(name: &'static str, seconds: u64) -> Program {
        Program { name, package: "coreutils", limit: Duration::from_secs(seconds) }
    }

    #[test]
    fn gives_input_and_reads_output() {
        let input = vec![b'x'; 1 << 20];
        let call = Call { input: &input, ..Call::default() };
        let (copied, _) = program("cat", 10).stream(&call, |out| io::copy(out, &mut io::sink())).unwrap();
        assert_eq!(copied, 1 << 20);
    }

    #[test]
    fn ends_what_takes_too_long_or_is_no_longer_wanted() {
        let sleep = || vec![OsString::from("60")];
        assert!(matches!(program("sleep", 0).run(sleep()), Err(ImageError::Timeout { .. })));
        let asked = AtomicBool::new(false);
        let cancelled = || asked.swap(true, Ordering::Relaxed);
        let call = Call { args: sleep(), cancelled: Some(&cancelled), ..Call::default() };
        assert!(matches!(program("sleep", 60).stream(&call, |_| Ok(())), Err(ImageError::Cancelled)));
    }

    #[test]
    fn says_what_is_missing_and_what_failed() {
        assert!(matches!(program("no-such-program", 1).run(vec![]), Err(ImageError::Missing { .. })));
        let error = program("cat", 5).run(vec!["/no/such/file".into()]).unwrap_err();
        assert!(error.to_string().contains("No such file"), "{error}");
    }
}
