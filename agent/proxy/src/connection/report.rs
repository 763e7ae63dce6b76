//! How each connection ended: one line in the access log, and the counters.

use std::time::Instant;

use tracing::field::{DisplayValue, display};

use crate::connection::events::Matter;
use crate::connection::refusal::Refusal;
use crate::connection::stats::ShardStats;
use crate::connection::{Party, Path, Subject};
use crate::shard::pod::ServedPod;
use crate::verdict::Termination;
use ambit_datapath::AuthorizedStream;
use ambit_observe::events::InLog;
use ambit_policy::{Decider, Layer};
use ambit_relay::Meter;

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Both sides closed it, or one aborted it.
    Finished,
    /// It never carried a byte.
    Refused(Refusal),
    /// It was ended while it stood.
    Terminated(Termination),
}

/// What a connection was, for its line in the access log.
#[derive(Debug)]
pub(crate) struct Account<'a> {
    /// What it was about.
    pub(crate) subject: &'a Subject,
    /// Its number, where it was registered.
    pub(crate) id: Option<u64>,
    /// When it was accepted.
    pub(crate) since: Instant,
    /// What it carried.
    pub(crate) meter: &'a Meter,
    /// Who allowed it, where it was this node's to decide.
    pub(crate) permission: Option<&'a Permission>,
}

/// Who allowed a connection or a request.
#[derive(Debug)]
pub(crate) struct Permission {
    /// Where.
    pub(crate) layer: Layer,
    /// The rule; `None` where no ALLOW policy applies.
    pub(crate) decider: Option<Decider>,
}

impl Permission {
    /// Of a connection that may carry anything.
    pub(crate) fn of(stream: &AuthorizedStream) -> Self {
        Self {
            layer: stream.layer(),
            decider: stream.decider().cloned(),
        }
    }
}

impl Ending {
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Refused(_) => "refused",
            Self::Terminated(_) => "terminated",
        }
    }

    fn reason(&self) -> Option<String> {
        match self {
            Self::Finished => None,
            Self::Refused(refusal) => Some(refusal.to_string()),
            Self::Terminated(termination) => Some(termination.to_string()),
        }
    }

    fn denied_by(&self) -> Option<(Layer, Option<&Decider>)> {
        match self {
            Self::Refused(Refusal::Denied(layer, denial)) => {
                Some((*layer, denial.decider.as_ref()))
            }
            Self::Refused(refusal @ Refusal::NotApproved { .. }) => {
                Some((Layer::Proxy, refusal.decider()))
            }
            Self::Refused(Refusal::Terminated(termination)) | Self::Terminated(termination)
                if termination.is_denial() =>
            {
                Some((Layer::Proxy, termination.decider()))
            }
            Self::Finished | Self::Refused(_) | Self::Terminated(_) => None,
        }
    }

    /// The word of the reason and the rule, where the proxy denied it.
    const fn denial(&self) -> Option<(&'static str, Option<&Decider>)> {
        match self {
            Self::Refused(refusal) if refusal.is_denial_by_proxy() => {
                Some((refusal.as_str(), refusal.decider()))
            }
            Self::Terminated(termination) if termination.is_denial() => {
                Some((termination.as_str(), termination.decider()))
            }
            Self::Finished | Self::Refused(_) | Self::Terminated(_) => None,
        }
    }
}

impl Account<'_> {
    /// Counts, keeps a denial, and writes the line, unless there are too many.
    pub(crate) fn close(&self, ending: &Ending, pod: &ServedPod) {
        self.count(ending, &pod.stats);
        match self.keep(ending, pod) {
            InLog::Written => self.write(ending),
            InLog::LeftOut => {}
        }
    }

    fn keep(&self, ending: &Ending, pod: &ServedPod) -> InLog {
        match (ending.denial(), ending) {
            (Some((reason, decider)), _) => Matter::of(self.subject).denied(pod, reason, decider),
            (None, Ending::Refused(_)) => pod.events.may_log(&pod.workload.name),
            (None, Ending::Finished | Ending::Terminated(_)) => InLog::Written,
        }
    }

    fn write(&self, ending: &Ending) {
        let permitted = || self.permission.map(|one| (one.layer, one.decider.as_ref()));
        let (layer, decider) = ending.denied_by().or_else(permitted).unzip();
        let Subject {
            direction,
            path,
            source,
            destination,
        } = self.subject;
        tracing::info!(
            target: "ambit::access",
            direction = direction.as_str(),
            path = path.map(Path::as_str),
            outcome = ending.as_str(),
            reason = ending.reason(),
            decided_in = layer.map(Layer::as_str),
            decider = decider.flatten().map(display),
            source.workload = workload(source),
            source.identity = identity(source),
            source.address = %source.address,
            destination.workload = workload(destination),
            destination.identity = identity(destination),
            destination.address = %destination.address,
            bytes_sent = self.meter.sent(),
            bytes_received = self.meter.received(),
            duration_ms = self.since.elapsed().as_millis() as u64,
            connection = self.id,
            "connection",
        );
    }

    fn count(&self, ending: &Ending, stats: &ShardStats) {
        match (ending, self.subject.path) {
            (Ending::Finished, Some(path)) => stats.finished(self.subject.direction, path),
            (Ending::Finished, None) => {}
            (Ending::Refused(refusal), _) => stats.refused(refusal.as_str()),
            (Ending::Terminated(termination), _) => stats.terminated(termination.as_str()),
        }
        stats.carried(self.meter.sent(), self.meter.received());
    }
}

fn workload(party: &Party) -> Option<DisplayValue<&ambit_model::ObjectName>> {
    party.workload.as_ref().map(display)
}

fn identity(party: &Party) -> Option<DisplayValue<&ambit_model::WorkloadIdentity>> {
    party.identity.as_ref().map(display)
}
