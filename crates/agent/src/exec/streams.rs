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

/// Both ends. `S` is the program's, or nothing once they were given away.
pub(super) struct Connected<S = Streams> {
    /// The program's.
    pub(super) streams: S,
    /// The agent's end of its input; none if it is closed.
    pub(super) stdin: Option<Sender>,
    /// The agent's end of its terminal, to be resized.
    pub(super) terminal: Option<OwnedFd>,
    /// The agent's ends of its outputs.
    pub(super) outputs: Vec<Output>,
}

impl Connected {
    /// Parts the program's ends from the agent's.
    pub(super) fn split(self) -> (Streams, Connected<()>) {
        let Self { streams, stdin, terminal, outputs } = self;
        (streams, Connected { streams: (), stdin, terminal, outputs })
    }
}

/// Makes what a request asks for. `terminals` is the sandbox's `/dev/pts`.
pub(super) fn connect(start: &Start, terminals: &OwnedFd) -> io::Result<Connected> {
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

fn connect_pipes(start: &Start, stdin: OwnedFd, ours: Option<Sender>) -> io::Result<Connected> {
    let (stdout, their_stdout) = pipe()?;
    let (stderr, their_stderr) = pipe()?;
    let output = |source, frame| {
        let source = Receiver::from_owned_fd(source)?;
        io::Result::Ok(Output { source, kind: Kind::Pipe, frame, allowance: start.output_limit })
    };
    Ok(Connected {
        streams: Streams::Three([stdin, their_stdout, their_stderr]),
        stdin: ours,
        terminal: None,
        outputs: vec![output(stdout, AgentFrame::Stdout)?, output(stderr, AgentFrame::Stderr)?],
    })
}

fn connect_terminal(start: &Start, terminals: &OwnedFd, size: TerminalSize) -> io::Result<Connected> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master = rustix::fs::openat(terminals, "ptmx", flags, Mode::empty())?;
    rustix::pty::unlockpt(&master)?;
    rustix::termios::tcsetwinsize(&master, winsize(size))?;
    let source = Receiver::from_owned_fd_unchecked(master.try_clone()?)?;
    Ok(Connected {
        streams: Streams::Terminal(number(&master)?),
        stdin: Some(Sender::from_owned_fd_unchecked(master.try_clone()?)?),
        terminal: Some(master),
        outputs: vec![Output {
            source,
            kind: Kind::Terminal,
            frame: AgentFrame::Stdout,
            allowance: start.output_limit,
        }],
    })
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
