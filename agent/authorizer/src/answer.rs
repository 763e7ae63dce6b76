use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::check::Oddity;
use crate::connection::NotConnected;
use crate::headers::HeaderMutations;
use ambit_model::{OnError, ProviderService};

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

/// Why there is no answer of an authorizer.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Nobody knows where it is.
    #[error(
        "the external authorizer {}:{} cannot be found: {source}; see the service of the extension \
         provider in Istio's MeshConfig",
        service.host,
        service.port
    )]
    NotFound {
        /// What was looked up.
        service: ProviderService,
        /// Why it was not found.
        source: io::Error,
    },
    /// It does not take connections, or they break.
    #[error("the external authorizer at {address} cannot be reached: {problem}")]
    Unreachable {
        /// Where it was looked for.
        address: SocketAddr,
        /// What the connection says.
        problem: String,
    },
    /// It did not answer in time.
    #[error(
        "the external authorizer {}:{} did not answer within {timeout:?}",
        service.host,
        service.port
    )]
    TimedOut {
        /// The authorizer.
        service: ProviderService,
        /// How long it had.
        timeout: Duration,
    },
    /// It answered that it failed: 5xx, or a failed call.
    #[error("the external authorizer at {address} failed: {problem}")]
    Failed {
        /// Its address.
        address: SocketAddr,
        /// What it said.
        problem: String,
    },
    /// Its answer cannot be read, does not come to its end, or asks for what an authorizer may not do.
    /// It may have been meant as a denial.
    #[error("the answer of the external authorizer at {address} cannot be followed: {problem}")]
    Malformed {
        /// Its address.
        address: SocketAddr,
        /// What is wrong with it.
        problem: String,
    },
    /// It could not take this check: too large, or not valid to it.
    #[error("the external authorizer at {address} could not take the check: {problem}")]
    NotTaken {
        /// Its address.
        address: SocketAddr,
        /// What it said.
        problem: String,
    },
    /// It failed on a request that authorizers may fail on, so that `failOpen` does not count.
    #[error(
        "{error} (failOpen does not count, since authorizers may fail on this request: {oddity})"
    )]
    OnOddRequest {
        /// What is odd about the request.
        oddity: Oddity,
        /// How it failed.
        error: Box<Self>,
    },
    /// The request or connection cannot be put to this kind of authorizer.
    #[error("the external authorizer cannot be asked: {0}")]
    NotAskable(&'static str),
    /// The pod may have no connection for it.
    #[error("the external authorizer at {address} cannot be asked for want of room: {problem}")]
    NoRoom {
        /// Its address.
        address: SocketAddr,
        /// What there is too much of.
        problem: String,
    },
    /// The pod has too many checks under way.
    #[error("the pod has {cap} external authorizations under way already, which is its cap")]
    OverCap {
        /// The cap.
        cap: usize,
    },
}

impl CheckError {
    /// Whether a request is let through where the provider says `failOpen`: only if the authorizer said
    /// nothing, or that it failed. Not where its answer cannot be followed, which may be a denial, and
    /// not where a caller can bring the failure about with a request, or with many.
    pub fn may_be_let_through(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::Failed { .. } => true,
            Self::Malformed { .. }
            | Self::NotTaken { .. }
            | Self::OnOddRequest { .. }
            | Self::NotAskable(_)
            | Self::NoRoom { .. }
            | Self::OverCap { .. } => false,
        }
    }

    /// The same failure, on a request with this oddity.
    pub(super) fn on(self, oddity: Option<Oddity>) -> Self {
        match oddity {
            Some(oddity) if self.may_be_let_through() => Self::OnOddRequest {
                oddity,
                error: Box::new(self),
            },
            Some(_) | None => self,
        }
    }

    /// The word that logs and metrics use.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::OnOddRequest { error, .. } => error.as_str(),
            Self::NotFound { .. } => "authorizer-not-found",
            Self::Unreachable { .. } => "authorizer-unreachable",
            Self::TimedOut { .. } => "authorizer-timed-out",
            Self::Failed { .. } => "authorizer-failed",
            Self::Malformed { .. } => "authorizer-malformed",
            Self::NotTaken { .. } => "authorizer-check-not-taken",
            Self::NotAskable(_) => "authorizer-not-askable",
            Self::NoRoom { .. } => "authorizer-no-room",
            Self::OverCap { .. } => "authorizer-over-cap",
        }
    }

    /// For want of a connection.
    pub(super) fn not_connected(address: SocketAddr, error: NotConnected) -> Self {
        match error {
            NotConnected::Unreachable(problem) => Self::Unreachable { address, problem },
            NotConnected::NoRoom(problem) => Self::NoRoom { address, problem },
        }
    }

    /// Because of what a connection says.
    pub(super) fn unreachable(address: SocketAddr, error: &dyn std::error::Error) -> Self {
        let problem = describe(error);
        Self::Unreachable { address, problem }
    }
}

/// An error with its causes.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut problem = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        problem = format!("{problem}: {error}");
        cause = error.source();
    }
    problem
}
