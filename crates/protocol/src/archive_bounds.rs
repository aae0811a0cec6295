//! Bounds for reading archives that come from outside.

use std::io::{self, Read};

/// Bytes of a long name or of extended attributes: far more than Linux's longest path (4096) needs.
pub const LONGEST_NAME: u64 = 64 * 1024;

/// Ends a decompression bomb: more than so many bytes are an error.
pub struct Bounded<R> {
    inner: R,
    left: u64,
    refusal: String,
}

impl<R> Bounded<R> {
    /// `refusal` is the error's text.
    pub fn new(inner: R, bytes: u64, refusal: String) -> Self {
        Self { inner, left: bytes, refusal }
    }

    /// Bytes that may still be read.
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let left = self.left.checked_sub(count as u64);
        self.left = left.ok_or_else(|| io::Error::other(self.refusal.clone()))?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bomb_ends_early() {
        let mut exact = Bounded::new(io::repeat(0).take(1 << 20), 1 << 20, String::new());
        assert_eq!(io::copy(&mut exact, &mut io::sink()).unwrap(), 1 << 20);
        assert_eq!(exact.left(), 0);
        let error =
            io::copy(&mut Bounded::new(io::repeat(0), 1 << 20, "too much".into()), &mut io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "too much");
    }
}
