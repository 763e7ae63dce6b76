//! Connections between two pods that this agent serves, from socket to socket (`--same-node handoff`).
//!
//! The source's half is an outbound connection like any other, and the destination's half an inbound one: each
//! is registered, judged, capped and reported by its own pod, as if a tunnel were between them. The
//! certificates are checked as the handshake of a tunnel would check them. One task, the source's, carries both
//! halves, and when either has to end, both do.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::connection::refusal::Refusal;
use crate::connection::registry::Registration;
use crate::connection::report::Ending;
use crate::connection::{ConnectionContext, ConnectionDirection, Path, ToApplication};
use crate::inbound::{CallerStream, InboundConnection, JudgedDelivery};
use crate::limits::places::{PlaceKind, PlaceSource};
use crate::limits::{Resource, Slot};
use crate::outbound::RemoteConnection;
use crate::shard::pod::ServedPod;
use crate::verdict::Termination;
use ambit_admission::Seat;
use ambit_datapath::DeliveryCaller;
use ambit_identity::IntroductionError;
use ambit_model::{ApplicationAddress, CallerAddress, PodEndpoint, Workload};

/// How connections between two pods of this node travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SameNode {
    /// Through a tunnel, like those between nodes.
    #[default]
    Tunnel,
    /// From socket to socket in the agent.
    Handoff,
}

impl SameNode {
    /// The word of the option.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Handoff => "handoff",
        }
    }
}

/// The pods that a shard serves, by which one finds another.
#[derive(Debug)]
pub(crate) struct Neighbours {
    same_node: SameNode,
    by_uid: RefCell<HashMap<Arc<str>, Weak<ServedPod>>>,
}

/// An endpoint in a pod that this shard serves.
#[derive(Debug)]
pub(crate) struct Neighbour {
    pod: Rc<ServedPod>,
    address: SocketAddr,
    /// The address that a tunnel from the source would have.
    source: IpAddr,
}

/// The destination's half of a connection that another pod's task carries.
#[derive(Debug)]
pub(crate) struct HandedOver {
    half: DestinationHalf,
    delivery: JudgedDelivery,
    descriptor: Slot,
}

/// If this is dropped before the connection is carried, its caller has left.
#[derive(Debug)]
struct DestinationHalf {
    /// Taken when it is carried or reported.
    connection: Option<InboundConnection>,
    pod: Rc<ServedPod>,
    to: SocketAddr,
}

/// Why a connection was not handed over. It is refused, and not sent another way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoffError {
    /// One of the two has no certificate that the other accepts.
    #[error("no connection to {to}: {source}")]
    Certificate {
        to: SocketAddr,
        source: IntroductionError,
    },
    /// The destination's policies deny it.
    #[error("{to} denied the connection: {reason}")]
    Denied { to: SocketAddr, reason: String },
    /// The destination refused it for another reason.
    #[error("{to} refused the connection: {reason}")]
    Refused { to: SocketAddr, reason: String },
}

impl HandoffError {
    fn refused_by(to: SocketAddr, refusal: &Refusal) -> Self {
        let reason = refusal.to_string();
        match refusal.denied_by() {
            Some(_) => Self::Denied { to, reason },
            None => Self::Refused { to, reason },
        }
    }

    /// Whether the destination denied it, rather than failed.
    pub(crate) const fn is_denial(&self) -> bool {
        match self {
            Self::Denied { .. } => true,
            Self::Certificate { .. } | Self::Refused { .. } => false,
        }
    }

    /// The word that logs and metrics use.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Certificate { .. } => "no-certificate",
            Self::Denied { .. } => "handoff-denied",
            Self::Refused { .. } => "handoff-refused",
        }
    }
}

impl Neighbours {
    pub(crate) fn new(same_node: SameNode) -> Self {
        Self {
            same_node,
            by_uid: RefCell::default(),
        }
    }

    pub(crate) fn add(&self, pod: &Rc<ServedPod>) {
        let uid = Arc::clone(&pod.workload.uid);
        self.by_uid.borrow_mut().insert(uid, Rc::downgrade(pod));
    }

    /// Removes a pod, unless another one has taken its place.
    pub(crate) fn remove(&self, pod: &Rc<ServedPod>) {
        let mut by_uid = self.by_uid.borrow_mut();
        let known = by_uid.get(&pod.workload.uid);
        if known.is_some_and(|known| known.as_ptr() == Rc::as_ptr(pod)) {
            by_uid.remove(&pod.workload.uid);
        }
    }

