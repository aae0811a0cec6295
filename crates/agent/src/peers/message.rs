//! What the agent and a worker say to each other: four bytes of length, big-endian, and JSON.

use bytes::{BufMut, Bytes, BytesMut};
use rds_protocol::json;
use rds_protocol::peer::{OUTCOME_BYTES, OfferedModule, Uncallable};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest message of a worker: a result with what is around it.
const MESSAGE_BYTES: u32 = OUTCOME_BYTES as u32 + 64 * 1024;

/// To a worker.
#[derive(Serialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub(super) enum Order<'a> {
    /// Load these modules.
    Offer { modules: &'a [&'a OfferedModule] },
    /// Call this export.
    Call { id: u64, module: &'a str, export: &'a str, args: &'a RawValue },
    /// Nobody waits for this call any more.
    Cancel { id: u64 },
}

/// From a worker, which may say anything.
#[derive(Debug)]
pub(super) enum Report {
    /// A module was loaded or could not be, and these of its exports can't be called.
    Loaded { path: String, uncallable: Vec<Uncallable> },
    /// A call returned.
    Result { id: u64, value: Box<RawValue> },
    /// A call threw.
    Error { id: u64, name: String, message: String },
    /// A cancellation was seen.
    Cancelled,
}

/// What tells reports apart.
#[derive(Deserialize)]
struct Tag {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    id: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Loaded,
    Result,
    Error,
    Cancelled,
}

#[derive(Deserialize)]
struct Loaded {
    path: String,
    uncallable: Vec<Uncallable>,
}

#[derive(Deserialize)]
struct Returned {
    value: Box<RawValue>,
}

#[derive(Deserialize)]
struct Threw {
    name: String,
    message: String,
}

impl Order<'_> {
    /// The order as bytes.
    pub(super) fn to_bytes(&self) -> Bytes {
        let text = serde_json::to_vec(self).expect("orders have string keys and no failing serialisers");
        let mut bytes = BytesMut::with_capacity(4 + text.len());
        bytes.put_u32(u32::try_from(text.len()).expect("a call is bounded by its limit"));
        bytes.put_slice(&text);
        bytes.freeze()
    }
}

/// Reads one report; none if the worker has ended or what it says is not one.
pub(super) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Option<Report> {
    let length = from.read_u32().await.ok().filter(|length| *length <= MESSAGE_BYTES)?;
    let mut text = vec![0; length as usize];
    from.read_exact(&mut text).await.ok()?;
    parse(&text).ok()
}

fn parse(text: &[u8]) -> serde_json::Result<Report> {
    let Tag { kind, id } = serde_json::from_slice(text)?;
    if let Err(error) = json::check(text) {
        return match kind {
            // Of this call nothing can be passed on; the worker has done nothing to the others.
            Kind::Result => {
                let message = format!("the result can't be read: {error}");
                Ok(Report::Error { id, name: "RangeError".into(), message })
            }
            _ => Err(error),
        };
    }
    Ok(match kind {
        Kind::Loaded => {
            let Loaded { path, uncallable } = serde_json::from_slice(text)?;
            Report::Loaded { path, uncallable }
        }
        Kind::Result => {
            let Returned { value } = serde_json::from_slice(text)?;
            Report::Result { id, value }
        }
        Kind::Error => {
            let Threw { name, message } = serde_json::from_slice(text)?;
            Report::Error { id, name, message }
        }
        Kind::Cancelled => Report::Cancelled,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use rds_protocol::limits::CONTAINERS;

    #[test]
    fn an_order_is_length_and_json() {
        let args = RawValue::from_string("[{\"a\":1}]".into()).unwrap();
        let bytes = Order::Call { id: 7, module: "/workspace/a.ts", export: "f", args: &args }.to_bytes();
        let (length, text) = bytes.split_at(4);
        assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, text.len());
        assert_eq!(text, br#"{"type":"call","id":7,"module":"/workspace/a.ts","export":"f","args":[{"a":1}]}"#);
    }

    #[test]
    fn a_result_is_passed_on_as_it_is_or_not_at_all() {
        let report = |value: &str| parse(format!(r#"{{"type":"result","id":3,"value":{value}}}"#).as_bytes());
        assert!(matches!(report("null"), Ok(Report::Result { id: 3, value }) if value.get() == "null"));
        assert!(matches!(report("[{ }]"), Ok(Report::Result { id: 3, value }) if value.get() == "[{ }]"));
        for value in [&format!("[{}0]", "{},".repeat(CONTAINERS)), "1e999", r#""\ud800""#] {
            assert!(matches!(report(value), Ok(Report::Error { id: 3, .. })));
        }
        assert!(report("").is_err());
    }

    #[tokio::test]
    async fn what_is_no_report_is_none() {
        for bytes in [&b""[..], b"\0\0\0\x02{}", b"\0\0\0\x02{", b"\xff\xff\xff\xff{}", b"\0\0\0\x05hello"] {
            assert!(read(&mut &*bytes).await.is_none(), "{bytes:?}");
        }
        let text = br#"{"type":"cancelled","id":3}"#;
        let framed = [&[0, 0, 0, text.len() as u8][..], text].concat();
        assert!(matches!(read(&mut &*framed).await, Some(Report::Cancelled)));
    }
}
