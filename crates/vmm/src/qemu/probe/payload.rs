//! A guest of a few hundred bytes that tells whether a processor can run real ones.
//!
//! It is an ELF file with a PVH entry, started like a kernel: in 32-bit mode without paging. It checks what every
//! distribution's kernel needs and some broken KVM setups lack, does it, and writes a number to QEMU's debug-exit port.

use std::arch::global_asm;

/// Port of QEMU's `isa-debug-exit`; the process ends with the status `number << 1 | 1`.
pub(super) const PORT: u16 = 0xf4;

/// Number that is written when all went well.
const GOOD: i32 = 0x2a;

/// What the exit status of a QEMU that ran the payload means; `Err` says what went wrong.
pub(super) fn verdict(status: Option<i32>) -> Result<(), String> {
    let lacking = match status.map(|status| status >> 1) {
        Some(GOOD) => return Ok(()),
        Some(1) => "its processor has no 64-bit mode",
        Some(2) => "its processor has no CMPXCHG16B",
        Some(3) => "its processor has no XSAVE",
        Some(4) => "CMPXCHG16B does not work in it",
        _ => "a guest died in it",
    };
    Err(format!("/dev/kvm is there, but {lacking}"))
}

/// The ELF file.
pub(super) fn elf() -> &'static [u8] {
    // SAFETY: both symbols are defined below, in one read-only section, the second behind the first; what lies between
    // them is initialised and never changes.
    unsafe {
        let (start, end) = (&raw const rds_probe_start, &raw const rds_probe_end);
        std::slice::from_raw_parts(start, end.offset_from_unsigned(start))
    }
}

unsafe extern "C" {
    static rds_probe_start: u8;
    static rds_probe_end: u8;
}

global_asm!(
    r#"
    .pushsection .rodata.rds_probe, "a", @progbits
    .set BASE, 0x100000           # where the file is loaded, as a whole
    .set TABLES, BASE + 0x1000    # three page tables, then data; zeros
    .set DATA, BASE + 0x4000
    .balign 16
    .global rds_probe_start
    .global rds_probe_end
    rds_probe_start:
    # ELF header
    .byte 0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0
    .quad 0
    .short 2, 62                  # executable, x86-64
    .long 1
    .quad BASE + 4f - rds_probe_start
    .quad 2f - rds_probe_start, 0
    .long 0
    .short 64, 56, 2, 64, 0, 0
    2:                            # program headers: the file, the note
    .long 1, 7
    .quad 0, BASE, BASE, rds_probe_end - rds_probe_start, 0x6000, 0x1000
    .long 4, 4
    .quad 3f - rds_probe_start, BASE + 3f - rds_probe_start, BASE + 3f - rds_probe_start, 24, 24, 4
    3:                            # the note that names the 32-bit entry
    .long 4, 8, 18
    .byte 0x58, 0x65, 0x6e, 0
    .quad BASE + 4f - rds_probe_start

    .code32
    4:
    mov edi, 1
    mov eax, 0x80000001
    cpuid
    bt edx, 29                    # long mode
    jnc 9f
    mov edi, 2
    mov eax, 1
    cpuid
    bt ecx, 13                    # CMPXCHG16B
    jnc 9f
    mov edi, 3
    bt ecx, 26                    # XSAVE
    jnc 9f
    # Map the first 2 MiB and go to 64-bit mode.
    mov dword ptr [TABLES], TABLES + 0x1003
    mov dword ptr [TABLES + 0x1000], TABLES + 0x2003
    mov dword ptr [TABLES + 0x2000], 0x83
    mov eax, cr4
    or eax, 0x40220               # PAE, OSFXSR, OSXSAVE
    mov cr4, eax
    mov eax, TABLES
    mov cr3, eax
    mov ecx, 0xc0000080           # EFER
    rdmsr
    or eax, 0x100                 # LME
    wrmsr
    mov eax, cr0
    or eax, 0x80000000            # PG
    mov cr0, eax
    .byte 0xb8                    # mov eax, the table below
    .long BASE + 7f - rds_probe_start
    lgdt [eax]
    .byte 0xea                    # far jump to 64-bit code
    .long BASE + 5f - rds_probe_start
    .short 8

    .code64
    5:
    xor ecx, ecx
    xor edx, edx
    mov eax, 3                    # x87 and SSE state
    xsetbv
    mov edi, DATA
    xsave [rdi]
    mov edi, 4
    mov esi, DATA + 0x1000
    xor eax, eax
    xor edx, edx
    mov ebx, 0x1234
    mov ecx, 0x5678
    lock cmpxchg16b [rsi]
    jnz 9f
    cmp qword ptr [rsi + 8], rcx
    jne 9f
    mov edi, {good}
    9:                            # these instructions mean the same in both modes
    mov eax, edi
    mov edx, {port}
    out dx, al
    8:
    hlt
    jmp 8b

    .balign 8
    6:
    .quad 0, 0x00af9a000000ffff   # a flat 64-bit code segment
    7:
    .short 15
    .long BASE + 6b - rds_probe_start
    rds_probe_end:
    .popsection
    "#,
    good = const GOOD,
    port = const PORT,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_meaning() {
        let told: Vec<_> = [85, 3, 5, 7, 9, 0, 1].map(|status| format!("{:?}", verdict(Some(status)))).into();
        insta::assert_snapshot!(told.join("\n"));
        assert!(verdict(None).is_err(), "ended by a signal");
    }
}
