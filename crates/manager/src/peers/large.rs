//! Values that came from a guest or a client, and may be large.

use std::io::{self, Write};

use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::error::{Error, Result};

/// Bytes of JSON above which work on a value is not for a thread that serves others.
const LARGE: u64 = 20_000;

/// Does work on a value: away from the threads that serve calls if it may take `long`, which can be seconds.
pub(super) async fn work<T: Send + 'static>(long: bool, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if !long {
        return Ok(work());
    }
    spawn_blocking(work).await.map_err(|error| Error::internal("the task that works on a large value ended", error))
}

/// Whether looking at all of a value may take long. It is itself looked at no further than that.
pub(super) fn is_large(value: &impl Serialize) -> bool {
    serde_json::to_writer(Count { bytes: 0, most: LARGE }, value).is_err()
}

/// Bytes of a value's JSON.
pub(super) fn json_bytes(value: &impl Serialize) -> u64 {
    let mut count = Count { bytes: 0, most: u64::MAX };
    // Values have string keys only, and counting does not fail.
    let _ = serde_json::to_writer(&mut count, value);
    count.bytes
}

/// Counts what is written to it, up to a limit.
struct Count {
    bytes: u64,
    most: u64,
}

impl Write for Count {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.bytes += data.len() as u64;
        if self.bytes > self.most { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(data.len()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn sizes_are_those_of_the_text() {
        let value = json!({"a": [1, "ü\n"]});
        assert_eq!(json_bytes(&value), value.to_string().len() as u64);
    }

    #[test]
    fn what_has_many_bytes_is_large() {
        let text = |bytes: usize| Value::String("x".repeat(bytes - 2));
        let most = usize::try_from(LARGE).unwrap();
        assert!(!is_large(&text(most)) && is_large(&text(most + 1)));
        assert!(is_large(&vec![1; most]) && !is_large(&json!({})));
    }

    #[tokio::test]
    async fn long_work_is_done_on_another_thread() {
        let here = thread::current().id();
        let there = || thread::current().id();
        assert_eq!(work(false, there).await.unwrap(), here);
        assert_ne!(work(true, there).await.unwrap(), here);
        assert!(work(true, || panic!("the work fails")).await.is_err());
    }
}
