use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::error::CheckError;
use super::headers::HeaderMutations;
use ambit_model::OnError;

/// What an authorizer answered.
#[derive(Debug)]
pub enum AuthorizerAnswer {
    /// The request may pass, as far as this authorizer is concerned.
    Allow(Allowance),
    /// It may not.
    Deny(DenialResponse),
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
pub struct DenialResponse {
    /// The status, 200 to 599.
    pub status: StatusCode,
    /// The headers, none of which concerns framing.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum CheckOutcome {
    /// The authorizer allowed it.
    Allow(Allowance),
    /// The authorizer denied it.
    Deny(DenialResponse),
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

impl AuthorizerAnswer {
    /// What follows for the request. `on_error` counts only if there is no answer, and lets a request
    /// through only if [`CheckError::may_be_let_through`].
    pub fn settle(self, on_error: OnError) -> CheckOutcome {
        match (self, on_error) {
            (Self::Allow(allowance), _) => CheckOutcome::Allow(allowance),
            (Self::Deny(denial), _) => CheckOutcome::Deny(denial),
            (Self::Error(error), OnError::LetThrough) if error.may_be_let_through() => {
                CheckOutcome::LetThrough(error)
            }
            (Self::Error(error), OnError::LetThrough) => CheckOutcome::Refuse {
                status: StatusCode::FORBIDDEN,
                error,
            },
            (Self::Error(error), OnError::Refuse(status)) => CheckOutcome::Refuse { status, error },
        }
    }
}
