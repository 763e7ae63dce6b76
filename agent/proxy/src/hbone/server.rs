//! Tunnels that other nodes open to a pod: accepted, identified, and each of their streams served.
//!
//! The certificate, the policies and the identity are those of the pod in whose network namespace the
//! listener is. A CONNECT is answered with 200 only once the application is connected.

use std::cell::Cell;
use std::future::pending;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::connect::{ConnectRequestError, ConnectTarget, TunnelAddresses, connect_target};
use crate::connection::events::{EventSubject, Severity};
use crate::connection::refusal::Refusal;
use crate::connection::{ConnectionDirection, Path, ToApplication, canonical};
use crate::inbound::{CallerStream, InboundConnection};
use crate::limits::places::{PlaceKind, PlaceSource};
use crate::limits::{Resource, Slot};
use crate::shard::accept::ResetOnDrop;
use crate::shard::pod::ServedPod;
use crate::verdict::Termination;
use ambit_admission::{Seat, SeatHandle};
use ambit_datapath::DeliveryCaller;
use ambit_identity::{HandshakeError, VerifiedPeer};
use ambit_model::WorkloadIdentity;
use ambit_observe::events::InLog;
use ambit_tunnel::{Connection, Incoming, KeepAlive, RequestHead, Responder, TlsWire, accept};

/// How long a peer may be silent.
const KEEP_ALIVE: KeepAlive = KeepAlive {
    every: Duration::from_secs(30),
    timeout: Duration::from_secs(30),
};

/// How long a tunnel may stay open without anything ever being let through to the application: long
/// enough for a peer that sends its CONNECT at once, and for one that retries.
const UNPROVEN: Duration = Duration::from_secs(5);

/// How long the peer of a tunnel that has to give up its place may take to notice.
const LEAVING: Duration = Duration::from_secs(1);

/// The word that metrics use for a tunnel that ended because nothing was let through on it.
const NOTHING_ALLOWED: &str = "nothing-allowed";

/// The word that logs and metrics use for a request that is not a CONNECT to this pod.
const BAD_CONNECT: &str = "bad-connect";

/// A tunnel whose peer is verified.
struct InboundTunnel {
    pod: Rc<ServedPod>,
    peer: VerifiedPeer,
    addresses: TunnelAddresses,
    /// Its place among the pod's tunnels.
    seat: SeatHandle<PlaceSource>,
    /// Whether anything was ever let through to the application.
    proven: Cell<bool>,
    /// Streams whose verdict is pending.
    deciding: Cell<usize>,
}

/// A tunnel's wire, with the peer that it proved to be.
struct IdentifiedWire {
    wire: TlsWire<TcpStream>,
    peer: VerifiedPeer,
    seat: Seat<PlaceSource>,
}

/// Serves a connection accepted on an HBONE listener, to its end.
pub(crate) async fn serve(pod: Rc<ServedPod>, stream: TcpStream, source: SocketAddr) {
    let reached = stream.local_addr().map(canonical);
    let stream = ResetOnDrop::new(stream);
    let Ok(reached) = reached else { return };
    let addresses = TunnelAddresses { source, reached };
    if !pod.has_address(reached.ip()) {
        return refuse(&pod, addresses, &Refusal::ForeignAddress(reached));
    }
    let _descriptor = match pod.caps.take(Resource::Descriptors) {
        Ok(slot) => slot,
        Err(over) => return refuse(&pod, addresses, &over.into()),
    };
    match identify(&pod, stream, source).await {
        Ok(IdentifiedWire { wire, peer, seat }) => {
            let tunnel = InboundTunnel {
                pod,
                peer,
                addresses: TunnelAddresses {
                    source: canonical(source),
                    reached,
                },
                seat: seat.handle(),
                proven: Cell::new(false),
                deciding: Cell::new(0),
            };
            // On the heap: a task that is refused before has no use for it.
            Box::pin(accept_streams(Rc::new(tunnel), wire, seat)).await;
        }
        Err(refusal) => refuse(&pod, addresses, &refusal),
    }
}