    /// Returns the pod to which a connection from `source` to `endpoint` is handed over. `None` if it needs a
    /// tunnel: the agent does not serve that very pod, with that identity and at that address, or no longer.
    pub(crate) fn at(&self, endpoint: &PodEndpoint, source: &ServedPod) -> Option<Neighbour> {
        match self.same_node {
            SameNode::Tunnel => return None,
            SameNode::Handoff => {}
        }
        let pod = self
            .by_uid
            .borrow()
            .get(&endpoint.workload.uid)?
            .upgrade()?;
        let is_endpoint = is_same_pod(&pod.workload, &endpoint.workload)
            && *pod.certificates.identity() == endpoint.workload.identity
            && pod.has_address(endpoint.address.ip());
        if !is_endpoint || !pod.tasks.is_accepting() {
            return None;
        }
        Some(Neighbour {
            pod,
            address: endpoint.address,
            source: source.address_like(endpoint.address.ip())?,
        })
    }
}

/// Whether a pod is served as the model has it now.
fn is_same_pod(served: &Workload, now: &Workload) -> bool {
    served.uid == now.uid && served.name == now.name && served.identity == now.identity
}

impl Neighbour {
    /// Has the destination judge a connection, whose source's half is `outbound`, and connect it to its
    /// application.
    ///
    /// # Errors
    /// [`Refusal`]; no byte has passed.
    pub(crate) async fn hand_over(
        self,
        outbound: Rc<ConnectionContext>,
    ) -> Result<HandedOver, Refusal> {
        let (source, to) = (&outbound.pod, self.address);
        source
            .certificates
            .ensure_introduced(&self.pod.certificates)
            .map_err(|source| HandoffError::Certificate { to, source })?;
        let caller = DeliveryCaller {
            identity: Some(source.certificates.identity().clone()),
            address: caller_of(self.source, outbound.source.address),
        };
        let accepted = ToApplication {
            pod: Rc::clone(&self.pod),
            direction: ConnectionDirection::Inbound,
            path: Path::Handoff,
            caller,
            to: ApplicationAddress(to),
            started: Instant::now(),
        };
        let meter = outbound.meter.clone();
        let half = DestinationHalf {
            connection: Some(InboundConnection::register_metered(accepted, meter)),
            pod: self.pod,
            to,
        };
        let delivering = async {
            match outbound.direction {
                ConnectionDirection::Authorizer => half.delivered_apart().await,
                ConnectionDirection::Outbound | ConnectionDirection::Inbound => {
                    half.delivered().await
                }
            }
        };
        let limit = source.limits.dial_timeout;
        match timeout(limit, delivering).await {
            Ok(Ok(handed)) => Ok(handed),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Refusal::DialTimedOut(limit)),
        }
    }
}

/// Returns the caller as the application is to see it: with the address that the source's tunnel would have,
/// and the port of its process if that has the same address.
fn caller_of(own: IpAddr, process: SocketAddr) -> CallerAddress {
    let port = if own == process.ip() {
        process.port()
    } else {
        0
    };
    CallerAddress(SocketAddr::new(own, port))
}

impl DestinationHalf {
    /// Connects to the application as far as the destination's caps and policies allow it.
    async fn delivered(mut self) -> Result<HandedOver, HandoffError> {
        match self.deliver().await {
            Ok((delivery, descriptor)) => Ok(HandedOver {
                half: self,
                delivery,
                descriptor,
            }),
            Err(refusal) => {
                let error = HandoffError::refused_by(self.to, &refusal);
                self.refuse(refusal);
                Err(error)
            }
        }
    }

    /// The same, in a task of the destination. An authorizer's pod may consult an authorizer in its turn, and
    /// so on: in one task, each of them would be polled within the one before.
    async fn delivered_apart(self) -> Result<HandedOver, HandoffError> {
        let (pod, to) = (Rc::clone(&self.pod), self.to);
        let (mut answer, delivered) = oneshot::channel();
        pod.tasks.spawn(async move {
            tokio::select! {
                handed = self.delivered() => {
                    // If nothing waits for it any more, its caller has left.
                    let _ = answer.send(handed);
                }
                () = answer.closed() => {}
            }
        });
        delivered.await.unwrap_or_else(|_| {
            let reason = "its pod is not served any more".to_owned();
            Err(HandoffError::Refused { to, reason })
        })
    }

