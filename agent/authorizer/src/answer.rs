use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::error::CheckError;
use super::headers::HeaderMutations;
use ambit_model::OnError;

/// What an authorizer answered.
#[derive(Debug)]
pub enum Answer {
    /// The request may pass, as far as this authorizer is concerned.
    Allow(Allowance),
    /// It may not.
    Deny(Denial),
    /// There is no answer.
    Error(CheckError),
}

/// A request may pass, with changes.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Allowance {
    /// To the headers of the request, before it is passed on.
    pub request: HeaderMutations,
    /// To the headers of the application's response.
    pub response: HeaderMutations,
}

/// The response to a request that may not pass. A connection is just closed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// The status, 200 to 599.
    pub status: StatusCode,
    /// The headers, none of which concerns framing.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The authorizer allowed it.
    Allow(Allowance),
    /// The authorizer denied it.
    Deny(Denial),
    /// The authorizer gave no answer, and the provider says `failOpen`.
    LetThrough(CheckError),
    /// The authorizer gave no answer.
    Refuse {
        /// The status of the response.
        status: StatusCode,
        /// Why there is no answer.
        error: CheckError,
    },
}

impl Answer {
    /// What follows for the request. `on_error` counts only if there is no answer, and lets a request
    /// through only if [`CheckError::may_be_let_through`].
    pub fn settle(self, on_error: OnError) -> Outcome {
        match (self, on_error) {
            (Self::Allow(allowance), _) => Outcome::Allow(allowance),
            (Self::Deny(denial), _) => Outcome::Deny(denial),
            (Self::Error(error), OnError::LetThrough) if error.may_be_let_through() => {
                Outcome::LetThrough(error)
            }
            (Self::Error(error), OnError::LetThrough) => Outcome::Refuse {
                status: StatusCode::FORBIDDEN,
                error,
            },
            (Self::Error(error), OnError::Refuse(status)) => Outcome::Refuse { status, error },
        }
    }
}
