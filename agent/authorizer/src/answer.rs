use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::check::Oddity;
use crate::connection::NotConnected;
use crate::headers::HeaderMutations;
use ambit_model::{OnError, ProviderService};

/// An authorizer's answer to a check.
#[derive(Debug)]
pub enum AuthorizerAnswer {
    /// The request may pass, as far as this authorizer is concerned.
    Allow(Allowance),
    /// The request is denied.
    Deny(DenialResponse),
    /// There is no usable answer.
    Error(CheckError),
}

/// Permission for a request to pass, with changes to headers.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Allowance {
    /// Changes to the request's headers before it is passed on.
    pub request: HeaderMutations,
    /// Changes to the headers of the application's response.
    pub response: HeaderMutations,
}

/// The response to a denied request. A denied connection is closed without it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DenialResponse {
    /// The status code, 200 to 599.
    pub status: StatusCode,
    /// The headers. None of them concerns framing.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// What happens to a request or connection after a check.
#[derive(Debug)]
pub enum CheckOutcome {
    /// The authorizer allowed it.
    Allow(Allowance),
    /// The authorizer denied it.
    Deny(DenialResponse),
    /// The authorizer gave no answer, but the provider says `failOpen`.
    LetThrough(CheckError),
    /// The authorizer gave no answer, so the request is refused.
    Refuse {
        /// The status code of the response.
        status: StatusCode,
        /// Why there is no answer.
        error: CheckError,
    },
}

impl AuthorizerAnswer {
    /// Decides what happens to the request. `on_error` applies only if there is no answer, and lets a
    /// request through only if [`CheckError::may_be_let_through`].
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

/// Why an authorizer gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Its service cannot be found.
    #[error(
        "the external authorizer {}:{} cannot be found: {source}; check the service of the extension \
         provider in Istio's MeshConfig",
        service.host,
        service.port
    )]
    NotFound {
        /// The service that was looked up.
        service: ProviderService,
        /// The resolver's error.
        source: io::Error,
    },
    /// It does not accept connections, or a connection broke.
    #[error("the external authorizer at {address} cannot be reached: {problem}")]
    Unreachable {
        /// The address that was tried.
        address: SocketAddr,
        /// What went wrong with the connection.
        problem: String,
    },
    /// It did not answer in time.
    #[error(
        "the external authorizer {}:{} did not answer within {timeout:?}",
        service.host,
        service.port
    )]
    TimedOut {
        /// The authorizer's service.
        service: ProviderService,
        /// The time limit.
        timeout: Duration,
    },
    /// It said that it failed: a 5xx status, or a failed call.
    #[error("the external authorizer at {address} failed: {problem}")]
    Failed {
        /// The authorizer's address.
        address: SocketAddr,
        /// What it said.
        problem: String,
    },
    /// Its answer cannot be read, is incomplete, or asks for something that an authorizer may not do.
    /// It may have been a denial.
    #[error("the answer of the external authorizer at {address} cannot be used: {problem}")]
    Malformed {
        /// The authorizer's address.
        address: SocketAddr,
        /// What is wrong with the answer.
        problem: String,
    },
    /// It did not accept this check: too large, or invalid for it.
    #[error("the external authorizer at {address} did not accept the check: {problem}")]
    NotTaken {
        /// The authorizer's address.
        address: SocketAddr,
        /// What it said.
        problem: String,
    },
    /// It failed on a request that many authorizers fail on, so `failOpen` does not apply.
    #[error(
        "{error} (failOpen does not apply, since authorizers may fail on this request: {oddity})"
    )]
    OnOddRequest {
        /// What is unusual about the request.
        oddity: Oddity,
        /// How it failed.
        error: Box<Self>,
    },
    /// This kind of authorizer cannot be asked about the request or connection.
    #[error("the external authorizer cannot be asked: {0}")]
    NotAskable(&'static str),
    /// The pod may not open another connection.
    #[error(
        "the external authorizer at {address} cannot be asked, because there is no room: {problem}"
    )]
    NoRoom {
        /// The authorizer's address.
        address: SocketAddr,
        /// The resource that is used up.
        problem: String,
    },
    /// The pod has too many checks under way.
    #[error("the pod already has {cap} external authorizations under way, which is its cap")]
    OverCap {
        /// The cap.
        cap: usize,
    },
}

impl CheckError {
    /// Whether `failOpen` lets a request through after this error: only if the authorizer said nothing,
    /// or said that it failed. Not if its answer is unusable, because that may be a denial, and not if
    /// a caller can provoke the failure with one request or with many.
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

    /// The same failure, on a request that is unusual in this way.
    pub(super) fn on(self, oddity: Option<Oddity>) -> Self {
        match oddity {
            Some(oddity) if self.may_be_let_through() => Self::OnOddRequest {
                oddity,
                error: Box::new(self),
            },
            Some(_) | None => self,
        }
    }

    /// The word for logs and metrics.
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

    /// The error for a failed connection attempt.
    pub(super) fn not_connected(address: SocketAddr, error: NotConnected) -> Self {
        match error {
            NotConnected::Unreachable(problem) => Self::Unreachable { address, problem },
            NotConnected::NoRoom(problem) => Self::NoRoom { address, problem },
        }
    }

    /// The error for a connection that failed.
    pub(super) fn unreachable(address: SocketAddr, error: &dyn std::error::Error) -> Self {
        let problem = describe(error);
        Self::Unreachable { address, problem }
    }
}

/// An error's message with those of its causes.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut problem = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        problem = format!("{problem}: {error}");
        cause = error.source();
    }
    problem
}
