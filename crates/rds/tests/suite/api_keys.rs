//! `/v1/admin/api-keys`: from a key's creation to its end.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::auth::sign_in;
use crate::harness::{Api, World, cases};

cases![a_key_lives_until_it_is_revoked, a_key_ends_at_its_time, a_key_is_stored_as_a_hash_alone, bad_keys_are_not_made];

async fn make(api: &Api, cookie: &str, body: &Value) -> Value {
    let request = api.request(Method::POST, "/v1/admin/api-keys").header("cookie", cookie).json(body);
    api.send(request).await.status(201).json()
}

fn is_key(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(3, '_').collect();
    let is_hex = |text: &str| text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
    matches!(parts.as_slice(), ["rds", prefix, secret] if prefix.len() == 12 && is_hex(prefix) && secret.len() >= 32)
}

async fn a_key_lives_until_it_is_revoked(world: &World) {
    let api = world.server().await.anonymous();
    let cookie = sign_in(&api).await;
    let made = make(&api, &cookie, &json!({"name": "ci"})).await;
    let (id, key) = (made["id"].as_str().expect("an id"), made["apiKey"].as_str().expect("a key"));
    assert!(is_key(key), "{key}");
    assert!(key.contains(made["prefix"].as_str().expect("a prefix")));
    api.with_key(key).get("/v1/vms").await.ok();
    api.with_key(&format!("{key}0")).get("/v1/vms").await.status(401);

    let list = api.send(api.request(Method::GET, "/v1/admin/api-keys").header("cookie", &cookie)).await.ok();
    let text = String::from_utf8_lossy(&list.body).into_owned();
    assert!(!text.contains(key) && !text.contains("apiKey"), "the list shows keys");
    let list = list.json();
    let listed = list.as_array().expect("a list").iter().find(|entry| entry["id"] == id).expect("it is listed");
    assert_eq!(listed["name"], "ci");
    assert!(listed["lastUsedAt"].is_string() && listed.get("revokedAt").is_none_or(Value::is_null), "{listed}");

    let revoke = format!("/v1/admin/api-keys/{id}/revoke");
    api.send(api.request(Method::POST, &revoke)).await.status(401);
    let reply = api.send(api.request(Method::POST, &revoke).header("cookie", &cookie)).await;
    assert!(matches!(reply.status, 200 | 204), "{reply:?}");
    api.with_key(key).get("/v1/vms").await.status(401);
    let nobody = "/v1/admin/api-keys/0d6bd3a4-6f0c-4a54-8f42-9a1fbe1f2d3e/revoke";
    api.send(api.request(Method::POST, nobody).header("cookie", &cookie)).await.status(404);
}

async fn a_key_ends_at_its_time(world: &World) {
    let api = world.server().await.anonymous();
    let cookie = sign_in(&api).await;
    let soon = std::time::SystemTime::now() + Duration::from_millis(2500);
    let made = make(&api, &cookie, &json!({"name": "short", "expiresAt": rfc3339(soon)})).await;
    let key = api.with_key(made["apiKey"].as_str().expect("a key"));
    key.get("/v1/vms").await.ok();
    tokio::time::sleep(Duration::from_secs(3)).await;
    key.get("/v1/vms").await.status(401);
}

/// A moment in UTC (civil-from-days, as Howard Hinnant gives it).
fn rfc3339(moment: std::time::SystemTime) -> String {
    let since = moment.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

async fn a_key_is_stored_as_a_hash_alone(world: &World) {
    let server = world.server().await;
    let api = server.anonymous();
    let cookie = sign_in(&api).await;
    let made = make(&api, &cookie, &json!({"name": "hidden"})).await;
    let key = made["apiKey"].as_str().expect("a key");
    let secret = key.rsplit('_').next().expect("a secret").as_bytes();
    let session = cookie.split_once('=').expect("a cookie").1.as_bytes();
    for entry in std::fs::read_dir(server.root()).expect("the storage root").flatten() {
        if entry.file_name().to_string_lossy().starts_with("manager.db") {
            let content = std::fs::read(entry.path()).expect("the database");
            for needle in [secret, session] {
                let found = content.windows(needle.len()).any(|window| window == needle);
                assert!(!found, "{} holds a key or session in clear", entry.path().display());
            }
        }
    }
}

async fn bad_keys_are_not_made(world: &World) {
    let api = world.server().await.anonymous();
    let cookie = sign_in(&api).await;
    for body in [json!({}), json!({"name": ""}), json!({"name": 1}), json!({"name": "x", "expiresAt": "tomorrow"})] {
        let request = api.request(Method::POST, "/v1/admin/api-keys").header("cookie", &cookie).json(&body);
        api.send(request).await.status(400);
    }
}
