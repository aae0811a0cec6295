//! Starting a program that does something to itself first, at a price that does not depend on the server's size.
//!
//! For such a child the standard library copies the page tables of the whole server, and every page that is written to
//! afterwards, in any thread, takes a fault: milliseconds of each start. Here the child borrows the server's memory until
//! it is its program, as in posix_spawn(3), and the thread that starts it stands still meanwhile.

use std::ffi::{CString, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::{mem, ptr};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus, chdir, pidfd_send_signal, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Bytes of the stack that a child has until it is its program, and of the page below it that nobody may touch.
const STACK: usize = 256 * 1024;
const GUARD: usize = 4096;

/// A program that was started. It goes on when this is dropped.
#[derive(Debug)]
#[must_use = "who does not reap it leaves a zombie"]
pub(crate) struct Child {
    pid: u32,
    held: OwnedFd,
}

impl Child {
    /// Its number, which is nobody else's before it is reaped.
    pub(crate) fn id(&self) -> u32 {
        self.pid
    }

    /// Ends it at once.
    pub(crate) async fn end(self) -> io::Result<WaitIdStatus> {
        pidfd_send_signal(&self.held, Signal::KILL)?;
        self.reap().await
    }

    /// Waits for its end, and does so though nobody waits for that.
    pub(crate) fn reap(self) -> impl Future<Output = io::Result<WaitIdStatus>> {
        let reaped = tokio::spawn(async move {
            // SAFETY: an owned descriptor stays the same one, open, until the registration drops it.
            let held = unsafe { AsyncFd::register_with_interest(self.held, Interest::READABLE) }?;
            held.readable().await?.retain_ready();
            let ended = waitid(WaitId::PidFd(held.get_ref().as_fd()), WaitIdOptions::EXITED)?;
            ended.ok_or_else(|| io::ErrorKind::WouldBlock.into())
        });
        async { reaped.await? }
    }
}

/// Starts `program`, which is looked for as a shell does. It begins in `/`, without an environment, an input and any open file
/// but those that `prepare` has it inherit; each signal has its default action there, and none is blocked.
///
/// The child calls `prepare` last of all before it becomes the program. It does so in this process's memory: `prepare` may make
/// system calls, and must neither allocate, nor lock, nor change what others see. The error is its own, or why the program
/// cannot be executed. A child that changes its user makes this process one that no other of its user can look into, for
/// the memory is this one.
pub(crate) fn spawn(
    program: &Path,
    arguments: &[String],
    [stdout, stderr]: [File; 2],
    mut prepare: impl FnMut() -> io::Result<()>,
) -> io::Result<Child> {
    let words = std::iter::once(program.as_os_str()).chain(arguments.iter().map(OsStr::new));
    let words = words.map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let arguments: Vec<_> = words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect();
    let stdin = File::open("/dev/null")?;
    let stack = Stack::new()?;
    let mut birth = Birth {
        arguments: &arguments,
        files: [&stdin, &stdout, &stderr].map(|file| file.as_raw_fd()),
        prepare: &mut prepare,
        error: None,
    };
    let mut held: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let argument = (&raw mut birth).cast::<c_void>();
    let blocked = Blocked::all();
    // SAFETY: the stack is the child's alone. `birth` and `held` live longer than the child in this memory: the call returns
    // when it has become its program or ended. Until then no other thread touches them, and none of this process's handlers
    // of signals runs in it: all are blocked until it has none.
    let pid = unsafe { libc::clone(be_born, stack.top(), flags, argument, &raw mut held) };
    let failed = (pid < 0).then(io::Error::last_os_error);
    drop(blocked);
    if let Some(error) = failed {
        return Err(error);
    }
    // SAFETY: the kernel has just opened it for this process.
    let child = Child { pid: pid.unsigned_abs(), held: unsafe { OwnedFd::from_raw_fd(held) } };
    match birth.error {
        None => Ok(child),
        Some(error) => {
            // It has ended already.
            waitid(WaitId::PidFd(child.held.as_fd()), WaitIdOptions::EXITED)?;
            Err(io::Error::from_raw_os_error(error))
        }
    }
}

/// What a child needs to become its program.
struct Birth<'a> {
    /// The first is the program; a null pointer ends them.
    arguments: &'a [*const c_char],
    files: [RawFd; 3],
    prepare: &'a mut dyn FnMut() -> io::Result<()>,
    /// Why it could not.
    error: Option<c_int>,
}

