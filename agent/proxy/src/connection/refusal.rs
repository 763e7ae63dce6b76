//! Why the proxy refuses a connection.

use std::net::SocketAddr;
use std::time::Duration;

use super::events::Severity;
use crate::authorizers::Disagreement;
use crate::handoff::HandoffError;
use crate::hbone::{FirstBytes, TunnelError};
use crate::limits::OverCap;
use crate::limits::places::NoPlace;
use crate::verdict::Termination;
use ambit_account::AccountExhausted;
use ambit_datapath::DialError;
use ambit_identity::{CertificateUnavailable, PeerIdentityError};
use ambit_model::ObjectName;
use ambit_policy::{Consultation, Decider, Denial, Layer};

/// Why a connection was refused. It never carried a byte; a connection that did ends with a
/// [`Termination`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the kernel has no record of this connection")]
    NoRecord,
    #[error("no object of the mesh names {0}")]
    Unknown(SocketAddr),
    #[error("the Service {service} has no TCP port {}", .dialled.port())]
    NoSuchPort {
        service: ObjectName,
        dialled: SocketAddr,
    },
    #[error("the Service {service} has no ready endpoint for {dialled}")]
    NoReadyEndpoint {
        service: ObjectName,
        dialled: SocketAddr,
    },
    #[error(
        "the endpoints of the Service {service} are not known: it has no selector and no EndpointSlice"
    )]
    NoEndpointsKnown {
        service: ObjectName,
        dialled: SocketAddr,
    },
    #[error(
        "no object describes {endpoint}, an endpoint of the Service {service} in the mesh's ranges"
    )]
    UnknownEndpoint {
        service: ObjectName,
        endpoint: SocketAddr,
    },
    #[error("several pods claim the address {dialled}: {}", names(.claimants))]
    Ambiguous {
        dialled: SocketAddr,
        claimants: Vec<ObjectName>,
    },
    #[error("{0} is a tunnel port, which no application may dial")]
    HbonePort(SocketAddr),
    #[error("this pod does not accept connections at {0}")]
    ForeignAddress(SocketAddr),
    #[error(transparent)]
    OverCap(#[from] OverCap),
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    #[error(transparent)]
    Memory(#[from] AccountExhausted),
    #[error(transparent)]
    Certificate(#[from] CertificateUnavailable),
    #[error("the TLS handshake failed: {0}")]
    Handshake(std::io::Error),
    #[error("the TLS handshake was not complete within {0:?}")]
    HandshakeTimedOut(Duration),
    #[error(transparent)]
    PeerIdentity(#[from] PeerIdentityError),
    #[error("denied by this pod's policies: {1}")]
    Denied(Layer, Denial),
    #[error("the external authorizer {} did not allow it: {disagreement}", .consultation.provider)]
    NotApproved {
        consultation: Consultation,
        disagreement: Disagreement,
    },
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    #[error(transparent)]
    Handoff(#[from] HandoffError),
    #[error("nothing answered within {0:?}")]
    DialTimedOut(Duration),
    #[error("the caller left before it was connected")]
    CallerLeft,
    #[error(transparent)]
    Terminated(#[from] Termination),
}

/// Who refused a connection.
#[derive(Clone, Copy, Debug)]
enum RefusalClass<'a> {
    /// The pod's policies, as the evaluator or an external authorizer applies them, by this rule if one
    /// decided.
    DeniedByPolicy(Option<&'a Decider>),
    /// The pod's policies, as the kernel applies them.
    DeniedInKernel(Option<&'a Decider>),
    /// The proxy itself, or the destination's.
    DeniedByProxy,
    /// None of them: it failed.
    Failed,
}

/// How an endpoint could not be reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Unreachable {
    /// It does not exist, or does not listen.
    Refused,
    /// It does not answer.
    TimedOut,
}

impl Unreachable {
    /// The status by which an agent tells another one (RFC 9209, sections 2.3.7 and 2.3.11).
    const fn status(self) -> u16 {
        match self {
            Self::Refused => 502,
            Self::TimedOut => 504,
        }
    }

    const fn from_status(status: u16) -> Option<Self> {
        match status {
            502 => Some(Self::Refused),
            504 => Some(Self::TimedOut),
            _ => None,
        }
    }
}

impl Refusal {
    /// A denial by the evaluator.
    pub(crate) fn by_evaluator(denial: Denial) -> Self {
        Self::Denied(Layer::Proxy, denial)
    }

    /// The word that logs and metrics use.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::NoRecord => "no-connection-record",
            Self::Unknown(_) => "unknown-destination",
            Self::NoSuchPort { .. } => "no-such-service-port",
            Self::NoReadyEndpoint { .. } => "no-ready-endpoint",
            Self::NoEndpointsKnown { .. } => "no-endpoints-known",
            Self::UnknownEndpoint { .. } => "unknown-endpoint",
            Self::Ambiguous { .. } => "ambiguous-address",
            Self::HbonePort(_) => "tunnel-port-dialled",
            Self::ForeignAddress(_) => "foreign-local-address",
            Self::OverCap(_) | Self::NoPlace(_) => "over-cap",
            Self::Memory(_) => "no-memory",
            Self::Certificate(_) => "no-certificate",
            Self::Handshake(_) => "tls-handshake-failed",
            Self::HandshakeTimedOut(_) => "tls-handshake-timed-out",
            Self::PeerIdentity(_) => "no-peer-identity",
            Self::Denied(_, denial) => denial.reason.as_str(),
            Self::NotApproved { .. } => "not-approved",
            Self::Dial(DialError::NothingListens { .. }) => "nothing-listens",
            Self::Dial(_) => "cannot-connect",
            Self::Tunnel(error) => error.as_str(),
            Self::Handoff(error) => error.as_str(),
            Self::DialTimedOut(_) => "dial-timed-out",
            Self::CallerLeft => "caller-left",
            Self::Terminated(termination) => termination.as_str(),
        }
    }

    /// What the refusal is: the one place that tells a denial from a failure.
    const fn class(&self) -> RefusalClass<'_> {
        match self {
            Self::Denied(Layer::Proxy, denial) => {
                RefusalClass::DeniedByPolicy(denial.decider.as_ref())
            }
            Self::Denied(Layer::Kernel, denial) => {
                RefusalClass::DeniedInKernel(denial.decider.as_ref())
            }
            Self::NotApproved { consultation, .. } => {
                RefusalClass::DeniedByPolicy(Some(&consultation.decider))
            }
            Self::Terminated(termination) if termination.is_denial() => {
                RefusalClass::DeniedByPolicy(termination.decider())
            }
            Self::Tunnel(error) if error.is_denial() => RefusalClass::DeniedByProxy,
            Self::Handoff(error) if error.is_denial() => RefusalClass::DeniedByProxy,
            Self::HbonePort(_) | Self::ForeignAddress(_) | Self::PeerIdentity(_) => {
                RefusalClass::DeniedByProxy
            }
            Self::NoRecord
            | Self::Unknown(_)
            | Self::NoSuchPort { .. }
            | Self::NoReadyEndpoint { .. }
            | Self::NoEndpointsKnown { .. }
            | Self::UnknownEndpoint { .. }
            | Self::Ambiguous { .. }
            | Self::OverCap(_)
            | Self::NoPlace(_)
            | Self::Memory(_)
            | Self::Certificate(_)
            | Self::Handshake(_)
            | Self::HandshakeTimedOut(_)
            | Self::Dial(_)
            | Self::Tunnel(_)
            | Self::Handoff(_)
            | Self::DialTimedOut(_)
            | Self::CallerLeft
            | Self::Terminated(_) => RefusalClass::Failed,
        }
    }

    /// The layer and rule of the policies that denied it.
    pub(crate) const fn denied_by(&self) -> Option<(Layer, Option<&Decider>)> {
        match self.class() {
            RefusalClass::DeniedByPolicy(decider) => Some((Layer::Proxy, decider)),
            RefusalClass::DeniedInKernel(decider) => Some((Layer::Kernel, decider)),
            RefusalClass::DeniedByProxy | RefusalClass::Failed => None,
        }
    }

    /// What the refusal is to the operator. The kernel reports its own denials.
    pub(crate) const fn severity(&self) -> Severity<'_> {
        let reason = self.as_str();
        match self.class() {
            RefusalClass::DeniedByPolicy(decider) => Severity::Denial { reason, decider },
            RefusalClass::DeniedByProxy => Severity::Denial {
                reason,
                decider: None,
            },
            RefusalClass::DeniedInKernel(_) | RefusalClass::Failed => Severity::Failure,
        }
    }

    /// Whether the endpoint could not be reached. A denial is an answer: no other endpoint is tried.
    pub(crate) const fn is_unreachable(&self) -> bool {
        self.unreachable().is_some()
    }

    /// Whether another endpoint may be tried: this one could not be reached, and the application there has not got
    /// the `first` bytes of the connection. If they were sent, only an answer proves that. An endpoint that did not
    /// answer in time may pass them on later.
    pub(crate) fn permits_another(&self, first: &FirstBytes<'_>) -> bool {
        let is_answered = matches!(self, Self::Tunnel(TunnelError::Refused { .. }));
        self.is_unreachable() && (is_answered || first.sent() == 0)
    }

    const fn unreachable(&self) -> Option<Unreachable> {
        match self {
            Self::Dial(error) | Self::Tunnel(TunnelError::Dial { source: error, .. }) => {
                match error {
                    DialError::Unreachable { .. } | DialError::NothingListens { .. } => {
                        Some(Unreachable::Refused)
                    }
                    DialError::TimedOut { .. } => Some(Unreachable::TimedOut),
                    DialError::Denied { .. }
                    | DialError::Stale
                    | DialError::NoVerdict
                    | DialError::Tables(_)
                    | DialError::Socket(_) => None,
                }
            }
            Self::Tunnel(TunnelError::Refused { status, .. }) => Unreachable::from_status(*status),
            Self::Tunnel(TunnelError::TimedOut { .. }) | Self::DialTimedOut(_) => {
                Some(Unreachable::TimedOut)
            }
            _ => None,
        }
    }

    /// The status that answers a CONNECT: 401 if policies deny it, 502 or 504 if the application cannot be
    /// reached, and 503 for everything else.
    pub(crate) const fn status(&self) -> u16 {
        match self.class() {
            RefusalClass::DeniedByPolicy(_) | RefusalClass::DeniedInKernel(_) => 401,
            RefusalClass::DeniedByProxy => 503,
            RefusalClass::Failed => match self.unreachable() {
                Some(unreachable) => unreachable.status(),
                None => 503,
            },
        }
    }
}

fn names(pods: &[ObjectName]) -> String {
    let names: Vec<String> = pods.iter().map(ObjectName::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use ambit_common::{PolicySetId, Reason};

    use super::*;

    #[test]
    fn a_denial_is_reported_once_by_the_layer_that_decided() {
        let denied = |layer| {
            let denial = Denial {
                reason: Reason::DeniedByPolicy,
                decider: None,
            };
            Refusal::Denied(layer, denial)
        };
        let is_denial = |refusal: &Refusal| matches!(refusal.severity(), Severity::Denial { .. });
        assert!(is_denial(&denied(Layer::Proxy)));
        assert!(!is_denial(&denied(Layer::Kernel)));
        assert!(!is_denial(&Refusal::CallerLeft));
        let changed = Termination::PolicyChanged(Denial {
            reason: Reason::NoAllowMatched,
            decider: None,
        });
        assert!(is_denial(&Refusal::Terminated(changed)));
    }

    #[test]
    fn an_address_without_a_listener_is_unreachable_and_not_a_denial() {
        let to = SocketAddr::from(([10, 1, 0, 2], 80));
        let refusal = Refusal::Dial(DialError::NothingListens { to });
        assert!(refusal.is_unreachable());
        assert_eq!(refusal.as_str(), "nothing-listens");
        assert_eq!(refusal.status(), 502);
        assert!(matches!(refusal.severity(), Severity::Failure));
    }

    #[test]
    fn what_may_have_been_passed_on_is_not_sent_to_another_endpoint() {
        let peer = SocketAddr::from(([10, 1, 0, 2], 15008));
        let timeout = Duration::from_secs(15);
        let silent = [
            Refusal::Tunnel(TunnelError::TimedOut { peer, timeout }),
            Refusal::DialTimedOut(timeout),
        ];
        let answered =
            [502, 504].map(|status| Refusal::Tunnel(TunnelError::Refused { peer, status }));
        let (nothing, something) = (FirstBytes::none(), FirstBytes::having_sent(1));
        for refusal in &silent {
            assert!(refusal.permits_another(&nothing), "{refusal}");
            assert!(!refusal.permits_another(&something), "{refusal}");
        }
        for refusal in &answered {
            assert!(refusal.permits_another(&something), "{refusal}");
        }
        assert!(!Refusal::CallerLeft.permits_another(&nothing));
    }

    #[test]
    fn the_callers_agent_knows_by_the_status_that_an_endpoint_cannot_be_reached() {
        let peer = SocketAddr::from(([10, 1, 0, 2], 15008));
        let answered = |status| Refusal::Tunnel(TunnelError::Refused { peer, status });
        let to = SocketAddr::from(([10, 1, 0, 2], 80));
        let timeout = Duration::from_secs(5);
        for unreachable in [
            DialError::NothingListens { to },
            DialError::TimedOut { to, timeout },
        ] {
            let status = Refusal::Dial(unreachable).status();
            assert!(answered(status).is_unreachable(), "{status}");
        }
        let denial = Denial {
            reason: Reason::DeniedByPolicy,
            decider: None,
        };
        for other in [
            Refusal::Denied(Layer::Kernel, denial),
            Refusal::HbonePort(peer),
            Refusal::Dial(DialError::NoVerdict),
            Refusal::Dial(DialError::Denied {
                reason: Reason::PodClosed,
                policy_set: PolicySetId::NONE,
                alternative: 0,
            }),
        ] {
            let status = other.status();
            assert!(!other.is_unreachable(), "{other}");
            assert!(!answered(status).is_unreachable(), "{other}: {status}");
        }
    }
}
