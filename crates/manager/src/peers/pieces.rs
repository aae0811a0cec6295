//! A stream that is written to.

use std::io::{self, Write};

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;

/// Bytes of a piece on its way.
const PIECE: usize = 64 * 1024;

/// Pieces that wait to be sent.
const PIECES: usize = 4;

/// What is written becomes a stream's pieces.
pub(super) struct Pieces {
    to: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Pieces {
    /// The writer, and the stream of what is written to it.
    pub(super) fn new() -> (Self, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
        let (to, from) = mpsc::channel(PIECES);
        (Self { to, piece: Vec::new() }, tokio_stream::wrappers::ReceiverStream::new(from))
    }

    fn send(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::take(&mut self.piece));
        self.to.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Breaks the stream off, so that nobody takes it for a whole one.
    pub(super) fn break_off(to: &mpsc::Sender<io::Result<Bytes>>, why: &io::Error) {
        let _ = to.blocking_send(Err(io::Error::other(why.to_string())));
    }

    /// For [`Self::break_off`] after the writer is gone.
    pub(super) fn sender(&self) -> mpsc::Sender<io::Result<Bytes>> {
        self.to.clone()
    }
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(data);
        if self.piece.len() >= PIECE {
            self.send()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}
