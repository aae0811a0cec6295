//! A call that gave no result, as both of its doors answer it.

use std::time::Duration;

use rds_peers::audit::Outcome;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::Error;

/// Why a call gave no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFailure {
    /// HTTP status.
    pub status: u16,
    /// How it goes into the audit log.
    pub outcome: Outcome,
    /// When the same call may do better.
    pub retry_after: Option<Duration>,
    /// What the caller is told.
    pub body: Box<CallError>,
}

/// The body of a failed call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallError {
    /// For people: the provider's own message, when its code threw.
    #[schema(example = "no such mailbox")]
    pub message: String,
    /// For programs; stable.
    #[schema(example = "peer_threw")]
    pub code: &'static str,
    /// The thrown error's name, when the provider's code threw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The rule of the link's policy that refused the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Finds the cause of a failure of the server in its log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl CallFailure {
    pub(crate) fn new(status: u16, outcome: Outcome, code: &'static str, message: impl Into<String>) -> Self {
        let body = CallError { message: message.into(), code, name: None, rule: None, request_id: None };
        Self { status, outcome, retry_after: None, body: Box::new(body) }
    }

    /// As the request of this name is answered.
    pub(crate) fn of_request(mut self, id: impl FnOnce() -> Option<String>) -> Self {
        if self.status == 500 {
            self.body.request_id = id();
        }
        self
    }

    /// Refused before the provider was entered.
    pub(crate) fn refused(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(status, Outcome::Refused, code, message)
    }

    /// Over a limit.
    pub(crate) fn over_limit(retry_after: Duration, message: impl Into<String>) -> Self {
        Self { retry_after: Some(retry_after), ..Self::refused(429, "policy", message) }
    }

    /// More calls than a VM may make. Nothing of this one was looked at, and it is not recorded.
    pub(crate) fn too_many(retry_after: Duration, message: &str) -> Self {
        Self { retry_after: Some(retry_after), ..Self::refused(429, "too_many_requests", message) }
    }

    /// The provider could not make the call, or what it gave back cannot be used.
    pub(crate) fn failed(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self::new(status, Outcome::Failed, code, message)
    }

    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self::new(504, Outcome::TimedOut, "peer_timeout", message)
    }
}

/// A failure of a service on the way of a call.
impl From<Error> for CallFailure {
    fn from(error: Error) -> Self {
        let (status, code) = match error {
            Error::Conflict(_) | Error::NotFound(_) => (409, error.code()),
            Error::GatewayTimeout(_) => (504, error.code()),
            Error::BadGateway(_) => (502, error.code()),
            Error::Unavailable(_) => (503, error.code()),
            // The provider was started anew, and what it offers now is not what it must be. The request is blameless.
            Error::Invalid(_) => (502, "peer_failed"),
            _ => (500, error.code()),
        };
        if status == 500 {
            tracing::error!(error = %crate::error::Chain(&error), "a call failed in the server");
        }
        Self::failed(status, code, error.to_string())
    }
}
