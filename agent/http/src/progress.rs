//! What a request's bodies amount to.

use std::cell::Cell;

use http::{HeaderMap, StatusCode};

use super::gate::{RequestOutcome, RequestSummary};
use super::injected_headers::InjectedHeaders;
use ambit_authorizer::HeaderMutations;
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
