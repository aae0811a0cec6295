//! Names that nobody can guess.

/// 32 hex digits from the kernel's random source.
pub(crate) fn name() -> String {
    let mut bytes = [0; 16];
    // The source is seeded before a program can be run, and 16 bytes are never given in part (getrandom(2)).
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).expect("the kernel has a random source");
    format!("{:032x}", u128::from_ne_bytes(bytes))
}
