//! The meaning of an HTTP authorizer's response.

use bytes::Bytes;
use http::header::{LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::answer::{Allowance, AuthorizerAnswer, CheckError, DenialResponse};
use crate::headers::{HeaderMutations, is_reserved};
use crate::http::pool::ConnectionLease;
use ambit_model::{HeaderPattern, HttpApi};

/// The longest body of a denial that is passed on, in bytes.
const LONGEST_BODY: usize = 64 << 10;

/// A response header that lists headers to be removed from the request.
const HEADERS_TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// The head of a response, and the connection it came on.
pub(crate) struct ResponseHead {
    pub(super) response: Response<Incoming>,
    pub(super) lease: ConnectionLease,
}

impl ResponseHead {
    /// The meaning of the response. If it is a denial, it stands from here on: its body is passed on if
    /// it arrives before `deadline`, is complete and not too long.
    pub(crate) async fn answer(self, api: &HttpApi, deadline: Instant) -> AuthorizerAnswer {
        let address = self.lease.address();
        let status = self.response.status();
        if does_not_serve(status) {
            let problem = format!("it answered with status {status}");
            return AuthorizerAnswer::Error(CheckError::NotTaken { address, problem });
        }
        if status.is_server_error() {
            let problem = format!("it answered with status {status}");
            return AuthorizerAnswer::Error(CheckError::Failed { address, problem });
        }
        if status.is_informational() {
            let problem = format!("status {status} is not an answer");
            return AuthorizerAnswer::Error(CheckError::Malformed { address, problem });
        }
        let (head, body) = self.response.into_parts();
        let body = collect(body, self.lease, deadline).await;
        if status != StatusCode::OK {
            let body = match body {
                Collected::Whole(body) => body,
                Collected::TooLong | Collected::Broken => Bytes::new(),
            };
            return AuthorizerAnswer::Deny(DenialResponse {
                status,
                headers: denial_headers(api, &head.headers),
                body,
            });
        }
        if let Collected::Broken = body {
            let problem = "its body was cut short".to_owned();
            return AuthorizerAnswer::Error(CheckError::Malformed { address, problem });
        }
        match allowance(api, &head.headers) {
            Ok(allowance) => AuthorizerAnswer::Allow(allowance),
            Err(problem) => AuthorizerAnswer::Error(CheckError::Malformed { address, problem }),
        }
    }
}

/// Whether a 5xx status is due to the request rather than to a failure of the server.
fn does_not_serve(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_IMPLEMENTED | StatusCode::HTTP_VERSION_NOT_SUPPORTED
    )
}

/// The result of reading a body.
enum Collected {
    Whole(Bytes),
    /// It is longer than the limit.
    TooLong,
    /// It was cut short, or did not arrive in time.
    Broken,
}

/// Reads a body. After that the connection may be used again.
async fn collect(body: Incoming, lease: ConnectionLease, deadline: Instant) -> Collected {
    let collected = Limited::new(body, LONGEST_BODY).collect();
    match timeout_at(deadline, collected).await {
        Ok(Ok(body)) => {
            lease.give_back().await;
            Collected::Whole(body.to_bytes())
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => Collected::TooLong,
        Ok(Err(_)) | Err(_) => Collected::Broken,
    }
}

fn allowance(api: &HttpApi, headers: &HeaderMap) -> Result<Allowance, String> {
    let mut allowance = Allowance::default();
    for name in headers.keys().filter(|name| **name != HEADERS_TO_REMOVE) {
        if matches(&api.to_upstream_on_allow, name) {
            allowance.request.set_all(headers, name);
        }
        if matches(&api.to_downstream_on_allow, name) {
            allowance.response.set_all(headers, name);
        }
    }
    for list in headers.get_all(HEADERS_TO_REMOVE) {
        let names = list.as_bytes().split(|byte| *byte == b',');
        for name in names
            .map(<[u8]>::trim_ascii)
            .filter(|name| !name.is_empty())
        {
            let removed = allowance.request.remove(name);
            removed.map_err(|error| error.to_string())?;
        }
    }
    Ok(allowance)
}

/// The headers of a denial. If the provider names none, all are passed on, as in Envoy.
fn denial_headers(api: &HttpApi, headers: &HeaderMap) -> HeaderMap {
    let patterns = &api.to_downstream_on_deny;
    let wanted = |name: &HeaderName| {
        patterns.is_empty()
            || matches(patterns, name)
            || *name == LOCATION
            || *name == WWW_AUTHENTICATE
    };
    let mut mutations = HeaderMutations::default();
    for name in headers
        .keys()
        .filter(|name| wanted(name) && !is_reserved(name))
    {
        mutations.set_all(headers, name);
    }
    let mut kept = HeaderMap::new();
    mutations.apply(&mut kept);
    kept
}

fn matches(patterns: &[HeaderPattern], name: &HeaderName) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}
