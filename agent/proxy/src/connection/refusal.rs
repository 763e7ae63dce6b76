//! Why the proxy refused a connection.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;

use crate::authorizers::Disagreement;
use crate::hbone::TunnelError;
use crate::limits::OverCap;
use crate::limits::places::NoPlace;
use crate::verdict::Termination;
use ambit_datapath::DialError;
use ambit_identity::{CertificateUnavailable, PeerIdentityError};
use ambit_model::ObjectName;
use ambit_policy::{Consultation, Decider, Denial, Layer};

/// Why a connection was refused, for the log line and the counters.
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
        "it is not known what is behind the Service {service}: it selects no pods and has no \
         EndpointSlice"
    )]
    NoEndpointsKnown {
        service: ObjectName,
        dialled: SocketAddr,
    },
    #[error(
        "no object tells what {endpoint} is, an endpoint of the Service {service} in the mesh's \
         ranges"
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
    #[error("{0} is not an address and port that this pod may be reached at")]
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
    #[error("the external authorizer {} does not agree: {disagreement}", .consultation.provider)]
    NotApproved {
        consultation: Consultation,
        disagreement: Disagreement,
    },
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    #[error("nothing answered within {0:?}")]
    DialTimedOut(Duration),
    #[error("the other side left before it was connected")]
    CallerLeft,
    #[error(transparent)]
    Terminated(#[from] Termination),
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
            Self::DialTimedOut(_) => "dial-timed-out",
            Self::CallerLeft => "caller-left",
            Self::Terminated(termination) => termination.as_str(),
        }
    }

    /// The rule that denied it, where one did.
    pub(crate) const fn decider(&self) -> Option<&Decider> {
        match self {
            Self::Denied(_, denial) => denial.decider.as_ref(),
            Self::NotApproved { consultation, .. } => Some(&consultation.decider),
            Self::Terminated(termination) => termination.decider(),
            Self::NoRecord
            | Self::Unknown(_)
            | Self::NoSuchPort { .. }
            | Self::NoReadyEndpoint { .. }
            | Self::NoEndpointsKnown { .. }
            | Self::UnknownEndpoint { .. }
            | Self::Ambiguous { .. }
            | Self::HbonePort(_)
            | Self::ForeignAddress(_)
            | Self::OverCap(_)
            | Self::NoPlace(_)
            | Self::Certificate(_)
            | Self::Handshake(_)
            | Self::HandshakeTimedOut(_)
            | Self::PeerIdentity(_)
            | Self::Dial(_)
            | Self::Tunnel(_)
            | Self::DialTimedOut(_)
            | Self::CallerLeft => None,
        }
    }

    /// Whether it denies somebody something, rather than fails. What the kernel denies is not meant: it
    /// reports that itself.
    pub(crate) const fn is_denial_by_proxy(&self) -> bool {
        match self {
            Self::Denied(layer, _) => matches!(layer, Layer::Proxy),
            Self::Tunnel(error) => error.is_denial(),
            Self::Terminated(termination) => termination.is_denial(),
            Self::HbonePort(_)
            | Self::ForeignAddress(_)
            | Self::PeerIdentity(_)
            | Self::NotApproved { .. } => true,
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
            | Self::DialTimedOut(_)
            | Self::CallerLeft => false,
        }
    }

    /// Whether the endpoint could not be reached, so that another one may be tried. A denial is
    /// an answer.
    pub(crate) const fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Dial(DialError::Unreachable { .. } | DialError::TimedOut { .. })
                | Self::Tunnel(TunnelError::Dial { .. } | TunnelError::TimedOut { .. })
                | Self::DialTimedOut(_)
        )
    }

    /// What a CONNECT is answered with (HBONE: 400 bad authority, 401 denied by policy, 503 cannot
    /// connect).
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::Denied(..)
            | Self::NotApproved { .. }
            | Self::Terminated(Termination::PolicyChanged(_) | Termination::RequestsMatter) => {
                StatusCode::UNAUTHORIZED
            }
            Self::NoRecord
            | Self::Unknown(_)
            | Self::NoSuchPort { .. }
            | Self::NoReadyEndpoint { .. }
            | Self::NoEndpointsKnown { .. }
            | Self::UnknownEndpoint { .. }
            | Self::Ambiguous { .. }
            | Self::HbonePort(_)
            | Self::ForeignAddress(_)
            | Self::OverCap(_)
            | Self::NoPlace(_)
            | Self::Certificate(_)
            | Self::Handshake(_)
            | Self::HandshakeTimedOut(_)
            | Self::PeerIdentity(_)
            | Self::Dial(_)
            | Self::Tunnel(_)
            | Self::DialTimedOut(_)
            | Self::CallerLeft
            | Self::Terminated(_) => StatusCode::SERVICE_UNAVAILABLE,
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
    fn a_denial_is_reported_once_by_who_decided_it() {
        let denied = |layer| {
            let denial = Denial {
                reason: Reason::DeniedByPolicy,
                decider: None,
            };
            Refusal::Denied(layer, denial)
        };
        assert!(denied(Layer::Proxy).is_denial_by_proxy());
        assert!(!denied(Layer::Kernel).is_denial_by_proxy());
        assert!(!Refusal::CallerLeft.is_denial_by_proxy());
        let changed = Termination::PolicyChanged(Denial {
            reason: Reason::NoAllowMatched,
            decider: None,
        });
        assert!(Refusal::Terminated(changed).is_denial_by_proxy());
    }
}
