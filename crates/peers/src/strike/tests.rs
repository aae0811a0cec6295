use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn striker(secret: &str) -> Striker {
    Striker::new([secret]).unwrap()
}

fn percent(secret: &str, upper: bool) -> String {
    secret.bytes().map(|byte| if upper { format!("%{byte:02X}") } else { format!("%{byte:02x}") }).collect()
}

fn component(secret: &str) -> String {
    percent_encoding::utf8_percent_encode(secret, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn unicode(secret: &str) -> String {
    secret.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// Every encoding that is promised, of a secret.
fn encodings(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    vec![
        secret.to_owned(),
        STANDARD.encode(secret),
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        STANDARD.encode(format!("u:{secret}")),
        URL_SAFE.encode(format!("user:{secret}\n{{}}")),
        STANDARD.encode(format!("x{secret}yz")),
        hex.to_uppercase(),
        hex,
        percent(secret, true),
        percent(secret, false),
        component(secret),
        quoted(secret),
        quoted(&quoted(secret)),
        unicode(secret),
        unicode(secret).to_uppercase().replace("\\U", "\\u"),
        component(&STANDARD.encode(secret)),
        quoted(&component(secret)),
        component(&quoted(secret)),
        secret.replace(' ', "+"),
        format!("{:02x?}", secret.as_bytes()).replace(',', ""),
        format!("{:?}", secret.as_bytes()),
        format!("{:?}", secret.as_bytes()).replace(", ", ","),
    ]
}

#[test]
fn places_are_struck_and_counted() {
    let struck = striker("s3cret-value").text("a s3cret-value, and s3cret-values3cret-value!");
    assert_eq!(struck, Struck { value: "a [redacted], and [redacted]!".to_owned(), strikes: 2 });
    let basic = format!("Authorization: Basic {}", STANDARD.encode("me:s3cret-value"));
    assert_eq!(striker("s3cret-value").text(&basic).value, "Authorization: Basic bWU[redacted]");
    assert_eq!(striker("short").text("short").strikes, 0);
    assert_eq!(Striker::new([]).unwrap().text("a%41").value, "a%41");
}

#[test]
fn values_of_every_kind() {
    let striker = Striker::new(["s3cret-value", "12345678"]).unwrap();
    let bytes: Vec<u8> = b"x s3cret-value".to_vec();
    let struck = striker.json(json!({"s3cret-value": [1, "is s3cret-value", {"type": "Buffer", "data": bytes}], "n": 123456789, "ok": [1.5, null]}));
    assert_eq!(
        struck.value,
        json!({"[redacted]": [1, "is [redacted]", {"type": "Buffer", "data": "[redacted]"}], "n": "[redacted]", "ok": [1.5, null]})
    );
    assert_eq!(struck.strikes, 4);
}

#[test]
fn bytes_as_json_writes_a_uint8array() {
    let numbered = |bytes: &[u8]| -> Value {
        bytes.iter().enumerate().map(|(n, byte)| (n.to_string(), json!(byte))).collect::<Map<_, _>>().into()
    };
    let striker = striker("s3cret-value");
    let struck = striker.json(json!([numbered(b"xy s3cret-value"), numbered(b"else"), {}]));
    assert_eq!(struck, Struck { value: json!([STRUCK, numbered(b"else"), {}]), strikes: 1 });
}

#[test]
fn a_long_text_takes_little_time() {
    let striker = striker("aaaaaaaa");
    for text in ["a".repeat(300_000), "%61".repeat(100_000), "\\u0061".repeat(50_000), "%25".repeat(100_000)] {
        let started = std::time::Instant::now();
        let struck = striker.text(&text);
        assert!(started.elapsed().as_secs() < 30);
        assert!(struck.strikes <= 1);
    }
}

#[test]
fn a_long_secret_takes_little_memory() {
    let bytes = std::iter::successors(Some(1_u64), |n| Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)));
    let secret: String = bytes.take(48 * 1024).map(|n| char::from(b' ' + ((n >> 33) % 95) as u8)).collect();
    let patterns = striker(&secret).patterns;
    assert!(patterns.memory_usage() < 32 << 20, "{} bytes", patterns.memory_usage());
    let verbatim = Verbatim::new([secret.as_str()]).unwrap().0;
    assert!(verbatim.memory_usage() < 4 << 20, "{} bytes", verbatim.memory_usage());
}

#[test]
fn the_debug_text_shows_nothing() {
    assert!(!format!("{:?}", striker("s3cret-value")).contains("s3cret"));
}

proptest! {
    /// Whatever stands around it, no encoding of a secret is left.
    #[test]
    fn no_encoding_is_left(
        secret in r#"[a-zA-Z0-9/+"\\ %\n<>é😀=_-]{6,40}"#, before in r"[^0-9A-Za-z+/=_\\%-]?.{0,10}[ :]", after in "[ ,].{0,20}", pick in any::<prop::sample::Index>(),
    ) {
        let encoded = pick.get(&encodings(&secret)).clone();
        let striker = striker(&secret);
        let struck = striker.text(&format!("{before}{encoded}{after}"));
        prop_assert!(struck.strikes > 0, "{encoded:?}");
        prop_assert!(!struck.value.contains(&encoded), "{:?}", struck.value);
        prop_assert_eq!(striker.text(&struck.value).strikes, 0);
    }

    #[test]
    fn what_holds_no_secret_stays(text in any::<String>()) {
        let struck = striker("\u{1}never-in-there\u{1}").text(&text);
        prop_assert_eq!(struck, Struck { value: text, strikes: 0 });
    }

    #[test]
    fn any_text_and_any_secret(secret in any::<String>(), text in any::<String>()) {
        let _struck = striker(&secret).text(&text);
    }
}
