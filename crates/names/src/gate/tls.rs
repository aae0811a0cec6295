//! TLS: the first message is read, and passed on as it was. Nothing is decrypted, and nothing later is looked at.

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::hello::{Hello, MAX_HELLO, Reader};
use super::{HEAD_LIMIT, Passage, end_well};
use crate::report::Refusal;

pub(super) async fn pass(passage: &Passage, mut guest: TcpStream) -> Result<(), Refusal> {
    let (head, name) = timeout(HEAD_LIMIT, head(&mut guest)).await.unwrap_or(Err(Refusal::NotUnderstood))?;
    let name = passage.check(name)?;
    // A server that cannot be reached is no refusal: the guest sees a reset, as it may from any server.
    let Ok(mut world) = passage.connect().await else { return Ok(()) };
    if world.write_all(&head).await.is_err() {
        return Ok(());
    }
    tokio::select! {
        () = passage.guest.withdrawn(std::slice::from_ref(&name)) => {}
        copied = copy_bidirectional(&mut guest, &mut world) => if copied.is_ok() {
            end_well(&SockRef::from(&guest));
        }
    }
    Ok(())
}

async fn head(stream: &mut TcpStream) -> Result<(Vec<u8>, crate::HostName), Refusal> {
    let (mut bytes, mut reader) = (Vec::with_capacity(2048), Reader::default());
    loop {
        let room = (MAX_HELLO + 1).saturating_sub(bytes.len());
        let read = (&mut *stream).take(room as u64).read_buf(&mut bytes).await;
        if !matches!(read, Ok(1..)) {
            return Err(Refusal::NotUnderstood);
        }
        match reader.read(&bytes) {
            Hello::Incomplete => {}
            Hello::To(name) => return Ok((bytes, name)),
            Hello::Refused(why) => return Err(why),
        }
    }
}
