//! The guest channel of a machine that was started by hand.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rds_protocol::link::{History, greet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::error::CliError;

/// Between two attempts to reach what is not there yet.
const PAUSE: Duration = Duration::from_millis(1);

/// How long an agent may take to greet.
const LIMIT: Duration = Duration::from_secs(60);

/// Where a monitor has it.
pub(super) enum Channel {
    /// The socket of a serial port.
    Port(PathBuf),
    /// Firecracker's socket, and a port in the guest.
    Vsock(PathBuf, u16),
}

impl Channel {
    /// Waits for the agent's first byte.
    pub(super) async fn first_byte(&self) -> Result<(), CliError> {
        let mut stream = loop {
            match self.open().await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        };
        let greeted = greet(&mut stream, History::Fresh, rand::random, LIMIT).await;
        greeted.map(drop).map_err(|error| CliError::Failed(error.to_string()))
    }

    async fn open(&self) -> std::io::Result<UnixStream> {
        match self {
            Self::Port(socket) => UnixStream::connect(socket).await,
            Self::Vsock(socket, port) => vsock(socket, *port).await,
        }
    }
}

/// Firecracker answers `OK` and a number, and closes the stream if nobody listens in the guest.
async fn vsock(socket: &Path, port: u16) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    while stream.read_u8().await? != b'\n' {}
    Ok(stream)
}
