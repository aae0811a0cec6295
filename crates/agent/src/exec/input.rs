//! Carrying a client's frames to a program.

use std::os::fd::OwnedFd;

use futures_util::StreamExt;
use rds_protocol::exec::{ClientFrame, TerminalSize};
use rustix::process::{Pid, Signal};
use rustix::termios::Winsize;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::Sender;

use crate::reply::ClientFrames;

/// Where a client's frames go.
pub(super) struct Input {
    /// The program's process group.
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
        while let Some(Ok(frame)) = frames.next().await {
            match ClientFrame::decode(frame) {
                Ok(ClientFrame::Stdin(data)) => {
                    if let Some(stdin) = &mut self.stdin
                        && stdin.write_all(&data).await.is_err()
                    {
                        // The program reads no more. Signals may still come.
                        self.stdin = None;
                    }
                }
                Ok(ClientFrame::StdinEnd) if self.terminal.is_none() => self.stdin = None,
                Ok(ClientFrame::Resize(size)) => self.resize(size),
                Ok(ClientFrame::Signal(number)) => self.signal(number),
                Ok(ClientFrame::Start(_) | ClientFrame::StdinEnd) | Err(_) => {}
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
        if let Some(signal) = Signal::from_named_raw(number) {
            let _ = rustix::process::kill_process_group(self.group, signal);
        }
    }
}

/// A size as the kernel takes it.
pub(super) fn winsize(size: TerminalSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}
