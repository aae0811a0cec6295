//! Who gets in.

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::test_app::{EMAIL, KEY, PASSWORD, TestApp, answer};

#[tokio::test]
async fn a_key_is_needed_under_v1_whatever_the_path() {
    let test = TestApp::start().await;
    for path in ["/v1/vms", "/v1/images", "/v1/images/", "/v1/nothing", "/v1/admin/overview", "/v1/admin/api-keys"] {
        let (status, body) = answer(test.anonymous(Method::GET, path)).await;
        assert_eq!((status.as_u16(), &body["code"]), (401, &json!("unauthorized")), "{path}");
        let (status, _) = answer(test.anonymous(Method::GET, path).header("x-api-key", "wrong")).await;
        assert_eq!(status, 401, "{path}");
    }
    assert_eq!(test.get("/v1/images").await.0, 200);
    assert_eq!(test.get("/v1/images/").await.0, 400, "a trailing slash is an empty id");
    assert_eq!(test.get("/v1/vms/").await.0, 400);
    assert_eq!(test.get("/v1/nothing").await.0, 404);
    assert_eq!(answer(test.request(Method::PATCH, "/v1/images")).await.0, 405);
    assert_eq!(answer(test.anonymous(Method::POST, "/healthz")).await.0, 405);
    assert_eq!(answer(test.anonymous(Method::GET, "/nowhere")).await.0, 404);
}