/// Verifies the peer. Until then the connection has a place among those of unverified sources, and
/// from then on one that counts towards the peer's identity.
async fn identify(
    pod: &ServedPod,
    stream: ResetOnDrop,
    source: SocketAddr,
) -> Result<IdentifiedWire, Refusal> {
    let places = &pod.caps.places;
    let mut seat = places.take(PlaceKind::Handshake, pod.unverified_source(source.ip()))?;
    let (wire, peer) = tokio::select! {
        shaken = handshake(pod, stream.into_inner()) => shaken?,
        () = seat.displaced() => return Err(Termination::Displaced.into()),
    };
    let identity = PlaceSource::Identity(peer.identity().clone());
    let seat = places.take(PlaceKind::Tunnel, identity)?;
    Ok(IdentifiedWire { wire, peer, seat })
}

async fn handshake(
    pod: &ServedPod,
    stream: TcpStream,
) -> Result<(TlsWire<TcpStream>, VerifiedPeer), Refusal> {
    let server = pod.certificates.server()?;
    let limit = pod.limits.handshake_timeout;
    let (shaken, peer) = match tokio::time::timeout(limit, server.accept(stream)).await {
        Ok(accepted) => accepted.map_err(not_accepted)?,
        Err(_) => return Err(Refusal::HandshakeTimedOut(limit)),
    };
    let wire = TlsWire::new(shaken.socket, shaken.records, shaken.early);
    Ok((wire, peer))
}

fn not_accepted(error: HandshakeError) -> Refusal {
    match error {
        HandshakeError::Identity(error) => Refusal::PeerIdentity(error),
        HandshakeError::Tls(error) => Refusal::Handshake(error),
    }
}

/// Reports a tunnel, or a stream before its CONNECT was read, that is refused.
fn refuse(pod: &ServedPod, addresses: TunnelAddresses, refusal: &Refusal) {
    pod.stats.refused(refusal.as_str());
    let subject = || event_subject(addresses, None);
    match refusal.severity().report(pod, subject) {
        InLog::Written => tracing::warn!(
            target: "ambit::access", pod = %pod.workload.name, source = %addresses.source,
            reason = refusal.as_str(), detail = %refusal, "tunnel refused"
        ),
        InLog::LeftOut => {}
    }
}

fn event_subject(addresses: TunnelAddresses, identity: Option<WorkloadIdentity>) -> EventSubject {
    EventSubject {
        direction: ConnectionDirection::Inbound,
        source: canonical(addresses.source),
        identity,
        destination: addresses.reached,
        request: None,
    }
}

async fn accept_streams(
    tunnel: Rc<InboundTunnel>,
    wire: TlsWire<TcpStream>,
    mut seat: Seat<PlaceSource>,
) {
    let mut connection = accept(wire, tunnel.pod.caps.memory.clone(), KEEP_ALIVE);
    let mut leaving = false;
    let mut unproven = std::pin::pin!(tunnel.unproven(UNPROVEN));
    loop {
        let incoming = tokio::select! {
            incoming = connection.next() => incoming,
            () = seat.displaced() => {
                tunnel.refuse(&Termination::Displaced.into());
                // A tunnel that never reached the application gets no more time; others may be about to
                // call.
                if tunnel.proven.get() {
                    leave(&mut connection).await;
                }
                return;
            }
            () = &mut unproven => {
                if leaving {
                    return;
                }
                // A stream that the peer is opening at this moment is still judged.
                leaving = true;
                connection.leave();
                unproven.set(tunnel.unproven(LEAVING));
                tunnel.report_unproven();
                continue;
            }
        };
        match incoming {
            Ok(Some(Incoming::Request(head, responder))) => match tunnel.ensure_accepted() {
                Ok(()) => {
                    let serving = serve_stream(Rc::clone(&tunnel), head, responder);
                    tunnel.pod.tasks.spawn(serving);
                }
                Err(refusal) => {
                    // Open streams go on; the next one needs another handshake.
                    connection.leave();
                    responder.refuse(refusal.status());
                    tunnel.refuse(&refusal);
                }
            },
            Ok(Some(Incoming::NoMemory(exhausted))) => tunnel.refuse(&exhausted.into()),
            Ok(None) => return,
            Err(failure) => {
                tracing::debug!(
                    source = %tunnel.addresses.source, error = %failure, "a tunnel ended"
                );
                return;
            }
        }
    }
}

/// Ends a tunnel in the orderly way: the streams that its peer is about to open are refused rather than
/// lost.
async fn leave(connection: &mut Connection<TlsWire<TcpStream>>) {
    connection.leave();
    let leaving = async {
        while let Ok(Some(incoming)) = connection.next().await {
            match incoming {
                Incoming::Request(_, responder) => responder.refuse(503),
                Incoming::NoMemory(_) => {}
            }
        }
    };
    // A peer that does not take part has had its time.
    let _ = tokio::time::timeout(LEAVING, leaving).await;
}

