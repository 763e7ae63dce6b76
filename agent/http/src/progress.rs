//! What a request's bodies amount to.

use std::cell::Cell;

use http::{HeaderMap, StatusCode};

use super::gate::{Exchange, Outcome};
use super::outputs::OutputNames;
use ambit_authorizer::HeaderMutations;
use ambit_relay::Meter;

/// What becomes of a request, while it is carried.
#[derive(Debug)]
pub(super) struct Progress<'a> {
    meter: &'a Meter,
    sent: Cell<u64>,
    received: Cell<u64>,
    status: Cell<Option<StatusCode>>,
    amendments: Vec<HeaderMutations>,
    outputs: OutputNames,
}

impl<'a> Progress<'a> {
    /// Of a request on a connection that `meter` counts for, whose answer is to be changed so.
    pub(super) fn new(meter: &'a Meter, amendments: Vec<HeaderMutations>) -> Self {
        Self {
            amendments,
            outputs: OutputNames::default(),
            meter,
            sent: Cell::new(0),
            received: Cell::new(0),
            status: Cell::new(None),
        }
    }

    /// The same, of a request whose trailers may not bring these headers.
    pub(super) fn withholding(self, outputs: OutputNames) -> Self {
        Self { outputs, ..self }
    }

    /// The trailers as they are passed on.
    pub(super) fn trailers(&self, way: Way, mut trailers: HeaderMap) -> HeaderMap {
        match way {
            Way::Request => self.outputs.withhold(&mut trailers),
            Way::Response => {}
        }
        trailers
    }

    /// Counts bytes of a body.
    pub(super) fn carried(&self, way: Way, bytes: usize) {
        let bytes = bytes as u64;
        match way {
            Way::Request => {
                self.sent.set(self.sent.get() + bytes);
                self.meter.add_sent(bytes);
            }
            Way::Response => {
                self.received.set(self.received.get() + bytes);
                self.meter.add_received(bytes);
            }
        }
    }

    /// Changes the headers of the final answer.
    pub(super) fn amend(&self, headers: &mut HeaderMap) {
        for amendment in &self.amendments {
            amendment.apply(headers);
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
    pub(super) fn exchange(&self, outcome: Outcome) -> Exchange {
        Exchange {
            status: self.status.get(),
            sent: self.sent.get(),
            received: self.received.get(),
            outcome,
        }
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// From the client to the application.
    Request,
    /// From the application to the client.
    Response,
}
