//! Why a request is not passed on, and the response that tells its client.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};

use super::body::BodyUnavailable;
use crate::authorizers::Disagreement;
use ambit_account::AccountExhausted;
use ambit_http::Rejection;
use ambit_jwt::Unauthenticated;
use ambit_policy::{BadPath, Consultation, Decider, Denial};

/// The body of the response to a denied request, as in Istio's proxies.
const DENIED: &str = "RBAC: access denied";

/// Why a request is not passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestRefusal {
    /// The pod's account has no memory for it.
    #[error(transparent)]
    NoMemory(#[from] AccountExhausted),
    /// Its path is malformed.
    #[error(transparent)]
    BadPath(#[from] BadPath),
    /// The pod's policies deny it.
    #[error("denied by this pod's policies: {0}")]
    Denied(Denial),
    /// A token in it is not accepted.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    /// Its body cannot be shown to the external authorizers that want it.
    #[error(transparent)]
    BodyUnavailable(#[from] BodyUnavailable),
    /// An external authorizer did not allow it.
    #[error("the external authorizer {} did not allow it: {disagreement}", .consultation.provider)]
    NotApproved {
        consultation: Consultation,
        disagreement: Disagreement,
    },
}

impl RequestRefusal {
    /// The word under which metrics count it.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::NoMemory(_) => "no-memory",
            Self::BadPath(_) => "bad-request",
            Self::Denied(denial) => denial.reason.as_str(),
            Self::Unauthenticated(_) => "unauthenticated",
            Self::BodyUnavailable(error) => error.as_str(),
            Self::NotApproved { .. } => "not-approved",
        }
    }

    /// The rule that decided, if one did.
    pub(crate) const fn decider(&self) -> Option<&Decider> {
        match self {
            Self::NoMemory(_)
            | Self::BadPath(_)
            | Self::Unauthenticated(_)
            | Self::BodyUnavailable(_) => None,
            Self::Denied(denial) => denial.decider.as_ref(),
            Self::NotApproved { consultation, .. } => Some(&consultation.decider),
        }
    }

    /// Returns the response to the client. `url` is the request's URL without its query.
    pub(crate) fn rejection(self, url: &str) -> Rejection {
        match self {
            Self::NoMemory(_) => rejection(StatusCode::SERVICE_UNAVAILABLE, ""),
            Self::BadPath(_) => rejection(StatusCode::BAD_REQUEST, ""),
            Self::Denied(_) => rejection(StatusCode::FORBIDDEN, DENIED),
            Self::Unauthenticated(error) => {
                let mut answer = rejection(error.status(), error.body());
                let challenge = error.www_authenticate(url);
                answer.headers.insert(WWW_AUTHENTICATE, challenge);
                answer
            }
            Self::BodyUnavailable(error) => rejection(error.status(), ""),
            Self::NotApproved { disagreement, .. } => match disagreement {
                Disagreement::Denied(answer) => Rejection {
                    status: answer.status,
                    headers: answer.headers,
                    body: answer.body,
                },
                Disagreement::NoAnswer { status, .. } => rejection(status, ""),
                Disagreement::NoAuthorizer(_) | Disagreement::AskedAboutItself(_) => {
                    rejection(StatusCode::FORBIDDEN, DENIED)
                }
            },
        }
    }
}

fn rejection(status: StatusCode, body: &'static str) -> Rejection {
    let text = HeaderValue::from_static("text/plain");
    Rejection {
        status,
        headers: HeaderMap::from_iter([(CONTENT_TYPE, text)]),
        body: Bytes::from_static(body.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_token_is_answered_with_a_challenge_and_a_denial_without_one() {
        let issuer = "https://issuer".to_owned();
        let refusal = RequestRefusal::Unauthenticated(Unauthenticated::Expired { issuer });
        let answer = refusal.rejection("http://web/order");
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.body, "Jwt is expired");
        assert!(answer.headers.contains_key(WWW_AUTHENTICATE));
        let denial = Denial {
            reason: ambit_common::Reason::DeniedByPolicy,
            decider: None,
        };
        let answer = RequestRefusal::Denied(denial).rejection("http://web/order");
        assert_eq!(
            (answer.status, answer.body.as_ref()),
            (StatusCode::FORBIDDEN, &b"RBAC: access denied"[..])
        );
        assert!(!answer.headers.contains_key(WWW_AUTHENTICATE));
    }
}
