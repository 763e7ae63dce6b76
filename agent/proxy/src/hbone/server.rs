//! Tunnels that other nodes open to a pod.
//!
//! The certificate, the policies and the identity are those of the pod whose network namespace the
//! listener lives in. 200 is answered only once the connection to the application stands.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response, StatusCode};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;

use crate::carrier::CallerStream;
use crate::connection::events::Matter;
use crate::connection::refusal::Refusal;
use crate::connection::{ConnectionDirection, Path};
use crate::hbone::Transport;
use crate::hbone::canonical;
use crate::hbone::{ConnectRequestError, connect_target};
use crate::inbound::InboundCall;
use crate::limits::places::{PlaceKind, PlaceSource};
use crate::limits::{Resource, Slot};
use crate::shard::accept::ResetOnDrop;
use crate::shard::pod::ServedPod;
use crate::verdict::Termination;
use ambit_admission::{Seat, SeatHandle};
use ambit_datapath::DeliveryCaller;
use ambit_identity::{HandshakeError, VerifiedPeer};
use ambit_model::CallerAddress;
use ambit_observe::events::InLog;
use ambit_relay::{TLS_BUFFER, Tunnel, server_settings, widen};

/// How often a peer is asked whether it is alive, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(30);

/// How long a tunnel may stand on which nothing was ever let through to the application: long enough
/// for a peer that asks at once, and for one that asks again.
const UNPROVEN: Duration = Duration::from_secs(5);

/// How long the peer of a tunnel that has to make room may take to notice.
const LEAVING: Duration = Duration::from_secs(1);

/// How long a peer may take to acknowledge settings before it is looked at again.
const ACKNOWLEDGED: Duration = Duration::from_millis(50);

/// The word that metrics use of a tunnel that ended because nothing was let through on it.
const NOTHING_ALLOWED: &str = "nothing-allowed";

/// The word that logs and metrics use of a CONNECT that leads nowhere where it may.
const BAD_CONNECT: &str = "bad-connect";

/// A tunnel connection whose peer is verified.
struct TunnelPeer {
    pod: Rc<ServedPod>,
    verified: VerifiedPeer,
    /// The tunnel's TCP source.
    source: SocketAddr,
    /// Where the tunnel came to: one of the pod's addresses.
    reached: SocketAddr,
    /// Its place among the pod's tunnels.
    seat: SeatHandle<PlaceSource>,
    /// Whether anything was ever let through to the application.
    proven: Cell<bool>,
    /// Streams whose verdict is awaited.
    deciding: Cell<usize>,
    /// Told when the tunnel may get ample room.
    widen: Notify,
}

/// The peer's side of HTTP/2.
type Connection = h2::server::Connection<TlsStream<Transport<TcpStream>>, Bytes>;

/// TLS, and the stream under it.
struct TunnelStream {
    tls: TlsStream<Transport<TcpStream>>,
    transport: Transport<TcpStream>,
}

/// Serves a connection accepted on an HBONE listener, to its end.
pub(crate) async fn serve(pod: Rc<ServedPod>, stream: TcpStream, source: SocketAddr) {
    let reached = stream.local_addr().map(canonical);
    let stream = ResetOnDrop::new(stream);
    let Ok(reached) = reached else { return };
    if !pod.has_address(reached.ip()) {
        return refuse(&pod, source, reached, &Refusal::ForeignAddress(reached));
    }
    let _descriptor = match pod.caps.take(Resource::Descriptors) {
        Ok(slot) => slot,
        Err(over) => return refuse(&pod, source, reached, &over.into()),
    };
    match identify(&pod, stream, source).await {
        Ok((tunnel, verified, seat)) => {
            let peer = TunnelPeer {
                pod,
                verified,
                source: canonical(source),
                reached,
                seat: seat.handle(),
                proven: Cell::new(false),
                deciding: Cell::new(0),
                widen: Notify::new(),
            };
            // On the heap: a task that is refused before has no use for it.
            Box::pin(accept_streams(Rc::new(peer), tunnel, seat)).await;
        }
        Err(refusal) => refuse(&pod, source, reached, &refusal),
    }
}

/// Finds out who the peer is. Until then the connection has a place among those of strangers, and
/// from then on one that counts towards the peer's identity.
async fn identify(
    pod: &ServedPod,
    stream: ResetOnDrop,
    source: SocketAddr,
) -> Result<(TunnelStream, VerifiedPeer, Seat<PlaceSource>), Refusal> {
    let places = &pod.caps.places;
    let mut seat = places.take(PlaceKind::Handshake, pod.unverified_source(source.ip()))?;
    let (tunnel, verified) = tokio::select! {
        shaken = handshake(pod, stream.into_inner()) => shaken?,
        () = seat.displaced() => return Err(Termination::Displaced.into()),
    };
    let identity = PlaceSource::Identity(verified.identity().clone());
    let seat = places.take(PlaceKind::Tunnel, identity)?;
    Ok((tunnel, verified, seat))
}

