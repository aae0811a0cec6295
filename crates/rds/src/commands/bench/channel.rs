//! The guest channel of a machine that was started by hand.

use std::path::Path;
use std::time::Duration;

use rds_protocol::link::{History, greet};
use tokio::net::UnixStream;

use crate::error::CliError;

/// Between two looks for a socket that is not there yet.
const PAUSE: Duration = Duration::from_millis(1);

/// How long an agent may take to greet.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits for the agent's first byte.
pub(super) async fn first_byte(socket: &Path) -> Result<(), CliError> {
    let mut stream = loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    };
    let greeted = greet(&mut stream, History::Fresh, rand::random, LIMIT).await;
    greeted.map(drop).map_err(|error| CliError::Failed(error.to_string()))
}
