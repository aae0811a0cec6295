//! What many routes may answer, described once for the OpenAPI document. The replies themselves are made by
//! [`crate::Error`].

use utoipa::{IntoResponses, ToSchema};

use super::error::ErrorBody;

/// Any call that needs to know who is asking.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it describes replies; they are made by `Error`")]
pub(super) enum CallerErrors {
    /// No valid key or session
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// Another site asked
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// Too many requests
    #[response(status = 429)]
    TooMany(ErrorBody),
    /// The server failed
    #[response(status = 500)]
    Internal(ErrorBody),
    /// The server cannot do it now
    #[response(status = 503)]
    Unavailable(ErrorBody),
}

/// Any call with a JSON body.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "as above")]
pub(super) enum BodyErrors {
    /// Not the JSON that is expected, or a rule is broken
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body is not JSON
    #[response(status = 415)]
    UnsupportedMedia(ErrorBody),
}

/// Any bytes.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
pub(super) struct Binary(#[expect(dead_code, reason = "stands for a body in the OpenAPI document")] Vec<u8>);
