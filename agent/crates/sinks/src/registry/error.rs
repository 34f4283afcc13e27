//! Errors of requests to a registry.

use std::time::Duration;

/// The failure of a request. Each text follows "the registry".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No readable answer.
    #[error(transparent)]
    Http(#[from] tap53_http::Error),
    /// 401.
    #[error("does not accept the credentials (401): {0}")]
    Unauthorized(String),
    /// 403.
    #[error("denies access (403): {0}")]
    Forbidden(String),
    /// 404 or the like with `register: false`.
    #[error(
        "has no such schema under subject {subject}, and register is false: register what `tap53 \
         schema` prints"
    )]
    NotRegistered {
        /// The subject.
        subject: String,
    },
    /// 409, or the answer to the check of compatibility.
    #[error("refuses the schema as incompatible with subject {subject}: {why}")]
    Incompatible {
        /// The subject.
        subject: String,
        /// The registry's reason.
        why: String,
    },
    /// 422.
    #[error("refuses the schema as invalid (422): {0}")]
    Invalid(String),
    /// 404 without one of the API's error codes.
    #[error("has no such path (404), so that the URL may lack a part: {0}")]
    NoSuchPath(String),
    /// 3xx.
    #[error("redirects ({status}) to {location}, which is not followed: give the URL that answers")]
    Redirected {
        /// Status code of the answer.
        status: u16,
        /// The target.
        location: String,
    },
    /// Any other status.
    #[error("answers with an error ({status}): {message}")]
    Refused {
        /// Status code of the answer.
        status: u16,
        /// The registry's message.
        message: String,
        /// The wait that it requests (`Retry-After`), or zero.
        retry_after: Duration,
    },
}

impl Error {
    /// True if another instance of the registry may succeed.
    pub(super) const fn is_instance_error(&self) -> bool {
        match self {
            Self::Http(error) => !matches!(error, tap53_http::Error::File { .. }),
            Self::Redirected { .. } => true,
            Self::Refused { status, .. } => *status >= 500 || *status == 429,
            _ => false,
        }
    }

    /// Returns the wait that the registry requests (`Retry-After`), or zero.
    pub(super) const fn retry_after(&self) -> Duration {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => Duration::ZERO,
        }
    }

    /// True for the same kind of error, which need not be logged again. The server's text may differ
    /// each time, for instance by the number of the request.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        use std::mem::discriminant;
        match (self, other) {
            (Self::Refused { status, .. }, Self::Refused { status: other, .. }) => status == other,
            (Self::Http(error), Self::Http(other)) => discriminant(error) == discriminant(other),
            _ => discriminant(self) == discriminant(other),
        }
    }
}
