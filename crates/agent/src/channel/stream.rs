//! A byte stream to the manager, as a file that may be a virtio-serial port or a vsock's socket.
//!
//! A port whose host side is closed reports a hang-up for as long as it stays closed, and tokio never forgets one that
//! it saw. A vsock's socket that the kernel has reset reports an error and nothing else, for which tokio wakes no reader.
//! So the file is watched, edge-triggered, by an epoll of its own, and tokio watches that: an edge comes for each change
//! (data, space, opened, closed, reset), so nothing has to be polled for and nothing spins.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::net::Shutdown;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// A look that does not wait. A signal can interrupt it all the same.
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// One stream. Reading and writing must happen in one task: both are woken by the same edge.
#[derive(Clone)]
pub(crate) struct Stream(Rc<Shared>);

struct Shared {
    file: OwnedFd,
    edges: AsyncFd<OwnedFd>,
}

impl Stream {
    /// The stream of a file that does not block.
    pub(super) fn new(file: OwnedFd) -> io::Result<Self> {
        let edges = watch(&file)?;
        Ok(Self(Rc::new(Shared { file, edges })))
    }

    /// Returns once the host has its side open.
    pub(super) async fn connected(&self) -> io::Result<()> {
        let stream = &self.0;
        while stream.hung_up()? {
            let mut edge = stream.edges.readable().await?;
            stream.drain()?;
            edge.clear_ready();
        }
        Ok(())
    }
}

impl Shared {
    /// Whether the host's side is closed.
    fn hung_up(&self) -> io::Result<bool> {
        let mut ports = [PollFd::new(&self.file, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut ports, Some(&NOW)))?;
        Ok(ports[0].revents().contains(PollFlags::HUP))
    }

    /// Takes the edge that the epoll holds, so that the next one is seen.
    fn drain(&self) -> io::Result<()> {
        rustix::io::retry_on_intr(|| {
            let mut events = [MaybeUninit::<epoll::Event>::uninit(); 1];
            epoll::wait(self.edges.get_ref(), &mut events, Some(&NOW)).map(drop)
        })?;
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

impl AsyncRead for Stream {
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

impl AsyncWrite for Stream {
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
        Poll::Ready(match rustix::net::shutdown(&self.0.file, Shutdown::Write) {
            // A serial port has no end.
            Err(rustix::io::Errno::NOTSOCK) => Ok(()),
            other => Ok(other?),
        })
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
