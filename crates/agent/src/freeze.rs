//! Holding the VM's disk still while the manager copies it.
//!
//! A copy of the agent does it: a disk can take its time, and the agent has one thread. The copy lets go when it is told
//! to, or by itself when it has waited too long, so that neither a manager that died nor an agent that waits for the
//! frozen disk itself can hold the user's programs up for good.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

use http::StatusCode;
use rds_protocol::guest::Thawed;
use rds_protocol::limits::FROZEN_SECONDS;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::oneshot;

use crate::agent::Vm;
use crate::pipe;
use crate::reaper::Ended;
use crate::reply::Refusal;
use crate::sandbox::fork;

/// `FIFREEZE` and `FITHAW`, linux/fs.h.
const FREEZE: libc::Ioctl = 0xc004_5877;
const THAW: libc::Ioctl = 0xc004_5878;

/// A process that holds the disk still.
pub(crate) struct Frozen {
    /// Anything that is written here makes it let go.
    order: Sender,
    /// It says here when the disk is frozen, and how long it was.
    news: Receiver,
}

impl Vm {
    /// Returns when what was written is on the disk, and nothing more gets there.
    pub(crate) async fn freeze(self: &Rc<Self>) -> Result<(), Refusal> {
        // Of a manager that did not live to thaw it.
        let left = self.frozen.take();
        if let Some(frozen) = left {
            frozen.release().await;
        }
        let pipes = || io::Result::Ok((pipe::input()?, pipe::output()?));
        let ((orders, order), (teller, news)) = pipes().map_err(Refusal::internal)?;
        let disk = &self.sandbox.tree.disk;
        let keep = [disk, &orders, &teller].map(AsRawFd::as_raw_fd);
        let copy = fork(None, &keep, || hold(disk, &orders, &teller)).map_err(Refusal::internal)?;
        self.count_until(self.keepers.reaper.watch(copy));
        drop((orders, teller));
        let mut frozen = Frozen { order, news };
        let said = frozen.news.read_u8().await;
        if said.is_err() {
            return Err(Refusal::internal("the disk could not be frozen"));
        }
        self.frozen.replace(Some(frozen));
        Ok(())
    }

    /// Lets programs write again.
    pub(crate) async fn thaw(&self) -> Result<Thawed, Refusal> {
        let refused = || Refusal::new(StatusCode::CONFLICT, "the disk is not frozen");
        let frozen = self.frozen.take().ok_or_else(refused)?;
        let frozen_us = frozen.release().await;
        Ok(Thawed { frozen_us: frozen_us.ok_or_else(refused)? })
    }

    /// Counts a copy that may hold the disk for as long as it lives: whoever asked for it may give up, and another one may come.
    fn count_until(self: &Rc<Self>, end: oneshot::Receiver<Ended>) {
        self.freezing.set(self.freezing.get() + 1);
        let vm = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let _ = end.await;
            vm.freezing.set(vm.freezing.get() - 1);
        });
    }
}

impl Frozen {
    /// Has the disk let go and gives how long it was frozen, in microseconds; `None` if that had ended before.
    async fn release(mut self) -> Option<u64> {
        // It may have ended.
        let _ = self.order.write_all(&[1]).await;
        self.news.read_u64().await.ok()
    }
}

/// What the copy does.
fn hold(disk: &OwnedFd, order: &OwnedFd, news: &OwnedFd) -> i32 {
    // Most is written while programs still can.
    if rustix::fs::syncfs(disk).is_err() {
        return 1;
    }
    let begun = Instant::now();
    if control(disk, FREEZE).is_err() {
        return 1;
    }
    let mut orders = [PollFd::new(order, PollFlags::IN)];
    let told = rustix::io::write(news, &[1]).is_ok()
        && poll(&mut orders, Some(&Timespec { tv_sec: FROZEN_SECONDS.cast_signed(), tv_nsec: 0 })).is_ok()
        && orders[0].revents().contains(PollFlags::IN);
    if control(disk, THAW).is_ok() && told {
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let _ = rustix::io::write(news, &micros.to_be_bytes());
    }
    0
}

fn control(disk: &OwnedFd, what: libc::Ioctl) -> io::Result<()> {
    // SAFETY: neither request reads or writes memory of ours.
    match unsafe { libc::ioctl(disk.as_raw_fd(), what, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
