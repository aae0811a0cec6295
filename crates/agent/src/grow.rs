//! Giving the disk's filesystem the room that the disk has.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::error::{SystemError, While};

/// `EXT4_IOC_RESIZE_FS`, fs/ext4/ext4.h: the number of blocks that it is to have.
const RESIZE: libc::Ioctl = 0x4008_6610;

/// Where the kernel says how many sectors of 512 bytes the disk has.
const SECTORS: &str = "/sys/class/block/vdb/size";

/// A guest that was restored learns of its disk's real size a moment after it runs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Grows the mounted filesystem to `bytes`. Does nothing to one that has that size.
pub(crate) fn grow(disk: &OwnedFd, bytes: u64) -> Result<(), SystemError> {
    wait_for(bytes)?;
    let facts = rustix::fs::fstatvfs(disk).while_("look at the disk")?;
    let blocks = bytes / facts.f_bsize;
    // SAFETY: the kernel reads a number that outlives the call.
    let outcome = unsafe { libc::ioctl(disk.as_raw_fd(), RESIZE, &raw const blocks) };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).while_("grow the disk's filesystem") }
}

fn wait_for(bytes: u64) -> Result<(), SystemError> {
    let begun = Instant::now();
    loop {
        let sectors = fs::read_to_string(SECTORS).while_("read the disk's size")?;
        if sectors.trim().parse() == Ok(bytes / 512) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let other = format!("it has {} sectors", sectors.trim());
            return Err(std::io::Error::other(other)).while_("see the disk's size");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
