//! A byte stream to the manager: a virtio-serial port, found by its name.
//!
//! Owns how such a port behaves; must not know what is said over it.
//!
//! A port whose host side is closed reports a hang-up for as long as it stays closed, and tokio never forgets one that
//! it saw. So the port is watched, edge-triggered, by an epoll of its own, and tokio watches that: an edge comes for
//! each change (data, space, opened, closed), so nothing has to be polled for and nothing spins.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::{Mode, OFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::error::{SystemError, While};

/// How long the host may take to announce its ports.
const PATIENCE: Duration = Duration::from_secs(10);

/// One port. Reading and writing must happen in one task: both are woken by the same edge.
#[derive(Clone)]
pub(crate) struct Port(Rc<Shared>);

struct Shared {
    file: OwnedFd,
    edges: AsyncFd<OwnedFd>,
}

impl Port {
    /// Opens the port that the host calls `name`. At most one may be open.
    pub(super) fn open(name: &str) -> Result<Self, SystemError> {
        let device = find(name)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(&device, flags, Mode::empty()).while_(format!("open port {name}"))?;
        let edges = watch(&file).while_(format!("watch port {name}"))?;
        Ok(Self(Rc::new(Shared { file, edges })))
    }

    /// Returns once the host has its side open.
    pub(super) async fn connected(&self) -> io::Result<()> {
        let port = &self.0;
        while port.hung_up()? {
            let mut edge = port.edges.readable().await?;
            port.drain()?;
            edge.clear_ready();
        }
        Ok(())
    }
}

impl Shared {
    fn hung_up(&self) -> io::Result<bool> {
        let mut ports = [PollFd::new(&self.file, PollFlags::IN)];
        poll(&mut ports, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(ports[0].revents().contains(PollFlags::HUP))
    }

    /// Takes the edge that the epoll holds, so that the next one is seen.
    fn drain(&self) -> io::Result<()> {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 1];
        epoll::wait(self.edges.get_ref(), &mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        Ok(())
    }

    /// Ready when something about the port has changed since it was found to block.
    fn poll_edge(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut edge = std::task::ready!(self.edges.poll_read_ready(cx))?;
        self.drain()?;
        edge.clear_ready();
        // The edge may be for the other direction, which was tried before this one in the same turn.
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Port {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match rustix::io::read(&self.0.file, buffer.initialize_unfilled()) {
                Err(rustix::io::Errno::AGAIN) => std::task::ready!(self.0.poll_edge(cx))?,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
                Ok(count) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match rustix::io::write(&self.0.file, data) {
                // A closed host side looks like a full one; nobody will ever make room.
                Err(rustix::io::Errno::AGAIN) if self.0.hung_up()? => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Err(rustix::io::Errno::AGAIN) => std::task::ready!(self.0.poll_edge(cx))?,
                Err(rustix::io::Errno::INTR) => {}
                other => return Poll::Ready(other.map_err(io::Error::from)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// An epoll that holds an edge after every change of the port.
fn watch(file: &OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let edges = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let all = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::HUP | epoll::EventFlags::ET;
    epoll::add(&edges, file, epoll::EventData::new_u64(0), all)?;
    // SAFETY: an owned descriptor stays the same one, open, until the registration drops it.
    Ok(unsafe { AsyncFd::register_with_interest(edges, Interest::READABLE) }?)
}

/// The device of a port. The host announces names after the driver is loaded, so they may take a moment.
fn find(name: &str) -> Result<PathBuf, SystemError> {
    let start = Instant::now();
    loop {
        let ports = fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten();
        for port in ports {
            if fs::read_to_string(port.path().join("name")).is_ok_and(|found| found.trim_end() == name) {
                let device = PathBuf::from("/dev").join(port.file_name());
                if device.exists() {
                    return Ok(device);
                }
            }
        }
        if start.elapsed() > PATIENCE {
            return Err(io::Error::from(io::ErrorKind::NotFound)).while_(format!("find port {name}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
