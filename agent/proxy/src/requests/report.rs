//! What became of each request: one line in the access log, and the counters.

use std::time::Instant;

use super::refusal::RequestRefusal;
use crate::connection::events::{CALLERS_BYTES, Matter};
use crate::connection::{Path, Subject};
use crate::shard::pod::ServedPod;
use crate::verdict::Termination;
use ambit_http::{Exchange, Outcome};
use ambit_observe::events::InLog;
use ambit_observe::text::cut;
use ambit_policy::{Decider, Layer, RequestAttributes, RequestPermit};

/// How a request ended.
#[derive(Debug)]
pub(crate) enum RequestEnding<'a> {
    /// It went to the application.
    Carried(&'a RequestPermit, &'a Exchange),
    /// The application never saw it.
    Refused(&'a RequestRefusal),
    /// Policy changed while it was under way.
    Terminated(&'a Termination, &'a Exchange),
}

/// What a request was, for its line in the access log.
#[derive(Debug)]
pub(crate) struct RequestAccount<'a> {
    /// What its connection is about.
    pub(crate) subject: &'a Subject,
    /// The connection's number.
    pub(crate) connection: u64,
    /// What it said.
    pub(crate) request: &'a RequestAttributes,
    /// When it came.
    pub(crate) since: Instant,
}

impl RequestEnding<'_> {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Carried(_, exchange) => match exchange.outcome {
                Outcome::Finished => "finished",
                Outcome::ClientFailed => "client-failed",
                Outcome::ApplicationFailed => "application-failed",
                Outcome::Revoked => "terminated",
            },
            Self::Refused(_) => "refused",
            Self::Terminated(..) => "terminated",
        }
    }

    /// The word that counts it.
    const fn counter(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.as_str(),
            Self::Carried(..) | Self::Terminated(..) => self.as_str(),
        }
    }

    fn reason(&self) -> Option<String> {
        match self {
            Self::Carried(..) => None,
            Self::Refused(refusal) => Some(refusal.to_string()),
            Self::Terminated(termination, _) => Some(termination.to_string()),
        }
    }

    fn decider(&self) -> Option<&Decider> {
        match self {
            Self::Carried(permit, _) => permit.decider(),
            Self::Refused(refusal) => refusal.decider(),
            Self::Terminated(termination, _) => termination.decider(),
        }
    }

    /// The word of the reason, where it was denied.
    const fn denial(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => Some(refusal.as_str()),
            Self::Terminated(termination, _) if termination.is_denial() => {
                Some(termination.as_str())
            }
            Self::Carried(..) | Self::Terminated(..) => None,
        }
    }

    const fn exchange(&self) -> Option<&Exchange> {
        match self {
            Self::Carried(_, exchange) | Self::Terminated(_, exchange) => Some(exchange),
            Self::Refused(_) => None,
        }
    }
}

impl RequestAccount<'_> {
    /// Counts, keeps a denial, and writes the line, unless there are too many.
    pub(crate) fn close(&self, ending: &RequestEnding<'_>, pod: &ServedPod) {
        pod.stats.requested(ending.counter());
        let in_log = match ending.denial() {
            Some(reason) => {
                Matter::of(self.subject)
                    .request(self.request)
                    .denied(pod, reason, ending.decider())
            }
            None => InLog::Written,
        };
        match in_log {
            InLog::Written => self.write(ending),
            InLog::LeftOut => {}
        }
    }

    fn write(&self, ending: &RequestEnding<'_>) {
        let exchange = ending.exchange();
        let status = exchange.and_then(|exchange| exchange.status);
        tracing::info!(
            target: "ambit::access",
            direction = self.subject.direction.as_str(),
            path = self.subject.path.map(Path::as_str),
            outcome = ending.as_str(),
            reason = ending.reason(),
            decided_in = Layer::Proxy.as_str(),
            decider = ending.decider().map(display),
            request.method = &*cut(&self.request.method, CALLERS_BYTES),
            request.host = &*cut(&self.request.authority, CALLERS_BYTES),
            request.path = &*cut(&self.request.path, CALLERS_BYTES),
            response.status = status.map(|status| status.as_u16()),
            source.workload = self.subject.source.workload.as_ref().map(display),
            source.identity = self.subject.source.identity.as_ref().map(display),
            source.address = %self.subject.source.address,
            destination.workload = self.subject.destination.workload.as_ref().map(display),
            destination.address = %self.subject.destination.address,
            bytes_sent = exchange.map(|exchange| exchange.sent),
            bytes_received = exchange.map(|exchange| exchange.received),
            duration_ms = self.since.elapsed().as_millis() as u64,
            connection = self.connection,
            "request",
        );
    }
}
