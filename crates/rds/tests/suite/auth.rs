//! Section 1: who may ask, however the path is spelled.

use reqwest::Method;
use serde_json::json;

use crate::harness::{ADMIN_EMAIL, ADMIN_PASSWORD, API_KEY, Api, World, cases};

cases![
    every_documented_path_needs_a_key,
    a_wrong_key_is_refused,
    no_spelling_of_a_path_goes_around_the_key,
    public_pages_need_no_key,
    a_session_is_made_used_and_revoked,
    a_bad_password_is_told_nothing,
    a_key_is_not_enough_for_keys_and_events,
    another_site_cannot_use_a_session,
    errors_say_what_and_where,
];

/// Signs in and gives the cookie.
pub(crate) async fn sign_in(api: &Api) -> String {
    let body = json!({"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD});
    let reply = api.post("/auth/login", &body).await.ok();
    assert_eq!(reply.json(), json!({"email": ADMIN_EMAIL}));
    reply.header("set-cookie").split(';').next().expect("a cookie").to_owned()
}

async fn every_documented_path_needs_a_key(world: &World) {
    let server = world.server().await;
    let api = server.anonymous();
    let operations = server.document().operations();
    let under_v1: Vec<_> = operations.iter().filter(|(path, _)| path.starts_with("/v1")).collect();
    assert!(under_v1.len() > 20, "too few: {under_v1:?}");
    for (template, method) in under_v1 {
        let path = template.replace(['{', '}'], "");
        let method: Method = method.to_uppercase().parse().expect("a method");
        let reply = api.send(api.request(method, &path)).await.status(401);
        assert_eq!(reply.json()["code"], "unauthorized", "{template}");
    }
}

async fn a_wrong_key_is_refused(world: &World) {
    let api = world.server().await.anonymous();
    let longer = format!("{API_KEY}x");
    let shorter: String = API_KEY.chars().skip(1).collect();
    for key in ["x", "", "rds_000000000000_secret", &longer, &shorter] {
        api.with_key(key).get("/v1/vms").await.status(401);
    }
}

async fn no_spelling_of_a_path_goes_around_the_key(world: &World) {
    let (api, vm) = world.vm().await;
    for path in [
        "/%76%31/vms",
        "/%761/vms",
        "//v1/vms",
        "/v1//vms",
        "/x/../v1/vms",
        "/./v1/vms",
        "/v1/./vms",
        "/V1/vms",
        "/v1/VMS",
        "/v1/vms/",
        "/v1/vms%2f",
        "/v1/vms%00",
        "/v1/vms;x=1",
        "/v1%2fvms",
        "/%2e%2e/v1/vms",
        "/docs/../v1/vms",
        "/docs/%2e%2e/v1/vms",
        "/healthz/../v1/vms",
        "/openapi.json/../v1/vms",
        "/v1\\vms",
        "/v1/vms?x-api-key=y",
        "/v1/vms#a",
        "http://localhost/v1/vms",
        "/auth/../v1/vms",
        "/swagger/..%2fv1/vms",
    ] {
        for method in ["GET", "POST", "HEAD", "OPTIONS"] {
            let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            let (status, reply) = api.raw(request.as_bytes()).await;
            let reached = (200..300).contains(&status) && !path.starts_with("/docs") && !path.starts_with("/swagger");
            assert!(!reached, "{method} {path}: {reply}");
            assert!(!reply.contains(vm), "{method} {path} lists VMs: {reply}");
        }
    }
}

async fn public_pages_need_no_key(world: &World) {
    let api = world.server().await.anonymous();
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        api.get(path).await.ok();
    }
    let swagger = api.get("/swagger").await;
    assert!(matches!(swagger.status, 200 | 301..=308), "/swagger: {}", swagger.status);
}

async fn a_session_is_made_used_and_revoked(world: &World) {
    let api = world.server().await.anonymous();
    let body = json!({"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD});
    let reply = api.post("/auth/login", &body).await.ok();
    let cookie = reply.header("set-cookie").to_owned();
    let attributes = cookie.to_lowercase();
    for wanted in ["rds_session=", "httponly", "samesite=lax", "path=/"] {
        assert!(attributes.contains(wanted), "{cookie} lacks {wanted}");
    }
    assert!(!attributes.contains("secure"), "plain HTTP: the browser would never send it back");
    let cookie = cookie.split(';').next().expect("a cookie").to_owned();
    let with = |method: Method, path: &str| api.request(method, path).header("cookie", &cookie);
    assert_eq!(api.send(with(Method::GET, "/auth/me")).await.ok().json(), json!({"email": ADMIN_EMAIL}));
    api.send(with(Method::GET, "/v1/vms")).await.ok();
    api.send(with(Method::GET, "/v1/admin/api-keys")).await.ok();
    assert_eq!(api.send(with(Method::POST, "/auth/logout")).await.ok().json(), json!({"ok": true}));
    api.send(with(Method::GET, "/auth/me")).await.status(401);
    api.send(with(Method::GET, "/v1/vms")).await.status(401);
    api.get("/auth/me").await.status(401);
}

async fn a_bad_password_is_told_nothing(world: &World) {
    let api = world.server().await.anonymous();
    for (email, password) in [(ADMIN_EMAIL, "wrong"), ("nobody@example.org", ADMIN_PASSWORD), ("", "")] {
        let reply = api.post("/auth/login", &json!({"email": email, "password": password})).await.status(401);
        assert_eq!(reply.message(), "Invalid credentials");
        assert!(!reply.headers.contains_key("set-cookie"));
    }
    for body in ["", "{", "[]", "{\"email\":1,\"password\":2}"] {
        api.post_raw("/auth/login", body).await.status(400);
    }
}

async fn a_key_is_not_enough_for_keys_and_events(world: &World) {
    let api = world.api().await;
    api.get("/v1/admin/api-keys").await.status(401);
    api.post("/v1/admin/api-keys", &json!({"name": "x"})).await.status(401);
    api.get("/v1/admin/events").await.status(401);
    api.get("/v1/admin/overview").await.ok();
    api.get("/v1/admin/activity").await.ok();
}

async fn another_site_cannot_use_a_session(world: &World) {
    let api = world.server().await.anonymous();
    let cookie = sign_in(&api).await;
    let body = json!({"name": "stolen"});
    for (name, value) in [("origin", "https://evil.example"), ("sec-fetch-site", "cross-site"), ("origin", "null")] {
        let request = api.request(Method::POST, "/v1/admin/api-keys").header("cookie", &cookie).header(name, value);
        api.send(request.json(&body)).await.status(403);
    }
}

async fn errors_say_what_and_where(world: &World) {
    let api = world.api().await;
    for (reply, status) in [
        (api.get("/v1/nothing").await, 404),
        (api.get("/v1/vms/0d6bd3a4-6f0c-4a54-8f42-9a1fbe1f2d3e").await, 404),
        (api.post_raw("/v1/vms", "{").await, 400),
        (api.send(api.request(Method::PATCH, "/v1/vms")).await, 405),
        (api.send(api.request(Method::POST, "/v1/vms").header("content-type", "text/plain").body("cpu=1")).await, 415),
    ] {
        let reply = reply.status(status);
        let error = reply.json();
        assert!(error["message"].is_string() && error["code"].is_string(), "{error}");
        assert_eq!(reply.headers.get_all("x-request-id").iter().count(), 1);
    }
}
