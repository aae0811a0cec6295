//! Virtio-serial ports, each found by its name, and always the same stream.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::stream::Stream;
use crate::error::{SystemError, While};

/// How long the host may take to announce its ports.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the port that the host calls `name`. At most one may be open.
pub(super) fn open(name: &str) -> Result<Stream, SystemError> {
    let device = find(name)?;
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(&device, flags, Mode::empty()).while_(format!("open port {name}"))?;
    Stream::new(file).while_(format!("watch port {name}"))
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