/// All that a child does in the server's memory.
extern "C" fn be_born(birth: *mut c_void) -> c_int {
    // SAFETY: `spawn` gives the child this pointer, and does not touch what is there before the child is gone.
    let birth = unsafe { &mut *birth.cast::<Birth<'_>>() };
    let error = birth.execute();
    birth.error = Some(error.raw_os_error().unwrap_or(libc::EIO));
    1
}

impl Birth<'_> {
    /// Returns only with an error.
    fn execute(&mut self) -> io::Error {
        if let Err(error) = self.begin() {
            return error;
        }
        let nothing = [ptr::null()];
        // SAFETY: the strings and both arrays live, and each array ends with a null pointer.
        unsafe { libc::execvpe(self.arguments[0], self.arguments.as_ptr(), nothing.as_ptr()) };
        io::Error::last_os_error()
    }

    fn begin(&mut self) -> io::Result<()> {
        // SAFETY: it is plain data, for which zeros are: the default action, with no flags.
        let default: libc::sigaction = unsafe { mem::zeroed() };
        for signal in 1..=libc::SIGRTMAX() {
            // Refused for those that have no other action. The actions are this process's own, unlike the memory.
            // SAFETY: it reads one valid structure.
            unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
        }
        Blocked::none();
        for (number, file) in (0..).zip(self.files) {
            // The standard library has seen to it that the server has the first three numbers open, so no file has those.
            // SAFETY: the descriptors are this process's own copies.
            if unsafe { libc::dup2(file, number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // What this process was started with open is not the program's. Linux before 5.11 cannot do this, and passes it on.
        // SAFETY: it closes nothing now, and changes only this process's own descriptors.
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        chdir(c"/")?;
        (self.prepare)()
    }
}

/// Memory for a child's stack.
struct Stack(*mut c_void);

impl Stack {
    fn new() -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a new mapping, wherever there is room, changes no other.
        let stack = Self(unsafe { mmap_anonymous(ptr::null_mut(), GUARD + STACK, protection, flags) }?);
        // SAFETY: nobody uses it yet.
        unsafe { mprotect(stack.0, GUARD, MprotectFlags::empty()) }?;
        Ok(stack)
    }

    /// Its end, where a stack begins.
    fn top(&self) -> *mut c_void {
        self.0.wrapping_byte_add(GUARD + STACK)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and its child is gone from here.
        let _ = unsafe { munmap(self.0, GUARD + STACK) };
    }
}

/// This thread's blocked signals are all, until this is dropped.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn all() -> Self {
        // SAFETY: both sets are plain data; the second is filled in before it is read, and the calls have no other effect.
        unsafe {
            let (mut all, mut before) = (mem::zeroed(), mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self(before)
        }
    }

    /// Blocks no signal in this thread, for good.
    fn none() {
        // SAFETY: a set of plain data, with zeros for no signal.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &mem::zeroed(), ptr::null_mut()) };
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is what the kernel gave.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{getpid, getppid};
    use std::io::{Read as _, Seek as _};

    /// What a shell that was started says, and how it ends.
    async fn shell(script: &str, prepare: impl FnMut() -> io::Result<()>) -> (String, Option<i32>) {
        let mut said = tempfile::tempfile().unwrap();
        let files = [said.try_clone().unwrap(), said.try_clone().unwrap()];
        let arguments = ["-c".to_owned(), script.to_owned()];
        let child = spawn(Path::new("/bin/sh"), &arguments, files, prepare).unwrap();
        let ended = child.reap().await.unwrap();
        let mut words = String::new();
        said.rewind().unwrap();
        said.read_to_string(&mut words).unwrap();
        (words, ended.exit_status())
    }

    #[tokio::test]
    async fn a_program_begins_with_nothing_of_the_server() {
        let (words, status) =
            shell("pwd; echo ERR >&2; cat; tr '\\0' '\\n' </proc/$$/environ; exit 7", || Ok(())).await;
        assert_eq!((words.as_str(), status), ("/\nERR\n", Some(7)));
        // The standard library has the server ignore it.
        let (words, status) = shell("kill -s PIPE $$; echo ignored", || Ok(())).await;
        assert_eq!((words.as_str(), status), ("", None));
        let (words, _) = shell("while read -r line; do echo $line; done </proc/$$/status", || Ok(())).await;
        assert!(words.contains(&format!("SigBlk: {}\n", "0".repeat(16))), "{words}");
        let (words, _) = shell("ls /proc/self/fd", || Ok(())).await;
        assert_eq!(words, "0\n1\n2\n3\n", "the last is of the directory");
    }

    #[tokio::test]
    async fn what_a_child_does_first_is_done_in_it_and_seen_here() {
        let mut seen = None;
        let (words, _) = shell("umask", || {
            seen = Some((getpid(), getppid()));
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
            Ok(())
        })
        .await;
        let (child, parent) = seen.unwrap();
        assert_eq!((words.as_str(), parent), ("0027\n", Some(getpid())));
        assert_ne!(child, getpid());
    }

    #[tokio::test]
    async fn why_a_program_does_not_start_is_known() {
        let nowhere = || [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        let start = |program: &str, result: i32| {
            let prepare = || if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) };
            spawn(Path::new(program), &[], nowhere(), prepare).map(drop).unwrap_err().raw_os_error()
        };
        assert_eq!(start("/nowhere/at-all", 0), Some(libc::ENOENT));
        assert_eq!(start("nowhere-in-the-path", 0), Some(libc::ENOENT));
        assert_eq!(start("/dev/null", 0), Some(libc::EACCES));
        assert_eq!(start("/bin/true", libc::EXDEV), Some(libc::EXDEV));
        assert!(spawn(Path::new("/bin/true"), &["a\0b".into()], nowhere(), || Ok(())).is_err());
    }

    #[tokio::test]
    async fn a_child_is_ended_and_signals_are_as_before() {
        let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        let child = spawn(Path::new("sleep"), &["1000".into()], files, || Ok(())).unwrap();
        assert!(Path::new(&format!("/proc/{}", child.id())).exists());
        assert_eq!(child.end().await.unwrap().terminating_signal(), Some(libc::SIGKILL));
        let blocked = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        assert!(blocked.contains(&format!("SigBlk:\t{}\n", "0".repeat(16))), "{blocked}");
    }
}
