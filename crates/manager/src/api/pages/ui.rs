//! The administration page and the page to sign in: files that run in a browser and use the API as any other client does.
//! They hold nothing of this server, so they are for everybody.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use rust_embed::Embed;

use crate::app::App;
use crate::error::{Error, Result};

#[derive(Embed)]
#[folder = "ui"]
struct Files;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(async || file("index.html")))
        .route("/login", get(async || file("login.html")))
        .route("/login/", get(async || file("login.html")))
        .route("/ui/{*path}", get(async |Path(path): Path<String>| file(&path)))
}

/// A file, or a 404. Browsers ask again each time, so that none has half of it from another version.
fn file(path: &str) -> Result<Response> {
    let file = Files::get(path).ok_or_else(|| Error::not_found("Not found"))?;
    let kind = match path.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        _ => "application/octet-stream",
    };
    Ok(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], file.data).into_response())
}
