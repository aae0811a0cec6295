//! The OpenAPI document, made from the handlers.

mod downgrade;

use axum::http::StatusCode;
use serde_json::Value;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{PathItem, RefOr};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;

use super::auth::{COOKIE, KEY_HEADER};
use super::{keyed_routes, limited_routes, open_routes, session_routes};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "run-dat-sheesh",
        description = "Runs code in microVMs. Errors are JSON with a `message` for people and a stable `code` for \
                       programs; every reply has an `x-request-id`.",
        license(name = "Apache-2.0", url = "https://www.apache.org/licenses/LICENSE-2.0"),
    ),
    servers((url = "/")),
    tags(
        (name = "vms", description = "VMs and their life"),
        (name = "run", description = "Running code in a VM"),
        (name = "files", description = "Files of a VM"),
        (name = "peers", description = "Calls from one VM's code to another's"),
        (name = "images", description = "What VMs are made from"),
        (name = "snapshots", description = "What VMs start from"),
        (name = "audit", description = "What VMs called of each other"),
        (name = "admin", description = "What there is and what happens"),
        (name = "api-keys", description = "Keys for programs"),
        (name = "webhooks", description = "Where events are sent"),
        (name = "sessions", description = "Signing in"),
        (name = "operation", description = "Whether the server is well"),
    ),
    security(("apiKey" = []), ("session" = [])),
    modifiers(&Schemes),
)]
struct Document;

/// The two ways to say who is asking.
struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let key =
            ApiKeyValue::with_description(KEY_HEADER, "The key of the configuration, or one made through the API");
        components.add_security_scheme("apiKey", SecurityScheme::ApiKey(ApiKey::Header(key)));
        let bridge = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let bridge = bridge.description(Some("The token of a VM's present start")).build();
        components.add_security_scheme("bridge", SecurityScheme::Http(bridge));
        let metrics = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("METRICS_TOKEN")).build();
        components.add_security_scheme("metrics", SecurityScheme::Http(metrics));
        let cookie = ApiKeyValue::with_description(COOKIE, "Set by POST /auth/login");
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

/// The document, in OpenAPI 3.0.3.
pub fn document() -> Value {
    let mut document = OpenApiRouter::with_openapi(Document::openapi())
        .merge(open_routes())
        .merge(limited_routes())
        .nest("/v1", keyed_routes().merge(session_routes()))
        .into_openapi();
    document.paths.paths.values_mut().for_each(complete);
    let document = serde_json::to_value(document).expect("the document is plain data");
    downgrade::to_3_0(document)
}

fn complete(path: &mut PathItem) {
    let operations = [&mut path.get, &mut path.put, &mut path.post, &mut path.patch, &mut path.delete];
    for operation in operations.into_iter().flatten() {
        name(operation);
        describe_responses(operation);
    }
}

/// A handler's name is its own only among those of its tag; generators of clients want one among all.
fn name(operation: &mut Operation) {
    let tag = operation.tags.iter().flatten().next().map(|tag| tag.replace('-', "_"));
    if let (Some(tag), Some(name)) = (tag, operation.operation_id.as_mut()) {
        name.insert_str(0, &format!("{tag}_"));
    }
}

/// A response must have words; one without gets those of its status.
fn describe_responses(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            let status = status.parse().ok();
            let words = status.and_then(|status: StatusCode| status.canonical_reason()).unwrap_or("Reply");
            response.description = words.to_owned();
        }
    }
}

#[cfg(test)]
mod tests;
