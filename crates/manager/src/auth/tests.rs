use super::*;
use crate::clock::now_ms;

async fn auth() -> (tempfile::TempDir, Auth) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::sqlite(&dir.path().join("a.db")).await.unwrap();
    let auth = with_admin(store, "admin@example.com", "correct horse");
    (dir, auth)
}

fn with_admin(store: Store, email: &str, password: &str) -> Auth {
    let config = AuthConfig {
        vm_secret_key: None,
        api_key: Some("sesame".into()),
        admin_email: Some(email.into()),
        admin_password: Some(password.into()),
        session_ttl_seconds: 60,
    };
    Auth::new(&config, store).unwrap()
}

#[tokio::test]
async fn the_configured_key_counts_and_nothing_near_it() {
    let (_dir, auth) = auth().await;
    assert_eq!(auth.by_key("sesame").await.unwrap(), Some(Principal::ConfiguredKey));
    for wrong in ["", "sesam", "sesame ", "Sesame", "rds_", "rds_0123456789ab_", "rds_0123456789ab_x"] {
        assert_eq!(auth.by_key(wrong).await.unwrap(), None, "{wrong:?}");
    }
}

#[tokio::test]
async fn a_made_key_counts_until_it_is_revoked_or_expires() {
    use secrecy::ExposeSecret as _;
    let (_dir, auth) = auth().await;
    let made = auth.create_api_key("ci", None).await.unwrap();
    let text = made.secret.expose_secret();
    assert!(text.starts_with(&made.key.prefix) && made.key.prefix.len() == 16);
    let id = made.key.id.clone();
    assert_eq!(auth.by_key(text).await.unwrap(), Some(Principal::ApiKey { id: id.clone() }));
    assert_eq!(auth.by_key(&format!("{text}x")).await.unwrap(), None);
    let row = auth.store.api_key_by_prefix(&made.key.prefix).await.unwrap().unwrap();
    assert!(row.last_used_at.is_some() && !row.hash.contains(text));
    auth.revoke_api_key(&id).await.unwrap();
    assert_eq!(auth.by_key(text).await.unwrap(), None);
    assert!(matches!(auth.revoke_api_key("nobody").await, Err(crate::Error::NotFound(_))));

    let brief = auth.create_api_key("brief", Some(now_ms() + 50)).await.unwrap();
    assert!(auth.by_key(brief.secret.expose_secret()).await.unwrap().is_some());
    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    assert_eq!(auth.by_key(brief.secret.expose_secret()).await.unwrap(), None);
    assert!(auth.create_api_key("late", Some(now_ms() - 1)).await.is_err());
    assert!(auth.create_api_key(" ", None).await.is_err());
}

#[tokio::test]
async fn a_session_lasts_until_logout() {
    use secrecy::ExposeSecret as _;
    let (_dir, auth) = auth().await;
    for (email, password) in [("admin@example.com", "wrong"), ("other@example.com", "correct horse")] {
        assert!(matches!(
            auth.login(email, password.into()).await,
            Err(crate::Error::Unauthorized("Invalid credentials"))
        ));
    }
    let session = auth.login("Admin@Example.com", "correct horse".into()).await.unwrap();
    let token = session.token.expose_secret();
    let email = "admin@example.com".to_owned();
    assert_eq!(auth.by_session(token).await.unwrap(), Some(Principal::Session { email }));
    auth.logout(token).await.unwrap();
    assert_eq!(auth.by_session(token).await.unwrap(), None);
}

#[tokio::test]
async fn a_session_ends_with_its_password() {
    use secrecy::ExposeSecret as _;
    let (_dir, auth) = auth().await;
    let session = auth.login("admin@example.com", "correct horse".into()).await.unwrap();
    let token = session.token.expose_secret();
    for (email, password, counts) in [
        ("admin@example.com", "another horse", false),
        ("other@example.com", "correct horse", false),
        ("admin@example.com", "correct horse", true),
    ] {
        let next = with_admin(auth.store.clone(), email, password);
        assert_eq!(next.by_session(token).await.unwrap().is_some(), counts, "{email} {password}");
    }
}

#[tokio::test]
async fn a_check_whose_client_has_gone_has_its_turn_to_the_end() {
    let (_dir, auth) = auth().await;
    let mut login = Box::pin(auth.login("admin@example.com", "wrong".into()));
    assert!(futures_util::poll!(&mut login).is_pending());
    drop(login);
    assert!(auth.login_turn.try_lock().is_err(), "the check goes on");
    assert!(auth.login("admin@example.com", "correct horse".into()).await.is_ok());
}
