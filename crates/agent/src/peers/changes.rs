//! Noticing that a provider's code has changed, before the next call is made: the kernel has queued an event by the time
//! that the write is over (fanotify(7)).

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use crate::sandbox::disk::{DISK, HOME};

/// linux/fanotify.h: report the directory and the name; do not block; close on exec.
const INIT_FLAGS: libc::c_uint = 0x0c00 | 0x2 | 0x1;
const MARK_FILESYSTEM: libc::c_uint = 0x101;
const CLOSE_WRITE: u64 = 0x8;
const MOVED: u64 = 0x40 | 0x80;
const CREATE: u64 = 0x100;
const DELETE: u64 = 0x200;
const OVERFLOW: u64 = 0x4000;
const ON_DIRECTORY: u64 = 0x4000_0000;

/// Length of the fixed part of an event, and of what is before the file handle and the name in its record.
const METADATA: usize = 24;
const RECORD: usize = 12;
const HANDLE: usize = 8;

/// Endings of files that a program is made of.
const CODE: [&str; 10] = ["ts", "mts", "cts", "tsx", "js", "mjs", "cjs", "jsx", "json", "wasm"];

/// Watches the VM's disk.
pub(super) struct Changes {
    events: OwnedFd,
    disk: OwnedFd,
}

/// One event: what happened, in which directory, to which name.
struct Event<'a> {
    mask: u64,
    handle: &'a [u8],
    name: &'a [u8],
}

impl Changes {
    /// Notices what happens from now on.
    pub(super) fn watch() -> io::Result<Self> {
        // SAFETY: makes a descriptor that nobody else owns, or fails.
        let events = unsafe {
            match libc::fanotify_init(INIT_FLAGS, 0) {
                -1 => return Err(io::Error::last_os_error()),
                number => OwnedFd::from_raw_fd(number),
            }
        };
        let disk = OwnedFd::from(std::fs::File::open(DISK)?);
        let mask = CLOSE_WRITE | MOVED | CREATE | DELETE | ON_DIRECTORY;
        // SAFETY: the path is that of the descriptor, which is open.
        let outcome =
            unsafe { libc::fanotify_mark(events.as_raw_fd(), MARK_FILESYSTEM, mask, disk.as_raw_fd(), c".".as_ptr()) };
        if outcome == 0 { Ok(Self { events, disk }) } else { Err(io::Error::last_os_error()) }
    }

    /// Whether code has changed since this was last asked.
    pub(super) fn seen(&self) -> bool {
        let (mut seen, mut buffer) = (false, [MaybeUninit::<u8>::uninit(); 8192]);
        while let Ok((filled, _)) = rustix::io::read(&self.events, &mut buffer[..])
            && !filled.is_empty()
        {
            let mut rest = &*filled;
            while let Some((event, behind)) = split(rest) {
                // One is enough; the others need only be taken.
                seen = seen || self.concerns(&event);
                rest = behind;
            }
        }
        seen
    }

    fn concerns(&self, event: &Event<'_>) -> bool {
        if event.mask & OVERFLOW != 0 {
            return true;
        }
        let directory = event.mask & ON_DIRECTORY != 0;
        let relevant = if directory { event.mask & MOVED != 0 } else { is_code(event.name) };
        relevant && self.is_users(event.handle)
    }

    /// Whether a directory is among the user's files where code may lie. One that has gone meanwhile may have been.
    fn is_users(&self, handle: &[u8]) -> bool {
        let mut handle = handle.to_vec();
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        // SAFETY: the kernel gave this handle, its length is in it, and the copy outlives the call; a descriptor that
        // is made is owned by nobody else.
        let directory = unsafe {
            let pointer = handle.as_mut_ptr();
            match libc::syscall(libc::SYS_open_by_handle_at, self.disk.as_raw_fd(), pointer, flags) {
                number if number >= 0 => OwnedFd::from_raw_fd(i32::try_from(number).unwrap_or(-1)),
                _ => return true,
            }
        };
        let path = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd()));
        path.is_ok_and(|path| {
            // What the runtimes cache for other programs is none of the modules' code.
            path.strip_prefix(Path::new(DISK).join(HOME)).is_ok_and(|below| !below.starts_with(".cache"))
        })
    }
}

/// Takes the first event from what was read.
fn split(bytes: &[u8]) -> Option<(Event<'_>, &[u8])> {
    let number = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let length = number(0)? as usize;
    let mask = u64::from_ne_bytes(bytes.get(8..16)?.try_into().ok()?);
    let (event, rest) = bytes.split_at_checked(length)?;
    let handle_start = METADATA + RECORD;
    let handle_length = number(handle_start).map_or(0, |bytes| bytes as usize) + HANDLE;
    let handle = event.get(handle_start..handle_start + handle_length).unwrap_or_default();
    let name = event.get(handle_start + handle_length..).and_then(|name| CStr::from_bytes_until_nul(name).ok());
    Some((Event { mask, handle, name: name.unwrap_or_default().to_bytes() }, rest))
}

fn is_code(name: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    // Inline scripts come and go with every run.
    !name.starts_with(".rds-") && name.rsplit_once('.').is_some_and(|(_, ending)| CODE.contains(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_is_made_of_is_code() {
        for name in ["a.ts", "index.mjs", "package.json", "x.test.js"] {
            assert!(is_code(name.as_bytes()), "{name}");
        }
        for name in ["", "ts", "a.txt", ".rds-0123.ts", "a.ts~", "a"] {
            assert!(!is_code(name.as_bytes()), "{name}");
        }
        assert!(!is_code(b"\xff.ts"));
    }

    #[test]
    fn events_are_taken_one_by_one() {
        let mut bytes = Vec::new();
        for name in [&b"a.ts\0"[..], b"longer.js\0\0\0"] {
            let length = METADATA + RECORD + HANDLE + 4 + name.len();
            bytes.extend(u32::try_from(length).unwrap().to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(CLOSE_WRITE.to_ne_bytes());
            bytes.extend([0; 8 + RECORD]);
            bytes.extend(4_u32.to_ne_bytes());
            bytes.extend([9; 8]);
            bytes.extend(name);
        }
        let (first, rest) = split(&bytes).unwrap();
        assert_eq!((first.mask, first.handle.len(), first.name), (CLOSE_WRITE, 12, &b"a.ts"[..]));
        let (second, rest) = split(rest).unwrap();
        assert_eq!((second.name, rest.len()), (&b"longer.js"[..], 0));
        assert!(split(&bytes[..30]).is_none() && split(b"").is_none());
    }
}
