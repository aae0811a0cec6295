//! Filters of system calls: programs for the kernel's classic BPF machine, seccomp(2).
//!
//! This crate knows how one is put together and installed. It must not know what is refused to whom.

use std::io;

/// An instruction of a filter.
pub type Step = libc::sock_filter;

/// `AUDIT_ARCH_X86_64`, linux/audit.h.
const ARCH: u32 = 0xc000_003e;

/// Bit of the call numbers of the x32 variant, which would be a second name for every call.
const X32: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`, linux/seccomp.h.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// A filter.
#[derive(Debug)]
pub struct Filter(Vec<Step>);

impl Filter {
    /// A filter of these rules (see [`when`]); calls that none is for are let pass. `foreign` is the answer to those of another
    /// architecture, which have other numbers.
    pub fn new(foreign: Step, rules: impl IntoIterator<Item = Vec<Step>>) -> Self {
        let mut program = vec![
            load(ARCHITECTURE),
            if_equal(ARCH, 1, 0),
            foreign,
            load(NUMBER),
            jump(libc::BPF_JGE, X32, 0, 1),
            refuse(libc::ENOSYS),
        ];
        program.extend(rules.into_iter().flatten());
        program.push(allow());
        Self(program)
    }

    /// Puts it on this process and all that it will start. It must not be able to gain privileges any more. Makes one
    /// system call and allocates nothing.
    pub fn install(&self) -> io::Result<()> {
        let len = u16::try_from(self.0.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        let program = libc::sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: the kernel copies the program during the call and does not change it.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The rule for one call. `body` ends with an answer; for other calls it is jumped over.
pub fn when(call: libc::c_long, body: &[Step]) -> Vec<Step> {
    let number = u32::try_from(call).expect("call numbers are small");
    let length = u8::try_from(body.len()).expect("bodies are short");
    std::iter::once(if_equal(number, 0, length)).chain(body.iter().copied()).collect()
}

/// Takes one of the call's arguments, counted from 0, to look at: its lower half.
pub fn argument(index: u32) -> Step {
    load(ARGUMENTS + 8 * index)
}

/// Leaves these bits alone of what is looked at.
pub fn mask(bits: u32) -> Step {
    statement(libc::BPF_ALU | libc::BPF_AND, bits)
}

/// Goes on so many steps further on if what is looked at is this, and so many if it is not.
pub fn if_equal(value: u32, yes: u8, no: u8) -> Step {
    jump(libc::BPF_JEQ, value, yes, no)
}

/// The same if it has any of these bits.
pub fn if_any(bits: u32, yes: u8, no: u8) -> Step {
    jump(libc::BPF_JSET, bits, yes, no)
}

/// The answer that the call may be made.
pub fn allow() -> Step {
    statement(libc::BPF_RET, libc::SECCOMP_RET_ALLOW)
}

/// The answer that the call fails with this error, before the kernel's code for it is reached.
pub fn refuse(errno: i32) -> Step {
    statement(libc::BPF_RET, libc::SECCOMP_RET_ERRNO | errno.unsigned_abs())
}

/// The answer that ends the process.
pub fn kill() -> Step {
    statement(libc::BPF_RET, libc::SECCOMP_RET_KILL_PROCESS)
}

fn load(offset: u32) -> Step {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn statement(code: u32, k: u32) -> Step {
    Step { code: u16::try_from(code).expect("codes have 16 bits"), jt: 0, jf: 0, k }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> Step {
    let code = u16::try_from(libc::BPF_JMP | test | libc::BPF_K).expect("codes have 16 bits");
    Step { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_with(call: libc::c_long, argument: libc::c_long) -> Option<i32> {
        // SAFETY: neither call that is tried touches memory.
        let outcome = unsafe { libc::syscall(call, argument) };
        (outcome == -1).then(|| io::Error::last_os_error().raw_os_error().unwrap())
    }

    #[test]
    fn a_rule_is_for_its_call_alone() {
        let body =
            [argument(0), if_equal(7, 0, 1), refuse(libc::EXDEV), if_any(8, 0, 1), refuse(libc::EXFULL), allow()];
        let filter =
            Filter::new(kill(), [when(libc::SYS_close, &body), when(libc::SYS_getppid, &[refuse(libc::EPERM)])]);
        // A filter is that of the thread that installs it.
        let outcomes = std::thread::spawn(move || {
            // SAFETY: touches no memory.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
            filter.install().unwrap();
            [7, 1 << 20 | 8, 1 << 20]
                .map(|number| refused_with(libc::SYS_close, number))
                .into_iter()
                .chain([refused_with(libc::SYS_getppid, 0), refused_with(libc::SYS_getpid, 0)])
                .collect::<Vec<_>>()
        });
        let expected = [Some(libc::EXDEV), Some(libc::EXFULL), Some(libc::EBADF), Some(libc::EPERM), None];
        assert_eq!(outcomes.join().unwrap(), expected);
    }
}
