//! Why a call gets no certificate.

use tonic::{Code, Status};

use super::authorization::IssuanceDenied;
use super::caller::{CallerError, ReviewError};
use super::limits::RateLimited;
use super::pods::PodsUnknown;
use super::request::RequestError;
use ambit_authority::IssueError;

/// The longest sentence of an answer, in characters. Each may take several bytes of its header.
const MAX_SENTENCE: usize = 1024;

/// Why a call gets no certificate. Displays as a sentence for the caller and the audit log, which
/// has no part of a token but its issuer and account.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IssuanceRefusal {
    /// Nobody knows who calls.
    #[error(transparent)]
    Caller(CallerError),
    /// It cannot be found out who calls.
    #[error("{0}")]
    Reviewer(ReviewError),
    /// The caller has asked too often.
    #[error(transparent)]
    Limited(#[from] RateLimited),
    /// What is asked for cannot be told.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It cannot be told which pods run where.
    #[error(transparent)]
    Pods(#[from] PodsUnknown),
    /// The caller may not have it.
    #[error(transparent)]
    Denied(#[from] IssuanceDenied),
    /// The authority cannot sign it.
    #[error(transparent)]
    Authority(#[from] IssueError),
}

impl From<ReviewError> for IssuanceRefusal {
    fn from(error: ReviewError) -> Self {
        match error {
            ReviewError::Caller(error) => Self::Caller(error),
            unavailable @ ReviewError::Unavailable(_) => Self::Reviewer(unavailable),
        }
    }
}

impl From<CallerError> for IssuanceRefusal {
    fn from(error: CallerError) -> Self {
        Self::Caller(error)
    }
}

impl IssuanceRefusal {
    /// The code of the answer.
    pub fn code(&self) -> Code {
        match self {
            Self::Caller(_) => Code::Unauthenticated,
            Self::Reviewer(_) | Self::Pods(_) | Self::Authority(_) => Code::Unavailable,
            Self::Limited(_) => Code::ResourceExhausted,
            Self::Request(_) => Code::InvalidArgument,
            Self::Denied(_) => Code::PermissionDenied,
        }
    }

    /// The answer. What the caller has sent comes back in it, so that it is cut off where a header
    /// would be too long.
    pub fn status(&self) -> Status {
        let sentence = self
            .to_string()
            .chars()
            .take(MAX_SENTENCE)
            .collect::<String>();
        Status::new(self.code(), sentence)
    }
}
