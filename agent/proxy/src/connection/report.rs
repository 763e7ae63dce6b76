//! How connections, and requests on them, ended: one line each in the access log, an event if they were
//! denied, and the counters.

use tracing::field::{DisplayValue, display};

use super::events::{CALLERS_BYTES, EventSubject, Severity};
use super::refusal::Refusal;
use super::{ConnectionContext, ConnectionEnd, Path, RequestContext};
use crate::requests::RequestRefusal;
use crate::verdict::Termination;
use ambit_datapath::AuthorizedStream;
use ambit_http::{RequestOutcome, RequestSummary};
use ambit_model::{ObjectName, WorkloadIdentity};
use ambit_observe::events::InLog;
use ambit_observe::text::cut;
use ambit_policy::{Decider, Layer, RequestPermit};
use ambit_relay::RelayEnd;

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Its own parties or the network ended it. `None` if it carried requests, each of which says how it
    /// ended.
    Finished(Option<RelayEnd>),
    /// It never carried a byte.
    Refused(Refusal),
    /// The proxy ended it while it was live.
    Terminated(Termination),
}

/// How a request ended.
#[derive(Debug)]
pub(crate) enum RequestEnding<'a> {
    /// It went to the application.
    Carried(&'a RequestPermit, &'a RequestSummary),
    /// The application never saw it.
    Refused(&'a RequestRefusal),
    /// Policy changed while it was under way.
    Terminated(&'a Termination, &'a RequestSummary),
}

/// What allowed a connection.
#[derive(Debug)]
pub(crate) struct Permission {
    layer: Layer,
    /// The rule; `None` if no ALLOW policy applies.
    decider: Option<Decider>,
}

impl Permission {
    pub(crate) fn of(stream: &AuthorizedStream) -> Self {
        Self {
            layer: stream.layer(),
            decider: stream.decider().cloned(),
        }
    }
}

impl ConnectionContext {
    /// Reports the end of the connection: counts it, keeps a denial as an event, and writes its line
    /// unless there are too many. `permission` is what allowed it, if this node decided that.
    pub(crate) fn close(&self, ending: &Ending, permission: Option<&Permission>) {
        self.count(ending);
        let subject = || EventSubject::connection(self);
        match ending.severity().report(&self.pod, subject) {
            InLog::Written => self.write(ending, permission),
            InLog::LeftOut => {}
        }
    }

    fn count(&self, ending: &Ending) {
        let stats = &self.pod.stats;
        match (ending, self.path) {
            (Ending::Finished(end), path) => {
                if let Some(path) = path {
                    stats.finished(self.direction, path);
                }
                if let Some(end) = end {
                    stats.ended(end.as_str());
                }
            }
            (Ending::Refused(refusal), _) => stats.refused(refusal.as_str()),
            (Ending::Terminated(termination), _) => stats.terminated(termination.as_str()),
        }
        stats.carried(self.meter.sent(), self.meter.received());
    }

    fn write(&self, ending: &Ending, permission: Option<&Permission>) {
        let permitted = || permission.map(|one| (one.layer, one.decider.as_ref()));
        let (layer, decider) = ending.denied_by().or_else(permitted).unzip();
        tracing::info!(
            target: "ambit::access",
            direction = self.direction.as_str(),
            path = self.path.map(Path::as_str),
            outcome = ending.as_str(),
            reason = ending.reason(),
            end = ending.end().map(RelayEnd::as_str),
            error_code = ending.end().and_then(RelayEnd::error_code),
            decided_in = layer.map(Layer::as_str),
            decider = decider.flatten().map(display),
            source.workload = workload(&self.source),
            source.identity = identity(&self.source),
            source.address = %self.source.address,
            destination.workload = workload(&self.destination),
            destination.identity = identity(&self.destination),
            destination.address = %self.destination.address,
            bytes_sent = self.meter.sent(),
            bytes_received = self.meter.received(),
            duration_ms = self.started.elapsed().as_millis() as u64,
            connection = self.number.get(),
            "connection",
        );
    }
}

impl RequestContext {
    /// Reports the end of the request: counts it, keeps a denial as an event, and writes its line
    /// unless there are too many.
    pub(crate) fn close(&self, ending: &RequestEnding<'_>) {
        let pod = &self.connection.pod;
        pod.stats.requested(ending.counter());
        let subject = || EventSubject::request(&self.connection, &self.attributes);
        match ending.severity().report(pod, subject) {
            InLog::Written => self.write(ending),
            InLog::LeftOut => {}
        }
    }