fn refuse(pod: &ServedPod, source: SocketAddr, reached: SocketAddr, refusal: &Refusal) {
    pod.stats.refused(refusal.as_str());
    let in_log = if refusal.is_denial_by_proxy() {
        let matter = Matter::tunnel(canonical(source), None, reached);
        matter.denied(pod, refusal.as_str(), refusal.decider())
    } else {
        pod.events.may_log(&pod.workload.name)
    };
    match in_log {
        InLog::Written => tracing::warn!(
            target: "ambit::access", pod = %pod.workload.name, %source,
            reason = refusal.as_str(), detail = %refusal, "tunnel refused"
        ),
        InLog::LeftOut => {}
    }
}

async fn handshake(
    pod: &ServedPod,
    stream: TcpStream,
) -> Result<(TunnelStream, VerifiedPeer), Refusal> {
    let server = pod.certificates.server()?;
    let limit = pod.limits.handshake_timeout;
    let transport = Transport::new(stream);
    let accepting = transport.sending(server.accept(transport.clone()));
    let (mut tls, peer) = match tokio::time::timeout(limit, accepting).await {
        Ok(accepted) => accepted.map_err(not_accepted)?,
        Err(_) => return Err(Refusal::HandshakeTimedOut(limit)),
    };
    tls.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
    Ok((TunnelStream { tls, transport }, peer))
}

fn not_accepted(error: HandshakeError) -> Refusal {
    match error {
        HandshakeError::Identity(error) => Refusal::PeerIdentity(error),
        HandshakeError::Tls(error) => Refusal::Handshake(error),
    }
}

async fn accept_streams(peer: Rc<TunnelPeer>, tunnel: TunnelStream, mut seat: Seat<PlaceSource>) {
    let TunnelStream { tls, transport } = tunnel;
    let opening = transport.sending(server_settings().handshake(tls));
    let limit = peer.pod.limits.handshake_timeout;
    let opening = tokio::time::timeout(limit, opening);
    let opened = tokio::select! {
        opened = opening => opened,
        () = seat.displaced() => return refuse_displaced(&peer),
    };
    let mut connection = match opened {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(source = %peer.source, %error, "a tunnel did not speak HTTP/2");
            return;
        }
        Err(_) => {
            let refusal = Refusal::HandshakeTimedOut(limit);
            return refuse(&peer.pod, peer.source, peer.reached, &refusal);
        }
    };
    let mut ample = None;
    let mut silent = std::pin::pin!(silence(connection.ping_pong()));
    let mut leaving = false;
    let mut unproven = std::pin::pin!(peer.unproven(UNPROVEN));
    loop {
        let accepted = tokio::select! {
            accepted = transport.sending(connection.accept()) => accepted,
            () = &mut silent => return,
            () = seat.displaced() => {
                refuse_displaced(&peer);
                // A stranger to the application gets no more time; others may be about to call.
                if peer.proven.get() {
                    leave(&mut connection, &transport).await;
                }
                return;
            }
            () = peer.widen.notified(), if ample.is_none() => {
                ample = peer.widen(&mut connection);
                continue;
            }
            () = &mut unproven => {
                if leaving {
                    return;
                }
                // What its peer is opening at this moment is judged all the same.
                leaving = true;
                connection.graceful_shutdown();
                unproven.set(peer.unproven(LEAVING));
                peer.report_unproven();
                continue;
            }
        };
        match accepted {
            Some(Ok((request, mut respond))) => match peer.ensure_accepted() {
                Ok(()) => {
                    peer.pod
                        .tasks
                        .spawn(serve_stream(Rc::clone(&peer), request, respond));
                }
                Err(refusal) => {
                    // Open streams go on; the next one needs another handshake.
                    connection.graceful_shutdown();
                    answer(&mut respond, refusal.status());
                    refuse(&peer.pod, peer.source, peer.reached, &refusal);
                }
            },
            Some(Err(error)) => {
                tracing::debug!(source = %peer.source, %error, "a tunnel ended");
                return;
            }
            None => return,
        }
    }
}

fn refuse_displaced(peer: &TunnelPeer) {
    let refusal = Termination::Displaced.into();
    refuse(&peer.pod, peer.source, peer.reached, &refusal);
}

