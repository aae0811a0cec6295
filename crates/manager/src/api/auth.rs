//! Lets nobody reach a handler under `/v1` who did not show a key or a session.
//!
//! The layers here wrap routes that the router has already matched, so no spelling of a path can go around them: what
//! the router does not know by its exact bytes is 404.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use secrecy::{ExposeSecret as _, SecretString};

use super::client::Client;
use super::rate_limit;
use crate::app::App;
use crate::auth::{Auth, Principal};
use crate::error::{Chain, Error, Result};
use crate::rate_limit::{Asker, Class};

/// Header of an API key.
pub(super) const KEY_HEADER: &str = "x-api-key";
/// Cookie of a session.
pub(super) const COOKIE: &str = "rds_session";

/// Who is asking. Only routes under `/v1` have it.
#[derive(Debug, Clone)]
pub struct Caller(pub Principal);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get().cloned().ok_or(Error::Unauthorized("Unauthorized"))
    }
}

/// How often it is looked whether a stream without an end is still for whom it was opened.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What a request showed, to be looked at again. Only routes under `/v1` have it.
#[derive(Debug, Clone)]
pub(super) enum Credential {
    /// A key.
    Key(SecretString),
    /// The token of a session.
    Session(SecretString),
}

impl Credential {
    /// The key, or else the session.
    fn of(headers: &HeaderMap) -> Option<Self> {
        match headers.get(KEY_HEADER) {
            // What is no text is no key.
            Some(key) => Some(Self::Key(key.to_str().unwrap_or_default().into())),
            None => Self::session(headers),
        }
    }

    fn session(headers: &HeaderMap) -> Option<Self> {
        session_token(headers).map(|token| Self::Session(token.into()))
    }

    async fn principal(&self, auth: &Auth) -> Result<Option<Principal>> {
        match self {
            Self::Key(key) => auth.by_key(key.expose_secret()).await,
            Self::Session(token) => auth.by_session(token.expose_secret()).await,
        }
    }

    /// Done when it no longer counts: the session has ended, the key has expired or was revoked.
    pub(super) async fn ended(self, auth: &Auth, look_every: Duration) {
        loop {
            tokio::time::sleep(look_every).await;
            match self.principal(auth).await {
                Ok(Some(_)) => {}
                Ok(None) => return,
                Err(error) => tracing::warn!(error = %Chain(&error), "cannot look whether a stream is to go on"),
            }
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Credential {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get().cloned().ok_or(Error::Unauthorized("Unauthorized"))
    }
}

/// A key or a session is needed. Refused attempts count against the address that they come from; beyond their limit a key
/// is not even looked at.
pub(super) async fn require(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Result<Response> {
    let refused = Error::Unauthorized("Unauthorized");
    let client = Client::of(&request, &app.config.http.trusted_proxies).name();
    let credential = Credential::of(request.headers());
    let guess = match &credential {
        Some(Credential::Key(key)) => match app.rate_limits.guesses.count(&client, key.expose_secret()) {
            Ok(guess) => Some(guess),
            Err(allowance) => return Ok(rate_limit::answer(&allowance, async { Err(refused) }).await),
        },
        _ => None,
    };
    let Some((credential, principal)) = look_at(&app, credential, request.headers(), acts(&request)).await? else {
        return match app.rate_limits.count(Class::Default, &Asker::Address(client)) {
            Some(allowance) => Ok(rate_limit::answer(&allowance, async { Err(refused) }).await),
            None => Err(refused),
        };
    };
    if let Some(guess) = guess {
        guess.was_right();
    }
    let_in(&mut request, credential, principal);
    Ok(next.run(request).await)
}

/// A session is needed: a key is not enough.
pub(super) async fn require_session(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Result<Response> {
    let session = Credential::session(request.headers());
    let Some((session, principal)) = look_at(&app, session, request.headers(), acts(&request)).await? else {
        return Err(Error::Unauthorized("Sign in first: an API key is not enough here"));
    };
    let_in(&mut request, session, principal);
    Ok(next.run(request).await)
}

/// Whose credential it is, if it counts. What a browser sends by itself may have been another site's idea.
async fn look_at(
    app: &App,
    credential: Option<Credential>,
    headers: &HeaderMap,
    acts: bool,
) -> Result<Option<(Credential, Principal)>> {
    let Some(credential) = credential else { return Ok(None) };
    let Some(principal) = credential.principal(&app.auth).await? else { return Ok(None) };
    if matches!(credential, Credential::Session(_)) && acts {
        refuse_cross_site(headers)?;
    }
    Ok(Some((credential, principal)))
}

fn let_in(request: &mut Request, credential: Credential, principal: Principal) {
    request.extensions_mut().insert(Caller(principal));
    request.extensions_mut().insert(credential);
}

/// Whether a request may change something. A WebSocket begins as a GET.
fn acts(request: &Request) -> bool {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    !reads || request.headers().contains_key(header::UPGRADE)
}

/// The session's cookie.
pub(super) fn session_token(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == COOKIE && !value.is_empty()).then_some(value))
}

/// Refuses what another site made a browser send. Browsers say where a request comes from; a client that says nothing
/// is no browser, and nobody can make it send a cookie.
pub(super) fn refuse_cross_site(headers: &HeaderMap) -> Result<()> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let same = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            host.is_some() && host == text("host")
        }
        (None, None) => true,
    };
    if same { Ok(()) } else { Err(Error::Forbidden("Requests from other sites are refused".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn the_session_is_found_among_cookies() {
        assert_eq!(session_token(&headers(&[("cookie", "a=b; rds_session=t; c=d")])), Some("t"));
        assert_eq!(session_token(&headers(&[("cookie", "xrds_session=t; rds_session=")])), None);
    }

    #[test]
    fn another_site_is_refused_and_a_plain_client_is_not() {
        for (pairs, good) in [
            (&[][..], true),
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("origin", "https://rds.example"), ("host", "rds.example")], true),
            (&[("origin", "https://evil.example"), ("host", "rds.example")], false),
            (&[("origin", "null"), ("host", "null")], false),
        ] {
            assert_eq!(refuse_cross_site(&headers(pairs)).is_ok(), good, "{pairs:?}");
        }
    }
}
