//! The one place that turns an [`Error`] into a status and JSON.

use axum::Json as Reply;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::request_id;
use crate::error::{Chain, Error, retry_seconds};

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorBody {
    /// For people.
    #[schema(example = "VM not found")]
    pub(crate) message: String,
    /// For programs; stable.
    #[schema(example = "not_found")]
    pub(crate) code: &'static str,
    /// Finds the cause of an internal error in the server's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_id: Option<String>,
}

fn status(error: &Error) -> StatusCode {
    match error {
        Error::Invalid(_) => StatusCode::BAD_REQUEST,
        Error::Unauthorized(_) => StatusCode::UNAUTHORIZED,
        Error::Forbidden(_) => StatusCode::FORBIDDEN,
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Error::Conflict(_) => StatusCode::CONFLICT,
        Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::UnsupportedMedia(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Error::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
        Error::Unavailable(_) | Error::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::BadGateway(_) => StatusCode::BAD_GATEWAY,
        Error::GatewayTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
        Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = status(&self);
        let request_id = (status == StatusCode::INTERNAL_SERVER_ERROR).then(request_id::current).flatten();
        if matches!(self, Self::Internal(_) | Self::Full(_)) {
            tracing::error!(error = %Chain(&self), "request failed");
        }
        let body = ErrorBody { message: self.to_string(), code: self.code(), request_id };
        let mut response = (status, Reply(body)).into_response();
        if let Self::TooMany { retry_after: Some(wait), .. } = self {
            response.headers_mut().insert(header::RETRY_AFTER, retry_seconds(wait).into());
        }
        response
    }
}
