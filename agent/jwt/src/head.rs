//! The head of a request, as far as tokens are concerned.

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{HeaderMap, Method};

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestToAuthenticate<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query, as they came.
    pub target: &'a str,
    /// The headers, without pseudo-headers.
    pub headers: &'a HeaderMap,
}

impl RequestToAuthenticate<'_> {
    /// Whether a browser asks what it may send (the Fetch standard's CORS-preflight): it does not
    /// send a token along then.
    pub(super) fn is_preflight(&self) -> bool {
        let has = |name| {
            self.headers
                .get(name)
                .is_some_and(|value| !value.is_empty())
        };
        self.method == Method::OPTIONS && has(ORIGIN) && has(ACCESS_CONTROL_REQUEST_METHOD)
    }
}
