//! Pipes between the agent and what it starts. The agent has one thread, so its ends do not block.

use std::io;
use std::os::fd::OwnedFd;

use tokio::net::unix::pipe::{Receiver, Sender};

/// An input for somebody else: that one's end and the agent's.
pub(crate) fn input() -> io::Result<(OwnedFd, Sender)> {
    let (theirs, ours) = io::pipe()?;
    Ok((theirs.into(), Sender::from_owned_fd(ours.into())?))
}

/// An output for somebody else: that one's end and the agent's.
pub(crate) fn output() -> io::Result<(OwnedFd, Receiver)> {
    let (ours, theirs) = io::pipe()?;
    Ok((theirs.into(), Receiver::from_owned_fd(ours.into())?))
}