/// Ends a tunnel in the orderly way: what its peer is about to open is refused rather than lost.
async fn leave(connection: &mut Connection, transport: &Transport<TcpStream>) {
    connection.graceful_shutdown();
    let leaving = async {
        while let Some(Ok((_, mut respond))) = transport.sending(connection.accept()).await {
            answer(&mut respond, StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    // Whoever does not take part in it has had time to.
    let _ = tokio::time::timeout(LEAVING, leaving).await;
}

/// Resolves when the peer no longer answers.
async fn silence(pings: Option<h2::PingPong>) {
    let Some(mut pings) = pings else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(PING_EVERY).await;
        let answer = tokio::time::timeout(PING_EVERY, pings.ping(h2::Ping::opaque())).await;
        if !matches!(answer, Ok(Ok(_))) {
            return;
        }
    }
}

async fn serve_stream(
    peer: Rc<TunnelPeer>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (caller, to) = match peer.target(&request) {
        Ok(target) => target,
        Err(detail) => {
            peer.pod.stats.refused(BAD_CONNECT);
            let identity = Some(peer.verified.identity().clone());
            let matter = Matter::tunnel(peer.source, identity, peer.reached);
            match matter.denied(&peer.pod, BAD_CONNECT, None) {
                InLog::Written => tracing::warn!(
                    target: "ambit::access", pod = %peer.pod.workload.name, source = %peer.source,
                    identity = %peer.verified.identity(), %detail, "CONNECT refused"
                ),
                InLog::LeftOut => {}
            }
            return answer(&mut respond, StatusCode::BAD_REQUEST);
        }
    };
    let way = (ConnectionDirection::Inbound, Path::Tunnel);
    let mut call = InboundCall::register(Rc::clone(&peer.pod), way, caller, to);
    let (_descriptor, seat) = match peer.admit_stream() {
        Ok(admitted) => admitted,
        Err(refusal) => {
            answer(&mut respond, StatusCode::SERVICE_UNAVAILABLE);
            return call.refuse(refusal);
        }
    };
    call.sit(seat, Some(peer.seat.clone()));
    peer.deciding.set(peer.deciding.get() + 1);
    let delivered = tokio::select! {
        delivered = call.deliver() => delivered,
        _ = poll_fn(|context| respond.poll_reset(context)) => Err(Refusal::CallerLeft),
    };
    peer.deciding.set(peer.deciding.get() - 1);
    let delivered = match delivered {
        Ok(delivered) => {
            peer.prove();
            delivered
        }
        Err(refusal) => {
            answer(&mut respond, refusal.status());
            return call.refuse(refusal);
        }
    };
    match respond.send_response(Response::new(()), false) {
        Ok(send) => {
            let tunnel = Tunnel {
                send,
                receive: request.into_body(),
                lease: None,
            };
            call.carry(delivered, CallerStream::Tunnel(tunnel)).await;
        }
        Err(_) => call.refuse(Refusal::CallerLeft),
    }
}

fn answer(respond: &mut SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    // Where the peer has left there is nobody to be answered.
    let _ = respond.send_response(response, true);
}

impl TunnelPeer {
    /// Resolves when the tunnel has stood for so long, nothing was ever let through on it, and nothing
    /// is being decided.
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
            source = %self.source, identity = %self.verified.identity(),
            "a tunnel ends on which nothing was let through"
        );
    }

    /// Something was let through to the application.
    fn prove(&self) {
        if !self.proven.replace(true) {
            self.widen.notify_one();
        }
    }

    /// Gives the tunnel ample room, where there is some left. Those on which nothing was let through
    /// get none, so that they take none from others.
    fn widen(self: &Rc<Self>, connection: &mut Connection) -> Option<Slot> {
        let ample = self.pod.caps.take(Resource::Ample).ok()?;
        if widen(connection).is_ok() {
            return Some(ample);
        }
        let peer = Rc::clone(self);
        self.pod.tasks.spawn(async move {
            tokio::time::sleep(ACKNOWLEDGED).await;
            peer.widen.notify_one();
        });
        None
    }

    /// A descriptor and a place for a stream.
    fn admit_stream(&self) -> Result<(Slot, Seat<PlaceSource>), Refusal> {
        let caps = &self.pod.caps;
        let descriptor = caps.take(Resource::Descriptors)?;
        let identity = PlaceSource::Identity(self.verified.identity().clone());
        Ok((descriptor, caps.places.take(PlaceKind::Stream, identity)?))
    }

    /// Whether what held in the handshake holds still, on both sides.
    fn ensure_accepted(&self) -> Result<(), Refusal> {
        self.pod.certificates.ready()?;
        Ok(self.pod.certificates.ensure_accepted(&self.verified)?)
    }

    /// Whom the CONNECT is for, and who calls: the tunnel's peer, whatever the request says.
    fn target(
        &self,
        request: &Request<RecvStream>,
    ) -> Result<(DeliveryCaller, SocketAddr), ConnectRequestError> {
        let is_agents = |port| self.pod.datapath.owns_port(port);
        let target = connect_target(request, self.source, self.reached, is_agents)?;
        let caller = DeliveryCaller {
            identity: Some(self.verified.identity().clone()),
            address: CallerAddress(target.caller),
        };
        Ok((caller, target.to))
    }
}
