//! QEMU's control protocol (QMP): one short-lived connection for each operation, over the machine's only monitor.
//!
//! A guest that broke out into its QEMU decides what comes back, so lines and their number are bounded.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::files;
use crate::HypervisorError;

/// Bytes of one line. The longest that we ask for has a few hundred.
const LINE_BYTES: u64 = 64 * 1024;

/// Lines (events, mostly) that may come before an answer.
const LINES: usize = 1000;

/// Time for one command; each takes well under a millisecond, but an emulated guest can hold QEMU's lock for a while.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// A connection that is ready for commands.
pub(super) struct Qmp(BufReader<UnixStream>);

impl Qmp {
    /// Connects to the monitor of the machine in `dir` and waits for its greeting, in turn with other connections.
    pub(super) async fn open(dir: &Path) -> Result<Self, HypervisorError> {
        let stream = UnixStream::connect(files::qmp(dir)).await.map_err(failed)?;
        let mut qmp = Self(BufReader::new(stream));
        let greeting = limited("greeting", qmp.line()).await?;
        if greeting.get("QMP").is_none() {
            return Err(failed(io::Error::other("no greeting")));
        }
        qmp.execute("qmp_capabilities", Value::Null).await?;
        Ok(qmp)
    }

    /// Carries out a command and gives its answer. Events are passed over.
    pub(super) async fn execute(&mut self, command: &'static str, arguments: Value) -> Result<Value, HypervisorError> {
        limited(command, async {
            self.0.get_mut().write_all(&request(command, &arguments)).await.map_err(failed)?;
            self.answer(command).await
        })
        .await
    }

    /// Gives QEMU a descriptor under a name.
    pub(super) async fn give(&mut self, name: &str, descriptor: BorrowedFd<'_>) -> Result<(), HypervisorError> {
        self.execute_with("getfd", json!({"fdname": name}), descriptor).await.map(drop)
    }

    /// Carries out a command that takes a descriptor.
    pub(super) async fn execute_with(
        &mut self,
        command: &'static str,
        arguments: Value,
        descriptor: BorrowedFd<'_>,
    ) -> Result<Value, HypervisorError> {
        limited(command, async {
            let request = request(command, &arguments);
            let stream = self.0.get_ref();
            let send = || send_with(stream.as_fd(), &request, descriptor);
            let sent = stream.async_io(Interest::WRITABLE, send).await.map_err(failed)?;
            let rest = request.get(sent..).unwrap_or_default();
            self.0.get_mut().write_all(rest).await.map_err(failed)?;
            self.answer(command).await
        })
        .await
    }

    async fn answer(&mut self, command: &'static str) -> Result<Value, HypervisorError> {
        for _ in 0..LINES {
            let mut line = self.line().await?;
            if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
            }
            if let Some(error) = line.get("error") {
                let words = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                return Err(HypervisorError::refused(command, words));
            }
        }
        Err(failed(io::Error::other("too many lines without an answer")))
    }

    async fn line(&mut self) -> Result<Value, HypervisorError> {
        let mut line = Vec::new();
        let read = (&mut self.0).take(LINE_BYTES).read_until(b'\n', &mut line).await.map_err(failed)?;
        if read == 0 {
            return Err(HypervisorError::NotRunning);
        }
        serde_json::from_slice(&line).map_err(|error| failed(error.into()))
    }
}

fn request(command: &str, arguments: &Value) -> Vec<u8> {
    let mut request = json!({"execute": command});
    if !arguments.is_null() {
        request["arguments"] = arguments.clone();
    }
    format!("{request}\n").into_bytes()
}

/// Sends a beginning of `data` together with a descriptor and tells its length.
fn send_with(socket: BorrowedFd<'_>, data: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    Ok(sendmsg(socket, &[IoSlice::new(data)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

async fn limited<T>(
    what: &'static str,
    work: impl Future<Output = Result<T, HypervisorError>>,
) -> Result<T, HypervisorError> {
    timeout(COMMAND_LIMIT, work).await.map_err(|_| HypervisorError::Timeout(what))?
}

fn failed(source: io::Error) -> HypervisorError {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
    if let BrokenPipe | ConnectionRefused | ConnectionReset | NotFound = source.kind() {
        return HypervisorError::NotRunning;
    }
    HypervisorError::Io { what: "QEMU's monitor".into(), source }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    use super::*;
    use std::io::{BufRead, Write};

    /// A monitor that says `lines` and then reads what comes.
    fn monitor(lines: &'static [u8]) -> tempfile::TempDir {
        monitor_that_keeps(lines.to_vec()).0
    }

    /// The same, with what came until the connection ended.
    pub(in super::super) fn monitor_that_keeps(lines: Vec<u8>) -> (tempfile::TempDir, JoinHandle<String>) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(files::qmp(dir.path())).unwrap();
        let said = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(&lines);
            let (mut input, mut said) = (io::BufReader::new(stream), String::new());
            while input.read_line(&mut said).is_ok_and(|read| read > 0) {}
            said
        });
        (dir, said)
    }

    #[tokio::test]
    async fn events_are_passed_over_and_refusals_keep_their_words() {
        let dir = monitor(
            b"{\"QMP\":{}}\n{\"event\":\"X\"}\n{\"return\":{}}\n{\"event\":\"Y\"}\n{\"return\":{\"status\":\"running\"}}\n\
              {\"error\":{\"class\":\"GenericError\",\"desc\":\"no\"}}\n",
        );
        let mut qmp = Qmp::open(dir.path()).await.unwrap();
        assert_eq!(qmp.execute("query-status", Value::Null).await.unwrap()["status"], "running");
        let refused = qmp.execute("stop", Value::Null).await;
        assert!(matches!(refused, Err(HypervisorError::Refused { message, .. }) if message == "no"));
    }

    #[tokio::test]
    async fn a_hostile_monitor_is_an_error() {
        let endless: &'static [u8] = Box::leak(vec![b'x'; 1024 * 1024].into_boxed_slice());
        let events: &'static [u8] = Box::leak([b"{\"QMP\":{}}\n".to_vec(), b"{}\n".repeat(2000)].concat().into());
        for lines in [b"{\"return\":{}}\n".as_slice(), b"\xff\xfe\n", b"[1]\n", endless, events] {
            let dir = monitor(lines);
            assert!(Qmp::open(dir.path()).await.is_err());
        }
    }

    #[tokio::test]
    async fn no_monitor_is_no_machine() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Qmp::open(dir.path()).await, Err(HypervisorError::NotRunning)));
    }
}
