//! What is counted and changed of a request while it is carried.

use std::cell::Cell;
use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, StatusCode};

use super::gate::{RequestOutcome, RequestSummary};
use super::trailers::retain;
use ambit_authorizer::HeaderMutations;
use ambit_model::{HeaderPattern, folded};
use ambit_relay::Meter;

/// The counters of a request that is being carried, and the changes to its response and trailers.
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
    /// For a request on a connection that `meter` counts for; the mutations are applied to its
    /// response.
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

    /// The same, for a request whose trailers must not contain these headers.
    pub(super) fn withholding(self, injected_headers: InjectedHeaders) -> Self {
        Self {
            injected_headers,
            ..self
        }
    }

    /// The progress of one of the request's two bodies.
    pub(super) fn body(&self, message: MessageKind) -> BodyProgress<'_> {
        let progress = self;
        BodyProgress { progress, message }
    }

    /// Applies the mutations to the final response's headers.
    pub(super) fn amend(&self, headers: &mut HeaderMap) {
        for mutation in &self.response_mutations {
            mutation.apply(headers);
        }
    }

    /// Notes the status of the final response.
    pub(super) fn answered(&self, status: StatusCode) {
        self.status.set(Some(status));
    }

    /// Whether the final response has begun.
    pub(super) fn is_answered(&self) -> bool {
        self.status.get().is_some()
    }

    /// Bytes of the response's body that were passed on.
    pub(super) fn received(&self) -> u64 {
        self.received.get()
    }

    /// Counts what was relayed after an upgrade, and what the connection's meter has counted already.
    pub(super) fn relayed(&self, sent: u64, received: u64) {
        self.sent.set(self.sent.get() + sent);
        self.received.set(self.received.get() + received);
    }

    /// The summary of the request, which has ended like this.
    pub(super) fn summary(&self, outcome: RequestOutcome) -> RequestSummary {
        RequestSummary {
            status: self.status.get(),
            sent: self.sent.get(),
            received: self.received.get(),
            outcome,
        }
    }
}

/// The progress of a request's body, or of its response's.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyProgress<'a> {
    progress: &'a Progress<'a>,
    message: MessageKind,
}

impl BodyProgress<'_> {
    /// Removes the trailers that are not passed on.
    pub(super) fn retain_trailers(self, trailers: &mut HeaderMap) {
        retain(trailers, self.message);
        match self.message {
            MessageKind::Request => self.progress.injected_headers.withhold(trailers),
            MessageKind::Response => {}
        }
    }

    /// Counts bytes of the body that were passed on.
    pub(super) fn carried(self, bytes: usize) {
        let bytes = bytes as u64;
        let Progress {
            meter,
            sent,
            received,
            ..
        } = self.progress;
        match self.message {
            MessageKind::Request => {
                sent.set(sent.get() + bytes);
                meter.add_sent(bytes);
            }
            MessageKind::Response => {
                received.set(received.get() + bytes);
                meter.add_received(bytes);
            }
        }
    }
}

/// Why a body was not moved to its end. `Source` and `Sink` are the errors of the side that is read
/// and of the side that is written.
#[derive(Debug)]
pub(super) enum PumpError<Source, Sink> {
    /// The sender broke off, or its body is malformed.
    Source(Source),
    /// The receiver takes no more.
    Sink(Sink),
}

/// Which message bytes belong to, and so which way they go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MessageKind {
    /// From the client to the application.
    Request,
    /// From the application to the client.
    Response,
}

/// Names of the headers that a request gets from this agent and from authorizers, not from its
/// client. The client's trailers must not contain them, nor names that an application may take for
/// one of them.
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

    /// Adds all names that a pattern matches.
    pub fn add_pattern(&mut self, pattern: &HeaderPattern) {
        self.patterns.push(pattern.clone());
    }

    /// Removes these headers.
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
    fn an_injected_header_and_names_that_resemble_it_are_withheld() {
        let mut injected = InjectedHeaders::default();
        injected.add(&HeaderName::from_static("x-user"));
        injected.add_pattern(&HeaderPattern::new("x-auth-*").expect("a pattern"));
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
        injected.withhold(&mut trailers);
        let mut left: Vec<&str> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-aut", "x-users"]);
    }
}
