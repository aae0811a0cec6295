//! Making a program's standard streams, and the agent's ends of them.

use std::io;
use std::os::fd::OwnedFd;

use rds_protocol::exec::{AgentFrame, Start, Stdin, TerminalSize};
use rds_protocol::limits::USER_ID;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::{Receiver, Sender};

use super::input::winsize;
use super::output::{Kind, Output};
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
            let (theirs, ours) = pipe()?;
            connect_pipes(start, theirs, Some(Sender::from_owned_fd(ours)?))
        }
    }
}

fn connect_pipes(start: &Start, stdin: OwnedFd, ours: Option<Sender>) -> io::Result<(Streams, AgentSide)> {
    let (stdout, their_stdout) = pipe()?;
    let (stderr, their_stderr) = pipe()?;
    let output = |source, frame| {
        let source = Receiver::from_owned_fd(source)?;
        io::Result::Ok(Output { source, kind: Kind::Pipe, frame, allowance: start.output_limit })
    };
    let outputs = vec![output(stdout, AgentFrame::Stdout)?, output(stderr, AgentFrame::Stderr)?];
    let ours = AgentSide { stdin: ours, terminal: None, outputs };
    Ok((Streams::Three([stdin, their_stdout, their_stderr]), ours))
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

/// A pipe that belongs to the user, so that a program may open `/dev/stdout`.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fchown(&write, Some(Uid::from_raw(USER_ID)), Some(Gid::from_raw(USER_ID)))?;
    Ok((read, write))
}
