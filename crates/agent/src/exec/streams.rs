//! Making a program's standard streams, and the agent's ends of them.

use std::io;
use std::os::fd::OwnedFd;

use rds_protocol::exec::{AgentFrame, Start, Stdin, TerminalSize};
use rds_protocol::limits::USER_ID;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use tokio::net::unix::pipe::{Receiver, Sender};

use super::input::winsize;
use super::output::{Kind, Output};
use crate::pipe;
use crate::sandbox::launch::Streams;

/// The agent's ends of a program's streams.
pub(super) struct AgentSide {
    /// Of its input; none if it is closed.
    pub(super) stdin: Option<Sender>,
    /// Of its terminal, to be resized.
    pub(super) terminal: Option<OwnedFd>,
    /// Of its outputs.
    pub(super) outputs: Vec<Output>,
}

/// Makes what a request asks for: the program's ends and the agent's. `terminals` is the sandbox's `/dev/pts`.
pub(super) fn connect(start: &Start, terminals: &OwnedFd) -> io::Result<(Streams, AgentSide)> {
    match start.stdin {
        Stdin::Terminal(size) => connect_terminal(start, terminals, size),
        Stdin::Closed => {
            let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            connect_pipes(start, null, None)
        }
        Stdin::Pipe => {
            let (theirs, ours) = pipe::input()?;
            connect_pipes(start, users(theirs)?, Some(ours))
        }
    }
}

fn connect_pipes(start: &Start, stdin: OwnedFd, ours: Option<Sender>) -> io::Result<(Streams, AgentSide)> {
    let (their_stdout, stdout) = pipe::output()?;
    let (their_stderr, stderr) = pipe::output()?;
    let output = |source, frame| Output { source, kind: Kind::Pipe, frame, allowance: start.output_limit };
    let outputs = vec![output(stdout, AgentFrame::Stdout), output(stderr, AgentFrame::Stderr)];
    let streams = Streams::Three([stdin, users(their_stdout)?, users(their_stderr)?]);
    Ok((streams, AgentSide { stdin: ours, terminal: None, outputs }))
}

fn connect_terminal(start: &Start, terminals: &OwnedFd, size: TerminalSize) -> io::Result<(Streams, AgentSide)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master = rustix::fs::openat(terminals, "ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    rustix::termios::tcsetwinsize(&master, winsize(size))?;
    let source = Receiver::from_owned_fd_unchecked(master.try_clone()?)?;
    let output = Output { source, kind: Kind::Terminal, frame: AgentFrame::Stdout, allowance: start.output_limit };
    let streams = Streams::Terminal(number(&master)?);
    let stdin = Sender::from_owned_fd_unchecked(master.try_clone()?)?;
    Ok((streams, AgentSide { stdin: Some(stdin), terminal: Some(master), outputs: vec![output] }))
}

/// The number of a terminal: its name under `/dev/pts`.
fn number(master: &OwnedFd) -> io::Result<u32> {
    let name = rustix::pty::ptsname(master, Vec::new())?;
    name.to_str().ok().and_then(|name| name.rsplit('/').next()?.parse().ok()).ok_or(io::ErrorKind::InvalidData.into())
}

/// Makes a pipe the user's, so that a program may open `/dev/stdout`.
fn users(pipe: OwnedFd) -> io::Result<OwnedFd> {
    rustix::fs::fchown(&pipe, Some(Uid::from_raw(USER_ID)), Some(Gid::from_raw(USER_ID)))?;
    Ok(pipe)
}
