//! What the failures of VMs and of calls into them mean to a client.

use rds_vmm::guest::GuestError;

use crate::error::Error;

pub(super) fn no_such_vm() -> Error {
    Error::not_found("VM not found")
}

pub(super) fn unreachable_agent() -> Error {
    Error::BadGateway("The VM runs, but its agent does not answer".into())
}

pub(super) fn stopping() -> Error {
    Error::Unavailable("The server is stopping".into())
}

/// What a failed call into a guest means to a client.
impl From<GuestError> for Error {
    fn from(error: GuestError) -> Self {
        match error {
            GuestError::Status { status: 404, message } => Self::NotFound(message),
            GuestError::Status { status: 400, message } => Self::Invalid(message),
            GuestError::Status { status: 409, message } => Self::Conflict(message),
            GuestError::Status { status: 507, message } => Self::Conflict(message),
            GuestError::Status { message, .. } => Self::BadGateway(format!("The VM's agent failed: {message}")),
            GuestError::Timeout => Self::GatewayTimeout("The VM's agent did not answer in time".into()),
            GuestError::Unreachable { may_have_run: true, .. } => Self::BadGateway(
                "The connection to the VM broke; what was asked for may have been done, wholly or in part".into(),
            ),
            GuestError::Unreachable { .. } => unreachable_agent(),
            GuestError::Protocol(_) => Self::BadGateway("The VM's agent answered nonsense".into()),
        }
    }
}