/// Serves a stream of a tunnel to its end.
async fn serve_stream(tunnel: Rc<InboundTunnel>, head: RequestHead, responder: Responder) {
    let target = match tunnel.target(&head) {
        Ok(target) => target,
        Err(error) => {
            tunnel.refuse_connect(&error);
            return responder.refuse(400);
        }
    };
    let mut connection = InboundConnection::register(tunnel.accepted(target));
    let (_descriptor, seat) = match tunnel.admit_stream() {
        Ok(admitted) => admitted,
        Err(refusal) => {
            responder.refuse(refusal.status());
            return connection.refuse(refusal);
        }
    };
    connection.sit(seat, Some(tunnel.seat.clone()));
    tunnel.deciding.set(tunnel.deciding.get() + 1);
    let delivered = tokio::select! {
        delivered = connection.deliver() => delivered,
        () = responder.given_up() => Err(Refusal::CallerLeft),
    };
    tunnel.deciding.set(tunnel.deciding.get() - 1);
    match delivered {
        Ok(delivery) => {
            tunnel.proven.set(true);
            let caller = CallerStream::Tunnel(responder.accept());
            connection.carry(delivery, caller).await;
        }
        Err(refusal) => {
            responder.refuse(refusal.status());
            connection.refuse(refusal);
        }
    }
}

impl InboundTunnel {
    /// Resolves when `time` has passed, nothing was ever let through on the tunnel, and no verdict is
    /// pending.
    async fn unproven(&self, time: Duration) {
        loop {
            tokio::time::sleep(time).await;
            if self.proven.get() {
                return pending().await;
            }
            if self.deciding.get() == 0 {
                return;
            }
        }
    }

    fn report_unproven(&self) {
        self.pod.stats.terminated(NOTHING_ALLOWED);
        tracing::debug!(
            source = %self.addresses.source, identity = %self.peer.identity(),
            "a tunnel ends on which nothing was let through"
        );
    }

    fn refuse(&self, refusal: &Refusal) {
        refuse(&self.pod, self.addresses, refusal);
    }

    /// Reports a request that is not a CONNECT to this pod.
    fn refuse_connect(&self, error: &ConnectRequestError) {
        self.pod.stats.refused(BAD_CONNECT);
        let denial = Severity::Denial {
            reason: BAD_CONNECT,
            decider: None,
        };
        let subject = || event_subject(self.addresses, Some(self.peer.identity().clone()));
        match denial.report(&self.pod, subject) {
            InLog::Written => tracing::warn!(
                target: "ambit::access", pod = %self.pod.workload.name,
                source = %self.addresses.source, identity = %self.peer.identity(),
                detail = %error, "CONNECT refused"
            ),
            InLog::LeftOut => {}
        }
    }

    /// Takes a descriptor and a place for a stream.
    fn admit_stream(&self) -> Result<(Slot, Seat<PlaceSource>), Refusal> {
        let caps = &self.pod.caps;
        let descriptor = caps.take(Resource::Descriptors)?;
        let identity = PlaceSource::Identity(self.peer.identity().clone());
        Ok((descriptor, caps.places.take(PlaceKind::Stream, identity)?))
    }

    /// Checks that what held in the handshake still holds, on both sides.
    fn ensure_accepted(&self) -> Result<(), Refusal> {
        self.pod.certificates.ready()?;
        Ok(self.pod.certificates.ensure_accepted(&self.peer)?)
    }

    fn target(&self, request: &RequestHead) -> Result<ConnectTarget, ConnectRequestError> {
        let is_agents = |port| self.pod.datapath.owns_port(port);
        connect_target(request, self.addresses, is_agents)
    }

    /// Returns the connection that a CONNECT opens. The caller is the tunnel's peer, whatever the request
    /// says.
    fn accepted(&self, target: ConnectTarget) -> ToApplication {
        ToApplication {
            pod: Rc::clone(&self.pod),
            direction: ConnectionDirection::Inbound,
            path: Path::Tunnel,
            caller: DeliveryCaller {
                identity: Some(self.peer.identity().clone()),
                address: target.caller,
            },
            to: target.to,
            started: Instant::now(),
        }
    }
}
