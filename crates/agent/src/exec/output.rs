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

/// More than the kernel holds of a terminal's output. Who reads more of one whose program has ended reads what something
/// else writes that has opened it anew.
const TERMINAL_BYTES: u64 = 1024 * 1024;

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
                // First: what was left running may write faster than this reads, and the program's time is over.
                _ = program_ended.wait_for(|ended| *ended) => break false,
                read = self.source.read_buf(&mut piece) => match read {
                    // A terminal nobody has open any more is an error, not an end.
                    Ok(0) | Err(_) => break true,
                    Ok(_) => truncated |= self.send(piece.split().freeze(), client).await,
                },
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
            Kind::Terminal => TERMINAL_BYTES,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use tokio::sync::mpsc;
    use tokio::task::LocalSet;

    fn output() -> (std::io::PipeWriter, Output) {
        let (reader, writer) = std::io::pipe().unwrap();
        let source = Receiver::from_owned_fd(reader.into()).unwrap();
        (writer, Output { source, kind: Kind::Pipe, frame: AgentFrame::Stdout, allowance: None })
    }

    #[tokio::test]
    async fn what_an_ended_program_wrote_is_sent() {
        let (mut writer, output) = output();
        writer.write_all(&[b'x'; 50_000]).unwrap();
        let (client, mut frames) = mpsc::channel(100);
        let truncated = LocalSet::new().run_until(output.carry(&client, watch::channel(true).1)).await;
        drop(client);
        let mut sent = 0;
        while let Some(frame) = frames.recv().await {
            sent += frame.unwrap().iter().filter(|byte| **byte == b'x').count();
        }
        assert_eq!((sent, truncated), (50_000, false));
    }

    #[tokio::test]
    async fn one_that_is_left_running_and_never_silent_holds_nothing_up() {
        let (mut writer, output) = output();
        writer.write_all(&[b'x'; 2 * PIECE]).unwrap();
        let (client, mut frames) = mpsc::channel(1);
        let local = LocalSet::new();
        let (announce, ended) = watch::channel(false);
        local.spawn_local(async move { output.carry(&client, ended).await });
        let pieces = local.run_until(async {
            let mut pieces = 0;
            // There is more before the next piece is read.
            while pieces < 100 && frames.recv().await.is_some() {
                pieces += 1;
                announce.send_replace(true);
                writer.write_all(&[b'x'; PIECE]).unwrap();
            }
            pieces
        });
        assert!(pieces.await < 10, "it is carried for ever");
    }
}
