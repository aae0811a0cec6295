//! Bringing a byte stream between host and guest to a known state.
//!
//! A virtio-serial port is one endless stream: when the manager is killed and comes back, the guest may have sent half a
//! message to nobody, and may be waiting for the rest of one. So before HTTP/2 begins, the host sends a *greeting*: a
//! magic string and a nonce, until the guest echoes the nonce. Whatever else either side reads meanwhile is left over
//! from before and is dropped.
//!
//! A guest that still takes the stream for the old HTTP/2 connection meets a frame of impossible length in the greeting,
//! gives the connection up and listens for greetings again. If it was in the middle of a frame, the greeting could be
//! swallowed as that frame's payload; hence every repetition is led by more zero bytes than HTTP/2's largest frame.

use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

const MAGIC: &[u8; 8] = b"RDSLINK1";
const NONCE: usize = 16;

/// More than the largest HTTP/2 frame that either side accepts (RFC 9113: 16,384 bytes of payload, 9 of header).
const FLUSH: usize = 16_384 + 9 + 1;

/// How long the host waits for an echo before it greets again. Twice as long each time: a guest that hardly gets to run
/// must not be sent more greetings than it can read.
const PATIENCE: Duration = Duration::from_millis(250);

/// The same for a guest that may only have to notice first that its last connection has ended. Until it is as long as
/// [`PATIENCE`], there are no zeros to read.
const SHORT_PATIENCE: Duration = Duration::from_millis(20);

/// How long it may get.
const MOST_PATIENCE: Duration = Duration::from_secs(4);

/// A link that could not be made.
#[derive(Debug, Error)]
pub enum LinkError {
    /// The guest did not answer in time.
    #[error("the guest did not answer the greeting in time")]
    Timeout,
    /// The stream failed or ended.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// What is known of a stream before it is greeted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// Nobody has used it: the guest has just been started or restored. One greeting is enough, however long the guest
    /// takes until it reads it.
    Fresh,
    /// An earlier manager may have left anything in it. The greeting is repeated.
    Used,
    /// The last connection was closed with nothing under way, and the guest may not have noticed yet: it takes the first
    /// greeting for a broken frame, and the second for what it is.
    Closed,
}

/// Greets the guest until it answers; afterwards the stream is at the start of an HTTP/2 connection.
///
/// `nonce` gives a fresh random value for each greeting. Nothing behind the answer is taken from the stream.
pub async fn greet<S>(
    stream: &mut S,
    history: History,
    mut nonce: impl FnMut() -> [u8; NONCE],
    limit: Duration,
) -> Result<(), LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let deadline = Instant::now() + limit;
    let mut patience = if history == History::Closed { SHORT_PATIENCE } else { PATIENCE };
    let mut flush = 0;
    loop {
        let greeting = [MAGIC.as_slice(), &nonce()].concat();
        let exchange = async {
            stream.write_all(&vec![0; flush]).await?;
            stream.write_all(&greeting).await?;
            stream.flush().await?;
            scan(stream, &greeting).await
        };
        let until = match history {
            History::Fresh => deadline,
            History::Used | History::Closed => deadline.min(Instant::now() + patience),
        };
        match timeout_at(until, exchange).await {
            Ok(answered) => return Ok(answered?),
            Err(_) if Instant::now() >= deadline => return Err(LinkError::Timeout),
            Err(_) => {
                flush = if patience < PATIENCE { 0 } else { FLUSH };
                patience = MOST_PATIENCE.min(patience * 2);
            }
        }
    }
}

/// Waits for a greeting and answers it; afterwards the stream is at the start of an HTTP/2 connection, or of another
/// greeting if the host had already lost patience: HTTP/2 then fails at once, and the guest calls this again.
pub async fn accept<S>(stream: &mut S) -> Result<(), LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    scan(stream, MAGIC).await?;
    let mut nonce = [0; NONCE];
    stream.read_exact(&mut nonce).await?;
    stream.write_all(&[MAGIC.as_slice(), &nonce].concat()).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads up to and including `pattern`, dropping what comes before it, and never a byte behind it.
