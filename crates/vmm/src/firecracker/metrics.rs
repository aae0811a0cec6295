//! What a monitor counts, which it writes into a pipe once a minute.
//!
//! The pipe is all the room that there is for it: what nobody reads is dropped, by the kernel if not by the monitor. It lies
//! in the machine's directory and outlives the manager.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use serde::Deserialize;

use crate::hypervisor::Counts;

/// Bytes that are read at a time: the most that a pipe holds by itself. A line has some 12 KB.
const PIPE_BYTES: u64 = 64 * 1024;

/// Makes the pipe, unless it is there.
pub(super) fn make(path: &Path) -> io::Result<()> {
    match mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
        Err(rustix::io::Errno::EXIST) if std::fs::symlink_metadata(path)?.file_type().is_fifo() => Ok(()),
        made => Ok(made?),
    }
}

/// All that was written since the last time; nothing if there is no pipe.
pub(super) fn take(path: &Path) -> io::Result<Counts> {
    let flags = i32::try_from(OFlags::NONBLOCK.union(OFlags::NOFOLLOW).bits()).map_err(io::Error::other)?;
    let pipe = match File::options().read(true).custom_flags(flags).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Counts::default()),
        opened => opened?,
    };
    let mut written = Vec::new();
    match pipe.take(PIPE_BYTES).read_to_end(&mut written) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Ok(written.split(|byte| *byte == b'\n').filter_map(parse).fold(Counts::default(), Counts::plus)),
    }
}

/// A line of Firecracker's metrics, as far as we want to know them: each number is what came since the line before, and a
/// forbidden call is the last thing that a monitor tells of. What is no such line, or was cut off, counts for nothing.
fn parse(line: &[u8]) -> Option<Counts> {
    #[derive(Deserialize)]
    struct Line {
        block: Block,
        net: Net,
        vsock: Vsock,
        vcpu: Vcpu,
        seccomp: Seccomp,
    }
    #[derive(Deserialize)]
    struct Block {
        read_bytes: u64,
        write_bytes: u64,
        event_fails: u64,
        execute_fails: u64,
        invalid_reqs_count: u64,
    }
    #[derive(Deserialize)]
    struct Net {
        event_fails: u64,
        rx_fails: u64,
        tx_fails: u64,
        tx_malformed_frames: u64,
        tx_spoofed_mac_count: u64,
    }
    #[derive(Deserialize)]
    struct Vsock {
        rx_bytes_count: u64,
        tx_bytes_count: u64,
        muxer_event_fails: u64,
        conn_event_fails: u64,
        rx_queue_event_fails: u64,
        tx_queue_event_fails: u64,
        ev_queue_event_fails: u64,
    }
    #[derive(Deserialize)]
    struct Vcpu {
        failures: u64,
    }
    #[derive(Deserialize)]
    struct Seccomp {
        num_faults: u64,
    }
    let Line { block, net, vsock, vcpu, seccomp } = serde_json::from_slice(line).ok()?;
    let sum = |numbers: &[u64]| numbers.iter().fold(0, |sum: u64, number| sum.saturating_add(*number));
    Some(Counts {
        disk_read: block.read_bytes,
        disk_written: block.write_bytes,
        channel_in: vsock.rx_bytes_count,
        channel_out: vsock.tx_bytes_count,
        disk_faults: sum(&[block.event_fails, block.execute_fails, block.invalid_reqs_count]),
        network_faults: sum(&[
            net.event_fails,
            net.rx_fails,
            net.tx_fails,
            net.tx_malformed_frames,
            net.tx_spoofed_mac_count,
        ]),
        channel_faults: sum(&[
            vsock.muxer_event_fails,
            vsock.conn_event_fails,
            vsock.rx_queue_event_fails,
            vsock.tx_queue_event_fails,
            vsock.ev_queue_event_fails,
        ]),
        processor_faults: vcpu.failures,
        forbidden_calls: seccomp.num_faults,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const LINE: &str = r#"{"utc_timestamp_ms":1,"block":{"read_bytes":10,"write_bytes":20,"event_fails":1,"execute_fails":0,
"invalid_reqs_count":0,"other":{"sum":1}},"block_disk":{},"net":{"event_fails":0,"rx_fails":0,"tx_fails":0,
"tx_malformed_frames":0,"tx_spoofed_mac_count":3},"vsock":{"rx_bytes_count":5,"tx_bytes_count":6,"muxer_event_fails":0,
"conn_event_fails":0,"rx_queue_event_fails":0,"tx_queue_event_fails":0,"ev_queue_event_fails":2},"vcpu":{"failures":4},
"seccomp":{"num_faults":0}}"#;

    #[test]
    fn lines_are_added_up_and_nonsense_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics");
        assert_eq!(take(&path).unwrap(), Counts::default());
        make(&path).unwrap();
        make(&path).unwrap();
        assert_eq!(take(&path).unwrap(), Counts::default());
        let line = LINE.replace('\n', "");
        let mut monitor = File::options().read(true).write(true).open(&path).unwrap();
        write!(monitor, "{line}\nnonsense\n{{\"block\":{{}}}}\n{line}\n{{\"block\":").unwrap();
        let one = parse(line.as_bytes()).unwrap();
        assert_eq!((one.disk_read, one.disk_written, one.channel_in, one.channel_out), (10, 20, 5, 6));
        assert_eq!((one.disk_faults, one.network_faults, one.channel_faults, one.processor_faults), (1, 3, 2, 4));
        assert_eq!(take(&path).unwrap(), one.plus(one));
        assert_eq!(take(&path).unwrap(), Counts::default(), "it was taken");
    }

    #[test]
    fn numbers_do_not_overflow_and_a_link_is_not_followed() {
        let most = Counts { disk_read: u64::MAX, ..Counts::default() };
        assert_eq!(most.plus(most).disk_read, u64::MAX);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics");
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(take(&path).is_err() && make(&path).is_err());
    }
}
