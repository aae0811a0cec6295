//! What a person sees in a browser: the administration page, the documentation, the OpenAPI document and Swagger UI.

mod docs;
mod ui;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::openapi;
use crate::app::App;

pub(super) fn router() -> Router<Arc<App>> {
    let document = openapi::document().to_string();
    let document = move || {
        let document = document.clone();
        async move { json(document) }
    };
    Router::new()
        .route("/openapi.json", get(document))
        .merge(ui::router())
        .merge(docs::router())
        .merge(SwaggerUi::new("/swagger").config(Config::from("/openapi.json")))
}

fn json(document: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document)
}

/// Swagger UI sets styles from its scripts; everything else is a file of ours.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// Tells browsers to take every reply for what it says it is, and to run nothing that is not ours.
pub(super) async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
