//! Why the proxy refuses a connection.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;

use super::events::Severity;
use crate::authorizers::Disagreement;
use crate::handoff::HandoffError;
use crate::hbone::TunnelError;
use crate::limits::OverCap;
use crate::limits::places::NoPlace;
use crate::verdict::Termination;
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
            Self::Certificate(_) => "no-certificate",
            Self::Handshake(_) => "tls-handshake-failed",
            Self::HandshakeTimedOut(_) => "tls-handshake-timed-out",
            Self::PeerIdentity(_) => "no-peer-identity",
            Self::Denied(_, denial) => denial.reason.as_str(),
            Self::NotApproved { .. } => "not-approved",
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

    /// Whether the endpoint could not be reached, so that another one may be tried. A denial is an
    /// answer: no other endpoint is tried.
    pub(crate) const fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Dial(DialError::Unreachable { .. } | DialError::TimedOut { .. })
                | Self::Tunnel(TunnelError::Dial { .. } | TunnelError::TimedOut { .. })
                | Self::DialTimedOut(_)
        )
    }

    /// The status that answers a CONNECT (HBONE: 401 denied by policy, 503 cannot connect).
    pub(crate) const fn status(&self) -> StatusCode {
        match self.class() {
            RefusalClass::DeniedByPolicy(_) | RefusalClass::DeniedInKernel(_) => {
                StatusCode::UNAUTHORIZED
            }
            RefusalClass::DeniedByProxy | RefusalClass::Failed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

fn names(pods: &[ObjectName]) -> String {
    let names: Vec<String> = pods.iter().map(ObjectName::to_string).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use ambit_common::Reason;

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
}
