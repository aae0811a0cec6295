//! The guest channel: streams into the guest through the Unix socket of its vsock device.
//!
//! Both directions of the channel are opened from here, to two ports of the guest's agent. Nothing listens for a guest
//! on this side, so a guest cannot open anything.

use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::jail::{Root, inside};
use crate::process::Process;

/// Address of every guest: each has a vsock of its own.
pub(super) const GUEST_CID: u32 = 3;

/// Between two attempts to reach a guest that does not listen yet. The first waits in Firecracker until the guest has
/// loaded its driver; its agent listens some 50 ms later.
const PAUSE: Duration = Duration::from_millis(2);

/// Bytes of Firecracker's answer: `OK `, a number of 32 bits, and the end of the line.
const ANSWER_BYTES: usize = 3 + 10 + 1;

/// How long a guest that listens may take to say so.
const LISTENING_LIMIT: Duration = Duration::from_secs(1);

/// Opens a stream to a guest's port, as soon as somebody listens there.
pub(super) async fn open(process: &Process, port: u32) -> io::Result<UnixStream> {
    loop {
        match connect(process, port).await {
            Err(error) if is_for_now(&error) => sleep(PAUSE).await,
            other => return other,
        }
    }
}

/// Whether somebody listens at all of a guest's ports. The streams that show it stay open until the machine ends.
///
/// So a snapshot that is made now has them in it. When a machine starts from it, its kernel is told to drop all streams,
/// sooner or later after the first of the new ones has come. The agent, which reads from the old one, hears of that, and
/// answers nobody before: a stream that was answered is not dropped any more.
pub(super) async fn greet_for_good(process: Process, ports: [u32; 2]) -> io::Result<bool> {
    let mut streams = Vec::new();
    for port in ports {
        match timeout(LISTENING_LIMIT, connect(&process, port)).await {
            Ok(Ok(stream)) => streams.push(stream),
            Ok(Err(error)) if !is_for_now(&error) => return Err(error),
            Ok(Err(_)) | Err(_) => return Ok(false),
        }
    }
    tokio::spawn(async move {
        let _ = process.wait().await;
        drop(streams);
    });
    Ok(true)
}

/// One attempt. Firecracker closes the stream when the guest refuses, or does not answer within two seconds.
async fn connect(process: &Process, port: u32) -> io::Result<UnixStream> {
    let mut stream = Root::of(process)?.connect(inside::VSOCK, process).await?;
    ask(&mut stream, port).await?;
    Ok(stream)
}

async fn ask(stream: &mut UnixStream, port: u32) -> io::Result<()> {
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut answer = Vec::with_capacity(ANSWER_BYTES);
    while answer.last() != Some(&b'\n') {
        if answer.len() == ANSWER_BYTES {
            return Err(io::Error::new(ErrorKind::InvalidData, "it does not speak as Firecracker's vsock does"));
        }
        // What comes after the line is the guest's.
        answer.push(stream.read_u8().await?);
    }
    let accepted = answer.starts_with(b"OK ");
    accepted.then_some(()).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the vsock answers with nonsense"))
}

/// Whether another attempt may succeed: the guest has not come so far, or Firecracker has too much to do.
fn is_for_now(error: &io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof, WouldBlock};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe | WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn answered(answer: &'static [u8]) -> io::Result<(UnixStream, UnixStream)> {
        let (mut ours, mut theirs) = UnixStream::pair()?;
        theirs.write_all(answer).await?;
        ask(&mut ours, 8080).await?;
        Ok((ours, theirs))
    }

    #[tokio::test]
    async fn the_guests_first_bytes_stay_in_the_stream() {
        let (mut ours, mut theirs) = answered(b"OK 1073741824\nhello").await.unwrap();
        let mut said = [0; 13];
        theirs.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"CONNECT 8080\n");
        drop(theirs);
        let mut rest = Vec::new();
        ours.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"hello");
    }

    #[tokio::test]
    async fn an_answer_is_short_and_means_yes() {
        assert_eq!(answered(b"OK 99999999999999999999").await.unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(answered(b"NO\n").await.unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
