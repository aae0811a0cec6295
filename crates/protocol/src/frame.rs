//! Length-prefixed frames in the bodies of [`crate::routes::EXEC`]: kind (1 byte), length (4 bytes, big-endian), payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio_util::codec::Decoder;

use crate::exec::max_payload;
use crate::json::containers;
use crate::limits::CONTAINERS;

const HEADER: usize = 5;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: u8,
    /// The payload.
    pub payload: Bytes,
}

/// A frame that can't be read.
#[derive(Debug, Error)]
pub enum FrameError {
    /// No such kind, or not in this direction.
    #[error("unexpected frame kind {0:#04x}")]
    Kind(u8),
    /// More bytes than a frame of this kind may have.
    #[error("frame of kind {kind:#04x} with {length} bytes is too long")]
    Length {
        /// Its kind.
        kind: u8,
        /// The length it announced.
        length: u32,
    },
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// More arrays and objects than a JSON text may have.
    #[error("frame with more than {CONTAINERS} arrays and objects")]
    Containers,
    /// Not the JSON that belongs in it.
    #[error("frame with unexpected JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Frame {
    pub(crate) fn new(kind: u8, payload: Bytes) -> Self {
        Self { kind, payload }
    }

    pub(crate) fn json<T: Serialize>(kind: u8, value: &T) -> Self {
        let payload = serde_json::to_vec(value).expect("protocol types have string keys and no failing serialisers");
        Self::new(kind, payload.into())
    }

    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T, FrameError> {
        if containers(&self.payload) > CONTAINERS {
            return Err(FrameError::Containers);
        }
        Ok(serde_json::from_slice(&self.payload)?)
    }

    /// The frame as bytes.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER + self.payload.len());
        out.put_u8(self.kind);
        out.put_u32(u32::try_from(self.payload.len()).expect("a payload is bounded by limits"));
        out.put_slice(&self.payload);
        out.freeze()
    }
}

/// Reads frames from a byte stream. Memory is bounded by the limit of each kind.
#[derive(Debug, Default)]
pub struct FrameCodec;

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if source.len() < HEADER {
            return Ok(None);
        }
        let kind = source[0];
        let length = u32::from_be_bytes([source[1], source[2], source[3], source[4]]);
        let limit = max_payload(kind).ok_or(FrameError::Kind(kind))?;
        if length as usize > limit {
            return Err(FrameError::Length { kind, length });
        }
        let whole = HEADER + length as usize;
        if source.len() < whole {
            source.reserve(whole - source.len());
            return Ok(None);
        }
        source.advance(HEADER);
        Ok(Some(Frame::new(kind, source.split_to(length as usize).freeze())))
    }

    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        match self.decode(source)? {
            None if !source.is_empty() => Err(FrameError::Truncated),
            frame => Ok(frame),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::AgentFrame;

    #[test]
    fn frames_survive_any_split() {
        let frames = [AgentFrame::Stdout(Bytes::from_static(b"abc")), AgentFrame::Exit(Box::default())];
        let wire: Vec<u8> = frames.iter().flat_map(|frame| frame.encode().to_bytes()).collect();
        for size in 1..wire.len() {
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            for piece in wire.chunks(size) {
                buffer.extend_from_slice(piece);
                while let Some(frame) = FrameCodec.decode(&mut buffer).unwrap() {
                    seen.push(AgentFrame::decode(frame).unwrap());
                }
            }
            assert_eq!(seen, frames);
        }
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_the_payload_arrives() {
        let mut source = BytesMut::from(&[0x11, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(matches!(FrameCodec.decode(&mut source), Err(FrameError::Length { .. })));
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let mut source = BytesMut::from(&[0x11, 0, 0, 0, 2, b'a'][..]);
        assert!(FrameCodec.decode(&mut source).unwrap().is_none());
        assert!(matches!(FrameCodec.decode_eof(&mut source), Err(FrameError::Truncated)));
    }
}