    fn write(&self, ending: &RequestEnding<'_>) {
        let ConnectionContext {
            direction,
            path,
            source,
            destination,
            number,
            ..
        } = &*self.connection;
        let exchange = ending.exchange();
        let status = exchange.and_then(|exchange| exchange.status);
        tracing::info!(
            target: "ambit::access",
            direction = direction.as_str(),
            path = path.map(Path::as_str),
            outcome = ending.as_str(),
            reason = ending.reason(),
            decided_in = Layer::Proxy.as_str(),
            decider = ending.decider().map(display),
            request.method = &*cut(&self.attributes.method, CALLERS_BYTES),
            request.host = &*cut(&self.attributes.authority, CALLERS_BYTES),
            request.path = &*cut(&self.attributes.path, CALLERS_BYTES),
            response.status = status.map(|status| status.as_u16()),
            source.workload = workload(source),
            source.identity = identity(source),
            source.address = %source.address,
            destination.workload = workload(destination),
            destination.address = %destination.address,
            bytes_sent = exchange.map(|exchange| exchange.sent),
            bytes_received = exchange.map(|exchange| exchange.received),
            duration_ms = self.started.elapsed().as_millis() as u64,
            connection = number.get(),
            "request",
        );
    }
}

fn workload(end: &ConnectionEnd) -> Option<DisplayValue<&ObjectName>> {
    end.workload.as_ref().map(display)
}

fn identity(end: &ConnectionEnd) -> Option<DisplayValue<&WorkloadIdentity>> {
    end.identity.as_ref().map(display)
}

impl Ending {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Finished(_) => "finished",
            Self::Refused(_) => "refused",
            Self::Terminated(_) => "terminated",
        }
    }

    fn reason(&self) -> Option<String> {
        match self {
            Self::Finished(_) => None,
            Self::Refused(refusal) => Some(refusal.to_string()),
            Self::Terminated(termination) => Some(termination.to_string()),
        }
    }

    /// The layer and rule that denied it, in the proxy or in the kernel.
    fn denied_by(&self) -> Option<(Layer, Option<&Decider>)> {
        match self {
            Self::Refused(refusal) => refusal.denied_by(),
            Self::Terminated(termination) if termination.is_denial() => {
                Some((Layer::Proxy, termination.decider()))
            }
            Self::Finished(_) | Self::Terminated(_) => None,
        }
    }

    /// Who ended it, and how, if it carried bytes to its end.
    const fn end(&self) -> Option<RelayEnd> {
        match self {
            Self::Finished(end) => *end,
            Self::Refused(_) | Self::Terminated(_) => None,
        }
    }

    const fn severity(&self) -> Severity<'_> {
        match self {
            Self::Refused(refusal) => refusal.severity(),
            Self::Terminated(termination) if termination.is_denial() => Severity::Denial {
                reason: termination.as_str(),
                decider: termination.decider(),
            },
            Self::Finished(_) | Self::Terminated(_) => Severity::Normal,
        }
    }
}

impl RequestEnding<'_> {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Carried(_, exchange) => match exchange.outcome {
                RequestOutcome::Finished => "finished",
                RequestOutcome::ClientFailed => "client-failed",
                RequestOutcome::ApplicationFailed => "application-failed",
                RequestOutcome::Revoked => "terminated",
            },
            Self::Refused(_) => "refused",
            Self::Terminated(..) => "terminated",
        }
    }

    /// The word under which metrics count it.
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

    /// Every refused request is a denial.
    const fn severity(&self) -> Severity<'_> {
        match self {
            Self::Refused(refusal) => Severity::Denial {
                reason: refusal.as_str(),
                decider: refusal.decider(),
            },
            Self::Terminated(termination, _) if termination.is_denial() => Severity::Denial {
                reason: termination.as_str(),
                decider: termination.decider(),
            },
            Self::Carried(..) | Self::Terminated(..) => Severity::Normal,
        }
    }

    const fn exchange(&self) -> Option<&RequestSummary> {
        match self {
            Self::Carried(_, exchange) | Self::Terminated(_, exchange) => Some(exchange),
            Self::Refused(_) => None,
        }
    }
}
