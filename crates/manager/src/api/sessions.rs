//! `/auth`: signing in and out.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{COOKIE, refuse_cross_site, session_token};
use super::client::Client;
use super::json::{Json, LOGIN_BYTES};
use super::replies::{BodyErrors, CallerErrors};
use crate::app::App;
use crate::auth::Principal;
use crate::error::{Error, Result};

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(login)).routes(routes!(logout)).routes(routes!(me))
}

#[derive(Deserialize, ToSchema)]
struct Login {
    email: String,
    #[schema(value_type = String, format = Password)]
    password: Password,
}

/// A secret from the moment it is parsed.
struct Password(SecretString);

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(text.into()))
    }
}

#[derive(Serialize, ToSchema)]
struct Account {
    email: String,
}

#[derive(Serialize, ToSchema)]
struct LoggedOut {
    ok: bool,
}

/// Sign in
///
/// Sets the cookie `rds_session`.
#[utoipa::path(post, path = "/auth/login", tag = "sessions", security(()), request_body = Login, responses(
    (status = 200, body = Account),
    CallerErrors,
    BodyErrors,
))]
async fn login(State(app): State<Arc<App>>, request: Request) -> Result<Response> {
    use axum::extract::FromRequest as _;
    refuse_cross_site(request.headers())?;
    let secure = Client::of(&request, &app.config.http.trusted_proxies).secure;
    let Json(body) = Json::<Login, LOGIN_BYTES>::from_request(request, &()).await?;
    let session = app.auth.login(&body.email, body.password.0).await?;
    let cookie = cookie(session.token.expose_secret(), session.max_age, secure)?;
    Ok(([(header::SET_COOKIE, cookie)], Json::<_>(Account { email: session.email })).into_response())
}

/// Sign out
#[utoipa::path(post, path = "/auth/logout", tag = "sessions", security((), ("session" = [])), responses(
    (status = 200, body = LoggedOut),
    CallerErrors,
))]
async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response> {
    refuse_cross_site(&headers)?;
    if let Some(token) = session_token(&headers) {
        app.auth.logout(token).await?;
    }
    Ok(([(header::SET_COOKIE, cookie("", 0, false)?)], Json::<_>(LoggedOut { ok: true })).into_response())
}

/// Who is signed in
#[utoipa::path(get, path = "/auth/me", tag = "sessions", security(("session" = [])), responses(
    (status = 200, body = Account),
    CallerErrors,
))]
async fn me(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<Account>> {
    let principal = match session_token(&headers) {
        Some(token) => app.auth.by_session(token).await?,
        None => None,
    };
    match principal {
        Some(Principal::Session { email }) => Ok(Json(Account { email })),
        _ => Err(Error::Unauthorized("Unauthorized")),
    }
}

fn cookie(token: &str, max_age: i64, secure: bool) -> Result<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{COOKIE}={token}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(text).map_err(|error| Error::internal("cannot write the cookie", error))
}
