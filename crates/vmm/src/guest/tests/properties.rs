//! The fuzz targets' properties with random input, in every test run: no bytes of a guest panic or hang a call.

use bytes::BytesMut;
use proptest::prelude::*;
use rds_protocol::exec::AgentFrame;
use rds_protocol::frame::FrameCodec;
use rds_protocol::link::{History, accept};
use tokio::io::{AsyncWriteExt, duplex};
use tokio_util::codec::Decoder;

use super::peer::{agent, answer};
use super::{LIMIT, shell};
use crate::guest::{GuestClient, GuestError};

/// Bytes that look like frames more often than chance would make them.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![Just(0x11), Just(0x12), Just(0x13), any::<u8>()];
    let frame = (kind, prop_oneof![0..8_u32, any::<u32>()], proptest::collection::vec(any::<u8>(), 0..8));
    let frame = frame.prop_map(|(kind, length, payload)| [&[kind], &length.to_be_bytes()[..], &payload].concat());
    proptest::collection::vec(frame, 0..8).prop_map(|frames| frames.concat())
}

/// Bytes that look like HTTP/2 frames (RFC 9113, section 4.1).
fn http2() -> impl Strategy<Value = Vec<u8>> {
    let frame = (0..12_u8, any::<u8>(), 0..6_u32, proptest::collection::vec(any::<u8>(), 0..64));
    let frame = frame.prop_map(|(kind, flags, stream, payload)| {
        let length = u8::try_from(payload.len()).unwrap();
        [&[0, 0, length, kind, flags], &stream.to_be_bytes()[..], &payload].concat()
    });
    proptest::collection::vec(frame, 0..8).prop_map(|frames| frames.concat())
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn frames_are_read_alike_in_pieces_of_any_size(wire in frames(), size in 1..20_usize) {
        let read = |size: usize| {
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(size.max(1)) {
                buffer.extend_from_slice(piece);
                loop {
                    match FrameCodec.decode(&mut buffer) {
                        Ok(Some(frame)) => seen.push(AgentFrame::decode(frame).ok()),
                        Ok(None) => break,
                        Err(_) => return seen,
                    }
                }
            }
            seen
        };
        prop_assert_eq!(read(size), read(wire.len()));
    }

    #[test]
    fn any_reply_is_an_answer_or_an_error(body in proptest::collection::vec(any::<u8>(), 0..64), framed in frames()) {
        block_on(async {
            let client = agent(answer(body)).await;
            let health = client.health(LIMIT).await;
            assert!(!matches!(health, Err(GuestError::Timeout)));
            let run = agent(answer(framed)).await.run(shell("x"), LIMIT).await;
            assert!(!matches!(run, Err(GuestError::Timeout)));
        });
    }

    #[test]
    fn any_bytes_in_the_channel_end_every_call(wire in http2()) {
        block_on(async {
            let (host, mut guest) = duplex(64 * 1024);
            let talk = async {
                accept(&mut guest).await.unwrap();
                let _ = guest.write_all(&wire).await;
                let _ = guest.shutdown().await;
                let _ = tokio::io::copy(&mut guest, &mut tokio::io::sink()).await;
            };
            let calls = async {
                let client = GuestClient::over(Box::new(host), History::Fresh, LIMIT).await.unwrap();
                let (health, run) = tokio::join!(client.health(LIMIT), client.run(shell("x"), LIMIT));
                assert!(!matches!(health, Err(GuestError::Timeout)) && !matches!(run, Err(GuestError::Timeout)));
            };
            tokio::join!(talk, calls);
        });
    }
}
