//! Values that came from a guest or a client, and may be large.

use std::io::{self, Write};

use std::sync::LazyLock;
use std::thread::available_parallelism;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::error::{Error, Result};

/// Bytes of JSON above which work on a value is not for a thread that serves others.
const LARGE: usize = 20_000;

/// Held by long work. A value may take a hundred times the memory of its text; so it is read by the work, and no more of them
/// are there than can be worked on at once.
static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(available_parallelism().map_or(2, |processors| processors.get().max(2))));

/// Does work on a value: away from the threads that serve calls if it may take `long`, which can be seconds. It goes on to its
/// end when nobody waits for it any more. Must not be called by such work.
pub(super) async fn work<T: Send + 'static>(long: bool, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if !long {
        return Ok(work());
    }
    let ended = |error| Error::internal("the task that works on a large value ended", error);
    let turn = TURNS.acquire().await.map_err(|error| Error::internal("no turns are given out", error))?;
    let work = move || {
        let _turn = turn;
        work()
    };
    spawn_blocking(work).await.map_err(ended)
}

/// Whether reading a text of so many bytes may take long.
pub(super) fn is_long(bytes: usize) -> bool {
    bytes > LARGE
}

/// Whether looking at all of a value may take long. It is itself looked at no further than that.
pub(super) fn is_large(value: &impl Serialize) -> bool {
    serde_json::to_writer(Count { bytes: 0, most: LARGE }, value).is_err()
}

/// Counts what is written to it, up to a limit.
struct Count {
    bytes: usize,
    most: usize,
}

impl Write for Count {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.bytes += data.len();
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
    fn what_has_many_bytes_is_large() {
        let text = |bytes: usize| Value::String("x".repeat(bytes - 2));
        assert!(!is_large(&text(LARGE)) && is_large(&text(LARGE + 1)));
        assert!(!is_long(LARGE) && is_long(LARGE + 1));
        assert!(is_large(&vec![1; LARGE]) && !is_large(&json!({})));
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