    async fn deliver(&mut self) -> Result<(JudgedDelivery, Slot), Refusal> {
        let connection = self.connection.as_mut().ok_or(Refusal::CallerLeft)?;
        let (descriptor, seat) = admit(connection.context())?;
        connection.sit(seat, None);
        Ok((connection.deliver().await?, descriptor))
    }

    fn refuse(&mut self, refusal: Refusal) {
        if let Some(connection) = self.connection.take() {
            connection.refuse(refusal);
        }
    }
}

impl Drop for DestinationHalf {
    fn drop(&mut self) {
        self.refuse(Refusal::CallerLeft);
    }
}

/// Takes a descriptor and a place among the pod's streams for a connection to its application.
fn admit(context: &ConnectionContext) -> Result<(Slot, Seat<PlaceSource>), Refusal> {
    let (pod, to) = (&context.pod, context.destination.address);
    if !pod.has_address(to.ip()) || pod.datapath.owns_port(to.port()) {
        return Err(Refusal::ForeignAddress(to));
    }
    let descriptor = pod.caps.take(Resource::Descriptors)?;
    let source = match &context.source.identity {
        Some(identity) => PlaceSource::Identity(identity.clone()),
        None => pod.unverified_source(context.source.address.ip()),
    };
    let seat = pod.caps.places.take(PlaceKind::Stream, source)?;
    Ok((descriptor, seat))
}

impl RemoteConnection<HandedOver> {
    /// Carries both halves to their end, and reports both.
    pub(crate) async fn carry(self, caller: CallerStream) {
        let Self {
            context,
            mut registration,
            upstream,
        } = self;
        let ending = upstream.carry(caller, &mut registration).await;
        context.close(&ending, None);
    }
}

impl HandedOver {
    /// Carries the connection to its end, and reports the destination's half. Returns how the source's half
    /// ended.
    async fn carry(mut self, caller: CallerStream, source: &mut Registration) -> Ending {
        let Some(half) = self.half.connection.take() else {
            return Ending::Refused(Refusal::CallerLeft);
        };
        let mut at_source = None;
        let ended = async {
            let termination = source.terminated().await;
            Termination::AtSource(at_source.insert(termination).to_string())
        };
        let ending = half.carry_unless(self.delivery, caller, ended).await;
        drop(self.descriptor);
        match (at_source, ending) {
            (Some(termination), _) => Ending::Terminated(termination),
            (None, Ending::Finished(end)) => Ending::Finished(end),
            (None, Ending::Refused(refusal)) => at_destination(refusal.to_string()),
            (None, Ending::Terminated(termination)) => at_destination(termination.to_string()),
        }
    }
}

fn at_destination(reason: String) -> Ending {
    Ending::Terminated(Termination::AtDestination(reason))
}

#[cfg(test)]
mod tests {
    use ambit_model::ObjectName;
    use ambit_model::testing::pod;
    use ambit_policy::Denial;

    use super::*;

    #[test]
    fn a_successor_or_another_identity_is_not_the_pod_that_is_served() {
        let served = pod("shop/web", &["10.0.1.1"]);
        assert!(is_same_pod(&served, &served.clone()));
        let successor = Workload {
            uid: "another".into(),
            ..served.clone()
        };
        let renamed = Workload {
            name: ObjectName::new("shop", "other"),
            ..served.clone()
        };
        let identity = "cluster.local/ns/shop/sa/other".parse();
        let other = Workload {
            identity: identity.expect("an identity"),
            ..served.clone()
        };
        for now in [successor, renamed, other] {
            assert!(!is_same_pod(&served, &now), "{now:?}");
        }
    }

    #[test]
    fn the_callers_port_is_only_shown_with_its_own_address() {
        let process: SocketAddr = "10.0.1.1:4567".parse().expect("an address");
        assert_eq!(caller_of(process.ip(), process), CallerAddress(process));
        let own: IpAddr = "fd00::1".parse().expect("an address");
        let shown = CallerAddress(SocketAddr::new(own, 0));
        assert_eq!(caller_of(own, process), shown);
    }

    #[test]
    fn a_denial_by_the_destination_is_one_for_the_source_too() {
        let to = SocketAddr::from(([10, 0, 1, 2], 80));
        let denial = Denial {
            reason: ambit_common::Reason::DeniedByPolicy,
            decider: None,
        };
        let denied = HandoffError::refused_by(to, &Refusal::by_evaluator(denial));
        assert!(denied.is_denial(), "{denied}");
        let failed = HandoffError::refused_by(to, &Refusal::CallerLeft);
        assert!(!failed.is_denial(), "{failed}");
    }
}
