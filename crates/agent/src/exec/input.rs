//! Carrying a client's frames to a program.

use std::os::fd::OwnedFd;

use bytes::{Buf, BytesMut};
use futures_util::StreamExt;
use rds_protocol::exec::{ClientFrame, TerminalSize};
use rustix::process::{Pid, Signal};
use rustix::termios::Winsize;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::Sender;

use crate::reply::ClientFrames;

/// Bytes that may wait for a program to read them, and a frame more: while they do, signals and sizes still come through.
const PENDING: usize = 32 * 1024;

/// Where a client's frames go.
pub(super) struct Input {
    /// The program's process group, which takes signals unless the terminal has one in its foreground.
    pub(super) group: Pid,
    /// Its standard input; none if it is closed.
    pub(super) stdin: Option<Sender>,
    /// Its terminal, to be resized; none if it has none.
    pub(super) terminal: Option<OwnedFd>,
}

impl Input {
    /// Carries frames until there are no more. It is cancelled when the program has ended: only then is the number of
    /// its group free for another.
    pub(super) async fn carry(mut self, mut frames: ClientFrames) {
        let mut pending = BytesMut::new();
        let (mut more, mut at_end) = (true, false);
        while more || !pending.is_empty() {
            tokio::select! {
                frame = frames.next(), if more && pending.len() < PENDING => match frame {
                    Some(Ok(frame)) => match ClientFrame::decode(frame) {
                        Ok(ClientFrame::Stdin(data)) if !at_end => pending.extend_from_slice(&data),
                        Ok(ClientFrame::StdinEnd) if self.terminal.is_none() => at_end = true,
                        Ok(ClientFrame::Resize(size)) => self.resize(size),
                        Ok(ClientFrame::Signal(number)) => self.signal(number),
                        Ok(ClientFrame::Start(_) | ClientFrame::Stdin(_) | ClientFrame::StdinEnd) | Err(_) => {}
                    },
                    _ => more = false,
                },
                written = write(&mut self.stdin, &pending), if !pending.is_empty() => match written {
                    Ok(count) => pending.advance(count),
                    // The program reads no more. Signals may still come.
                    Err(_) => self.stdin = None,
                },
            }
            if at_end && pending.is_empty() {
                self.stdin = None;
            }
        }
        // The client says no more, which is the end of a pipe; a terminal stays open for as long as the program lives.
        if self.terminal.is_some() {
            std::future::pending::<()>().await;
        }
    }

    fn resize(&self, size: TerminalSize) {
        if let Some(terminal) = &self.terminal {
            let _ = rustix::termios::tcsetwinsize(terminal, winsize(size));
        }
    }

    fn signal(&self, number: i32) {
        let Some(signal) = Signal::from_named_raw(number) else { return };
        // A shell gives the terminal to the program that it runs.
        let foreground = self.terminal.as_ref().and_then(|terminal| rustix::termios::tcgetpgrp(terminal).ok());
        let _ = rustix::process::kill_process_group(foreground.unwrap_or(self.group), signal);
    }
}

/// Writes what fits now; to nobody, all of it.
async fn write(stdin: &mut Option<Sender>, data: &[u8]) -> std::io::Result<usize> {
    match stdin {
        Some(stdin) => stdin.write(data).await,
        None => Ok(data.len()),
    }
}

/// A size as the kernel takes it.
pub(super) fn winsize(size: TerminalSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}