async fn scan<S: AsyncRead + Unpin>(stream: &mut S, pattern: &[u8]) -> std::io::Result<()> {
    let mut window = Vec::with_capacity(2 * pattern.len());
    loop {
        // The longest end of what was read that may be the pattern's beginning.
        let start = (0..=window.len()).find(|&start| pattern.starts_with(&window[start..])).unwrap_or(window.len());
        window.drain(..start);
        let rest = pattern.len() - window.len();
        if rest == 0 {
            return Ok(());
        }
        let read = (&mut *stream).take(rest as u64).read_buf(&mut window).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    const LIMIT: Duration = Duration::from_secs(5);

    fn counting() -> impl FnMut() -> [u8; NONCE] {
        let mut count = 0;
        move || {
            count += 1;
            [count; NONCE]
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_over_on_both_sides_is_dropped() {
        let (mut host, mut guest) = duplex(64 * 1024);
        host.write_all(b"half a request RDSLINK").await.unwrap();
        guest.write_all(b"half a reply RDSLINK1 and more").await.unwrap();
        let (greeted, accepted) = tokio::join!(greet(&mut host, History::Used, counting(), LIMIT), accept(&mut guest));
        greeted.unwrap();
        accepted.unwrap();
        host.write_all(b"PRI").await.unwrap();
        let mut first = [0; 3];
        guest.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"PRI");
    }

    /// The old HTTP/2 connection swallows the first greeting as the rest of a frame, then meets zeros and gives up.
    #[tokio::test(start_paused = true)]
    async fn a_guest_in_the_middle_of_a_frame_is_reached() {
        let (mut host, mut guest) = duplex(64 * 1024);
        let old_connection = async {
            let mut rest = vec![0; 16_384];
            guest.read_exact(&mut rest).await.unwrap();
            accept(&mut guest).await.unwrap();
        };
        let (greeted, ()) = tokio::join!(greet(&mut host, History::Used, counting(), LIMIT), old_connection);
        greeted.unwrap();
    }

    /// The guest still has the old connection: it drops the first greeting.
    #[tokio::test(start_paused = true)]
    async fn a_guest_that_has_not_noticed_an_end_is_reached_soon() {
        let (mut host, mut guest) = duplex(64 * 1024);
        let old_connection = async {
            let mut frame = [0; MAGIC.len() + NONCE];
            guest.read_exact(&mut frame).await.unwrap();
            accept(&mut guest).await.unwrap();
        };
        let begun = Instant::now();
        let (greeted, ()) = tokio::join!(greet(&mut host, History::Closed, counting(), LIMIT), old_connection);
        greeted.unwrap();
        assert!(begun.elapsed() < PATIENCE);
    }

    #[tokio::test]
    async fn a_scan_ends_right_behind_the_pattern() {
        for before in ["", "R", "RDSLINK", "RDSRDSLINK", "RDSLINKRDSLINK0", "xxRDSLINK0RDSLINK"] {
            let text = format!("{before}RDSLINK1rest");
            let mut stream = text.as_bytes();
            scan(&mut stream, MAGIC).await.unwrap();
            assert_eq!(stream, b"rest", "{before}");
        }
        assert!(scan(&mut b"RDSLINK".as_slice(), MAGIC).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_stream_is_greeted_once_however_slow_the_guest() {
        let (mut host, mut guest) = duplex(64 * 1024);
        let slow = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            accept(&mut guest).await.unwrap();
            guest.write_all(b"x").await.unwrap();
        };
        let (greeted, ()) = tokio::join!(greet(&mut host, History::Fresh, counting(), LIMIT), slow);
        greeted.unwrap();
        assert_eq!(host.read_u8().await.unwrap(), b'x');
        drop(host);
        assert!(accept(&mut guest).await.is_err(), "nothing was left in the stream");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_guest_is_given_up() {
        let (mut host, _guest) = duplex(64 * 1024);
        let greeted = greet(&mut host, History::Used, counting(), LIMIT).await;
        assert!(matches!(greeted, Err(LinkError::Timeout)));
    }
}