/// The client must not tidy up the path, so this speaks HTTP itself.
#[tokio::test]
async fn no_spelling_of_a_path_goes_around_the_key() {
    let test = TestApp::start().await;
    for path in [
        "/%76%31/images",
        "/v%31/images",
        "//v1/images",
        "/V1/images",
        "/v1//images",
        "/x/../v1/images",
        "/./v1/images",
        "/v1/%69mages",
        "/v1/images/..;/",
        "/v1/x/../images",
        "/v1%2fimages",
        "/v1/images%2f",
        "/v1/images?x-api-key=k",
        "/swagger/../v1/images",
        "/swagger/..%2fv1/images",
        "/healthz/../v1/images",
        "/v1;/images",
        "/v1/images%00",
        "http://localhost/v1/images",
        "/v1\\images",
        "/%2e%2e/v1/images",
        "/v1/admin/../images",
    ] {
        let status = raw(&test, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")).await;
        assert!([400, 401, 404].contains(&status), "{path}: {status}");
    }
    let sneaky = format!("GET /v1/images HTTP/1.1\r\nhost: x\r\nX-API-KEY: {KEY}\r\nconnection: close\r\n\r\n");
    assert_eq!(raw(&test, &sneaky).await, 200, "header names have no case");
}

async fn raw(test: &TestApp, request: &str) -> u16 {
    let mut stream = TcpStream::connect(test.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn somebody_signs_in_and_out() {
    let test = TestApp::start().await;
    let wrong = json!({ "email": EMAIL, "password": "wrong" });
    let (status, body) = answer(test.anonymous(Method::POST, "/auth/login").json(&wrong)).await;
    assert_eq!((status.as_u16(), &body["message"]), (401, &json!("Invalid credentials")));

    let right = json!({ "email": EMAIL, "password": PASSWORD });
    let reply = test.anonymous(Method::POST, "/auth/login").json(&right).send().await.unwrap();
    let cookie = reply.headers()["set-cookie"].to_str().unwrap().to_owned();
    for part in ["rds_session=", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure"), "this server is not behind TLS");
    assert_eq!(reply.json::<serde_json::Value>().await.unwrap(), json!({ "email": EMAIL }));

    let cookie = test.cookie().await;
    let with = |method, path| test.anonymous(method, path).header("cookie", &cookie);
    assert_eq!(answer(with(Method::GET, "/auth/me")).await.1, json!({ "email": EMAIL }));
    assert_eq!(answer(with(Method::GET, "/v1/images")).await.0, 200);
    assert_eq!(answer(with(Method::POST, "/auth/logout")).await.1, json!({ "ok": true }));
    assert_eq!(answer(with(Method::GET, "/auth/me")).await.0, 401);
    assert_eq!(answer(with(Method::GET, "/v1/images")).await.0, 401);
}

#[tokio::test]
async fn behind_a_trusted_tls_proxy_the_cookie_is_secure() {
    let test = TestApp::with(&["--trusted-proxies", "127.0.0.1"]).await;
    let right = json!({ "email": EMAIL, "password": PASSWORD });
    let login = test.anonymous(Method::POST, "/auth/login").header("x-forwarded-proto", "https").json(&right);
    let reply = login.send().await.unwrap();
    assert!(reply.headers()["set-cookie"].to_str().unwrap().ends_with("; Secure"));
}

#[tokio::test]
async fn another_site_cannot_use_a_session() {
    let test = TestApp::start().await;
    let cookie = test.cookie().await;
    let image = json!({ "name": "n" });
    let from = |name: &str, value: &str| {
        test.anonymous(Method::POST, "/v1/images").header("cookie", &cookie).header(name, value).json(&image)
    };
    assert_eq!(answer(from("origin", "https://evil.example")).await.0, 403);
    assert_eq!(answer(from("sec-fetch-site", "cross-site")).await.0, 403);
    assert_eq!(answer(from("origin", &format!("http://{}", test.address))).await.0, 201);
    assert_eq!(answer(from("sec-fetch-site", "same-origin")).await.0, 201);
    assert_eq!(answer(from("x-api-key", KEY).header("origin", "https://a.example")).await.0, 201, "a key is no cookie");
    let login = json!({ "email": EMAIL, "password": PASSWORD });
    let login = test.anonymous(Method::POST, "/auth/login").header("sec-fetch-site", "cross-site").json(&login);
    assert_eq!(answer(login).await.0, 403);
}

#[tokio::test]
async fn keys_are_made_used_and_revoked_by_somebody_signed_in() {
    let test = TestApp::start().await;
    for (method, path) in [(Method::GET, "/v1/admin/api-keys"), (Method::GET, "/v1/admin/events")] {
        assert_eq!(answer(test.request(method, path)).await.0, 401, "a key is not enough for {path}");
    }
    let cookie = test.cookie().await;
    let with = |method, path: &str| test.anonymous(method, path).header("cookie", &cookie);
    let body = json!({ "name": "ci", "expiresAt": "2999-01-01T00:00:00Z" });
    let (status, made) = answer(with(Method::POST, "/v1/admin/api-keys").json(&body)).await;
    assert_eq!(status, 201);
    let (key, prefix) = (made["apiKey"].as_str().unwrap(), made["prefix"].as_str().unwrap());
    assert!(key.starts_with(prefix) && made["expiresAt"] == "2999-01-01T00:00:00.000Z", "{made}");
    let use_it = || answer(test.anonymous(Method::GET, "/v1/images").header("x-api-key", key));
    assert_eq!(use_it().await.0, 200);

    let (_, list) = answer(with(Method::GET, "/v1/admin/api-keys")).await;
    assert_eq!(list[0]["id"], made["id"]);
    assert!(list[0]["lastUsedAt"].is_string() && !list.to_string().contains(key));

    let path = format!("/v1/admin/api-keys/{}/revoke", made["id"].as_str().unwrap());
    assert_eq!(answer(with(Method::POST, &path)).await.0, 204);
    assert_eq!(use_it().await.0, 401);
    assert_eq!(answer(with(Method::POST, "/v1/admin/api-keys/none/revoke")).await.0, 404);
    for bad in [json!({}), json!({ "name": "" }), json!({ "name": "x", "expiresAt": "soon" }), json!({ "name": 1 })] {
        assert_eq!(answer(with(Method::POST, "/v1/admin/api-keys").json(&bad)).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_stream_of_events_ends_with_its_session() {
    let test = TestApp::start().await;
    let (stays, goes) = (test.cookie().await, test.cookie().await);
    let open = async |cookie: &str| {
        let reply = test.anonymous(Method::GET, "/v1/admin/events").header("cookie", cookie).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        reply
    };
    let (mut first, mut second) = (open(&stays).await, open(&goes).await);
    assert_eq!(answer(test.anonymous(Method::POST, "/auth/logout").header("cookie", &goes)).await.0, 200);
    let to_its_end = async { while second.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(std::time::Duration::from_secs(25), to_its_end).await.expect("it ends by itself");
    test.request(Method::POST, "/v1/images").json(&json!({ "name": "n" })).send().await.unwrap();
    let mut seen = String::new();
    while !seen.contains("image.created") {
        seen += &String::from_utf8_lossy(&first.chunk().await.unwrap().expect("it goes on"));
    }
}
