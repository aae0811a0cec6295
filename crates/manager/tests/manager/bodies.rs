//! Bodies that are not what they should be, and replies.

use reqwest::{Body, Method};
use serde_json::json;

use crate::test_app::{TestApp, answer};

#[tokio::test]
async fn bad_json_is_refused_clearly() {
    let test = TestApp::start().await;
    let post =
        |body: String| test.request(Method::POST, "/v1/images").header("content-type", "application/json").body(body);
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for bad in [
        "",
        "{",
        "nonsense",
        "[]",
        "null",
        "\"text\"",
        "{\"name\":",
        "{\"name\":1}",
        "{\"name\":\"a\"} x",
        "{\"name\":\"a\",\"name\":\"b\"}",
        "{\"name\":\"\\ud800\"}",
        &deep,
        &format!("{{\"name\":{deep}}}"),
    ] {
        let (status, body) = answer(post(bad.to_owned())).await;
        assert_eq!((status.as_u16(), &body["code"]), (400, &json!("invalid_request")), "{bad:.40}");
    }
    let invalid_utf8 = test.request(Method::POST, "/v1/images").body(b"{\"name\":\"\xff\"}".to_vec());
    assert_eq!(answer(invalid_utf8).await.0, 400);
    let form = test.request(Method::POST, "/v1/images").header("content-type", "text/plain").body("{\"name\":\"a\"}");
    assert_eq!(answer(form).await.0, 415);
    let unnamed = test.request(Method::POST, "/v1/images").body("{\"name\":\"a\",\"unknown\":1}");
    assert_eq!(answer(unnamed).await.0, 201, "no content type is taken for JSON, unknown fields are ignored");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_read_and_refused() {
    let test = TestApp::start().await;
    for (path, limit) in [("/v1/images", 64 * 1024), ("/auth/login", 16 * 1024)] {
        let body = |bytes: usize| format!("{{\"name\":\"{}\"}}", "a".repeat(bytes));
        let (status, reply) = answer(test.request(Method::POST, path).body(body(limit))).await;
        assert_eq!((status.as_u16(), &reply["code"]), (413, &json!("too_large")), "{path}");
        assert_eq!(answer(test.request(Method::POST, path).body(body(limit - 1000))).await.0, 400, "{path}");
        // A client that writes all before it reads must not be cut off.
        assert_eq!(answer(test.request(Method::POST, path).body(body(8 * 1024 * 1024))).await.0, 413, "{path}");
        let chunks = futures_util::stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024])));
        assert_eq!(answer(test.request(Method::POST, path).body(Body::wrap_stream(chunks))).await.0, 413, "{path}");
    }
}

#[tokio::test]
async fn pages_and_documents_are_for_everybody() {
    let test = TestApp::start().await;
    for (path, part) in [
        ("/", "<!doctype html>"),
        ("/swagger/", "swagger-ui"),
        ("/openapi.json", "3.0.3"),
        ("/healthz", "true"),
        ("/readyz", "true"),
    ] {
        let reply = test.anonymous(Method::GET, path).send().await.unwrap();
        assert_eq!(reply.status(), 200, "{path}");
        for header in ["content-security-policy", "x-content-type-options", "x-request-id"] {
            assert!(reply.headers().contains_key(header), "{path} has no {header}");
        }
        assert!(reply.text().await.unwrap().contains(part), "{path}");
    }
    let document = test.anonymous(Method::GET, "/openapi.json").send().await.unwrap();
    assert_eq!(document.json::<serde_json::Value>().await.unwrap(), rds_manager::api::openapi::document());
}
