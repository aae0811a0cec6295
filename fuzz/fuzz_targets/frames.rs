//! Frames of a program's output, in pieces of any size.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use rds_protocol::exec::{AgentFrame, ClientFrame};
use rds_protocol::frame::FrameCodec;
use tokio_util::codec::Decoder;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, wire) = input;
    let mut buffer = BytesMut::new();
    for piece in wire.chunks(usize::from(size).max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            match FrameCodec.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    let _ = ClientFrame::decode(frame.clone());
                    if let Ok(read) = AgentFrame::decode(frame) {
                        assert_eq!(AgentFrame::decode(read.encode()).expect("what we write we read"), read);
                    }
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let _ = FrameCodec.decode_eof(&mut buffer);
});
