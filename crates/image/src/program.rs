//! Runs other programs: never through a shell, always with a time limit.

use std::ffi::OsString;
use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::ImageError;

/// A program that this crate needs, and where it comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    pub(crate) limit: Duration,
}

/// Directories where administrative programs live that an ordinary user's PATH may lack.
const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// How much of a program's standard error an error keeps, in bytes.
const KEPT_ERROR: usize = 2000;

impl Program {
    /// Runs it to its end and returns what it wrote to standard error.
    pub(crate) fn run(self, args: impl IntoIterator<Item = OsString>) -> Result<Vec<u8>, ImageError> {
        let mut command = self.command();
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| self.spawn_error(source))?;
        let stderr = drain(child.stderr.take());
        let status = self.wait(&mut child)?;
        let stderr = joined(stderr);
        if status.success() { Ok(stderr) } else { Err(self.failure(status, &stderr)) }
    }

    fn command(self) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(self.name);
        command.env("PATH", format!("{path}:{SBIN}")).env("LC_ALL", "C.UTF-8");
        command
    }

    fn spawn_error(self, source: io::Error) -> ImageError {
        if source.kind() == io::ErrorKind::NotFound {
            ImageError::Missing { program: self.name, package: self.package }
        } else {
            ImageError::Io { what: format!("cannot start {}", self.name), source }
        }
    }

    fn wait(self, child: &mut Child) -> Result<ExitStatus, ImageError> {
        let deadline = Instant::now() + self.limit;
        let mut pause = Duration::from_millis(1);
        loop {
            let what = || format!("cannot wait for {}", self.name);
            if let Some(status) = child.try_wait().map_err(|source| ImageError::Io { what: what(), source })? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                // Both can only fail when the child is gone, which is what they are for.
                let _ = child.kill();
                let _ = child.wait();
                return Err(ImageError::Timeout { program: self.name, seconds: self.limit.as_secs() });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn failure(self, status: ExitStatus, stderr: &[u8]) -> ImageError {
        let tail = String::from_utf8_lossy(stderr.get(stderr.len().saturating_sub(KEPT_ERROR)..).unwrap_or_default());
        let message = if tail.trim().is_empty() { status.to_string() } else { tail.trim().to_owned() };
        ImageError::Program { program: self.name, message }
    }
}

/// Reads a pipe on a thread of its own, so that a program never blocks on a full one.
fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // An error ends the output early; the exit status tells whether that matters.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn joined(thread: thread::JoinHandle<Vec<u8>>) -> Vec<u8> {
    thread.join().unwrap_or_default()
}
