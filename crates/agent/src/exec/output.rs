//! Carrying a program's output to the client.

use std::os::fd::AsFd;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rds_protocol::exec::AgentFrame;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::reply::FrameSender;

/// Bytes that are read at once: one HTTP/2 frame with ours around it.
const PIECE: usize = 16 * 1024 - 5;

/// How long a terminal whose program has ended may take to deliver what is left.
const TERMINAL_PATIENCE: Duration = Duration::from_millis(200);

/// What an output comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A pipe. What the program itself wrote is all there when it has ended.
    Pipe,
    /// A terminal, which is hung up when the leader of its session has ended.
    Terminal,
}

/// One output of a program.
pub(super) struct Output {
    pub(super) source: Receiver,
    pub(super) kind: Kind,
    pub(super) frame: fn(Bytes) -> AgentFrame,
    /// Bytes that may still be sent; no bound if absent.
    pub(super) allowance: Option<u64>,
}

impl Output {
    /// Sends what is read until the output's end, or until the program has ended and what it wrote is sent: something
    /// that it left running may hold the output open for ever. Says whether output was dropped.
    ///
    /// Afterwards whatever such a program still writes is read and dropped, so that it lives on.
    pub(super) async fn carry(mut self, client: &FrameSender, mut program_ended: watch::Receiver<bool>) -> bool {
        let mut truncated = false;
        let mut piece = BytesMut::new();
        let at_end = loop {
            piece.reserve(PIECE);
            tokio::select! {
                biased;
                read = self.source.read_buf(&mut piece) => match read {
                    // A terminal nobody has open any more is an error, not an end.
                    Ok(0) | Err(_) => break true,
                    Ok(_) => truncated |= self.send(piece.split().freeze(), client).await,
                },
                _ = program_ended.wait_for(|ended| *ended) => break false,
            }
        };
        if !at_end {
            truncated |= self.send_rest(&mut piece, client).await;
            tokio::task::spawn_local(drain(self.source));
        }
        truncated
    }

    async fn send_rest(&mut self, piece: &mut BytesMut, client: &FrameSender) -> bool {
        let mut truncated = false;
        let mut left = match self.kind {
            Kind::Pipe => rustix::io::ioctl_fionread(self.source.as_fd()).unwrap_or(0),
            Kind::Terminal => u64::MAX,
        };
        while left > 0 {
            piece.reserve(PIECE);
            match timeout(TERMINAL_PATIENCE, self.source.read_buf(piece)).await {
                Ok(Ok(count)) if count > 0 => left = left.saturating_sub(count as u64),
                _ => break,
            }
            truncated |= self.send(piece.split().freeze(), client).await;
        }
        truncated
    }

    /// Sends as much as is allowed. Says whether something was dropped.
    async fn send(&mut self, mut data: Bytes, client: &FrameSender) -> bool {
        let mut truncated = false;
        if let Some(allowance) = &mut self.allowance {
            let kept = data.len().min(usize::try_from(*allowance).unwrap_or(usize::MAX));
            truncated = kept < data.len();
            data.truncate(kept);
            *allowance -= kept as u64;
        }
        if !data.is_empty() {
            // A client that has gone is noticed by whoever waits for the program.
            let _ = client.send(Ok((self.frame)(data).encode().to_bytes())).await;
        }
        truncated
    }
}

async fn drain(mut source: Receiver) {
    let mut piece = [0; 4096];
    while source.read(&mut piece).await.is_ok_and(|count| count > 0) {}
}
