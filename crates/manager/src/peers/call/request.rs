//! A call as a consumer's code sent it. Everything in it is hostile.

use std::sync::Arc;
use std::time::Duration;

use rds_peers::json::{Limits, MAX_DEPTH, parse};
use rds_protocol::peer::CALL_BYTES;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

use super::CallFailure;

/// Time limit of a call that names none, and the longest, in milliseconds (section 7 of the wire contract).
const DEFAULT_TIMEOUT_MS: u64 = 30_000;
pub(super) const MAX_TIMEOUT_MS: u64 = 120_000;

/// A call as it was sent.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) alias: String,
    pub(super) module_path: String,
    pub(super) export: String,
    /// An array. As text, because the call may wait long and values take up to a hundred times the memory.
    pub(super) args: Arc<RawValue>,
    pub(super) timeout: Duration,
}

impl Request {
    /// Reads a call. Takes long if the body is.
    pub(super) fn parse(body: &[u8]) -> Result<Self, CallFailure> {
        let invalid = |message: String| CallFailure::refused(400, "invalid_request", message);
        // The arguments lie two levels below the call.
        let limits = Limits { bytes: CALL_BYTES, depth: MAX_DEPTH };
        let Value::Object(mut call) = parse(body, limits).map_err(|error| invalid(error.to_string()))? else {
            return Err(invalid("a call is a JSON object".into()));
        };
        let args = match call.remove("args") {
            None | Some(Value::Null) => to_raw_value(&[(); 0]),
            Some(args @ Value::Array(_)) => to_raw_value(&args),
            Some(_) => return Err(invalid("args must be an array".into())),
        };
        Ok(Self {
            alias: text(&mut call, "alias", None).map_err(invalid)?,
            module_path: text(&mut call, "modulePath", None).map_err(invalid)?,
            export: text(&mut call, "exportName", Some("default")).map_err(invalid)?,
            args: args.map_err(|error| invalid(error.to_string()))?.into(),
            timeout: timeout(call.get("timeoutMs")).map_err(invalid)?,
        })
    }
}

fn text(call: &mut Map<String, Value>, field: &str, default: Option<&str>) -> Result<String, String> {
    match (call.remove(field), default) {
        (Some(Value::String(text)), _) if !text.is_empty() => Ok(text),
        (None | Some(Value::Null), Some(default)) => Ok(default.into()),
        _ => Err(format!("{field} must be a string that is not empty")),
    }
}

fn timeout(asked: Option<&Value>) -> Result<Duration, String> {
    let ms = match asked {
        None | Some(Value::Null) => Some(DEFAULT_TIMEOUT_MS),
        Some(value) => value.as_u64().filter(|ms| (1..=MAX_TIMEOUT_MS).contains(ms)),
    };
    ms.map(Duration::from_millis).ok_or_else(|| format!("timeoutMs must be an integer from 1 to {MAX_TIMEOUT_MS}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(body: &Value) -> Result<Request, CallFailure> {
        Request::parse(body.to_string().as_bytes())
    }

    #[test]
    fn a_call_has_defaults() {
        let call = request(&json!({"alias": "a", "modulePath": "/workspace/m.ts"})).unwrap();
        assert_eq!((call.export.as_str(), call.args.get(), call.timeout), ("default", "[]", Duration::from_secs(30)));
    }

    #[test]
    fn what_is_no_call_is_refused() {
        for body in [
            json!([]),
            json!({}),
            json!({"alias": 1, "modulePath": "/workspace/m.ts"}),
            json!({"alias": "a", "modulePath": ""}),
            json!({"alias": "a", "modulePath": "/workspace/m.ts", "args": {}}),
            json!({"alias": "a", "modulePath": "/workspace/m.ts", "exportName": 1}),
            json!({"alias": "a", "modulePath": "/workspace/m.ts", "timeoutMs": 120_001}),
            json!({"alias": "a", "modulePath": "/workspace/m.ts", "timeoutMs": 1.5}),
        ] {
            assert_eq!(request(&body).unwrap_err().status, 400, "{body}");
        }
        for text in ["", "{", "{\"a\":1,\"a\":2}", "{\"alias\": NaN}"] {
            assert_eq!(Request::parse(text.as_bytes()).unwrap_err().status, 400, "{text}");
        }
    }
}
