//! What a request's bodies amount to.

use std::cell::Cell;
use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, StatusCode};

use super::gate::{RequestOutcome, RequestSummary};
use ambit_authorizer::HeaderMutations;
use ambit_model::{HeaderPattern, folded};
use ambit_relay::Meter;

/// What becomes of a request, while it is carried.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    meter: &'a Meter,
    sent: Cell<u64>,
    received: Cell<u64>,
    status: Cell<Option<StatusCode>>,
    response_mutations: Vec<HeaderMutations>,
    injected_headers: InjectedHeaders,
}

impl<'a> Progress<'a> {
    /// Of a request on a connection that `meter` counts for, whose answer is to be changed so.
    pub(super) fn new(meter: &'a Meter, response_mutations: Vec<HeaderMutations>) -> Self {
        Self {
            response_mutations,
            injected_headers: InjectedHeaders::default(),
            meter,
            sent: Cell::new(0),
            received: Cell::new(0),
            status: Cell::new(None),
        }
    }

    /// The same, of a request whose trailers may not bring these headers.
    pub(super) fn withholding(self, injected_headers: InjectedHeaders) -> Self {
        Self {
            injected_headers,
            ..self
        }
    }

    /// The trailers as they are passed on.
    pub(super) fn trailers(&self, message: MessageKind, mut trailers: HeaderMap) -> HeaderMap {
        match message {
            MessageKind::Request => self.injected_headers.withhold(&mut trailers),
            MessageKind::Response => {}
        }
        trailers
    }

    /// Counts bytes of a body.
    pub(super) fn carried(&self, message: MessageKind, bytes: usize) {
        let bytes = bytes as u64;
        match message {
            MessageKind::Request => {
                self.sent.set(self.sent.get() + bytes);
                self.meter.add_sent(bytes);
            }
            MessageKind::Response => {
                self.received.set(self.received.get() + bytes);
                self.meter.add_received(bytes);
            }
        }
    }

    /// Changes the headers of the final answer.
    pub(super) fn amend(&self, headers: &mut HeaderMap) {
        for mutation in &self.response_mutations {
            mutation.apply(headers);
        }
    }

    /// Notes the final answer.
    pub(super) fn answered(&self, status: StatusCode) {
        self.status.set(Some(status));
    }

    /// Whether the final answer has begun.
    pub(super) fn is_answered(&self) -> bool {
        self.status.get().is_some()
    }

    /// What became of it.
    pub(super) fn exchange(&self, outcome: RequestOutcome) -> RequestSummary {
        RequestSummary {
            status: self.status.get(),
            sent: self.sent.get(),
            received: self.received.get(),
            outcome,
        }
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MessageKind {
    /// From the client to the application.
    Request,
    /// From the application to the client.
    Response,
}

/// Names of such headers. Trailers must not bring one, nor one that an application may take for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InjectedHeaders {
    folded: BTreeSet<String>,
    patterns: Vec<HeaderPattern>,
}

impl InjectedHeaders {
    /// Adds a name.
    pub fn add(&mut self, name: &HeaderName) {
        self.folded.insert(folded(name.as_str()));
    }

    /// Adds all names that a pattern means.
    pub fn add_pattern(&mut self, pattern: &HeaderPattern) {
        self.patterns.push(pattern.clone());
    }

    /// Takes such headers out.
    pub(crate) fn withhold(&self, trailers: &mut HeaderMap) {
        let names: Vec<HeaderName> = trailers.keys().cloned().collect();
        for name in names.iter().filter(|name| self.covers(name)) {
            trailers.remove(name);
        }
    }

    fn covers(&self, name: &HeaderName) -> bool {
        let is_like = |pattern: &HeaderPattern| pattern.resembles(name);
        self.folded.contains(&folded(name.as_str())) || self.patterns.iter().any(is_like)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn an_output_and_what_looks_like_it_are_withheld() {
        let mut injected_headers = InjectedHeaders::default();
        injected_headers.add(&HeaderName::from_static("x-user"));
        injected_headers.add_pattern(&HeaderPattern::new("x-auth-*").expect("a pattern"));
        let mut trailers = HeaderMap::new();
        for name in [
            "x-user",
            "x_user",
            "x.user",
            "x-auth-id",
            "x_auth_id",
            "x-users",
            "x-aut",
        ] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        injected_headers.withhold(&mut trailers);
        let mut left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-aut", "x-users"]);
    }
}
