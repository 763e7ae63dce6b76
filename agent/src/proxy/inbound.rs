//! Tunnels that other nodes open to a pod.
//!
//! The certificate, the policies and the identity are those of the pod whose network namespace the
//! listener lives in. 200 is answered only once the connection to the application stands.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response, StatusCode};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::authority::canonical;
use super::carrier::Client;
use super::connect::{ConnectError, connect_target};
use super::events::Matter;
use super::hbone::{Room, TLS_BUFFER, Transport, Tunnel, server_settings};
use super::inbound_call::InboundCall;
use super::limits::Resource;
use super::pod::ServedPod;
use super::refusal::Refusal;
use super::reset::ResetOnDrop;
use super::subject::{Direction, Path};
use crate::datapath::Caller;
use crate::identity::{HandshakeError, VerifiedPeer};
use crate::observe::events::InLog;

/// How often a peer is asked whether it is alive, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(30);

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
}

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
    let _slot = match pod.caps.take(Resource::Inbound) {
        Ok(slot) => slot,
        Err(over) => return refuse(&pod, source, reached, &over.into()),
    };
    match handshake(&pod, stream.into_inner()).await {
        Ok((tunnel, verified)) => {
            let peer = TunnelPeer {
                pod,
                verified,
                source: canonical(source),
                reached,
            };
            accept_streams(Rc::new(peer), tunnel).await;
        }
        Err(refusal) => refuse(&pod, source, reached, &refusal),
    }
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
    let _slot = pod.caps.take(Resource::Handshakes)?;
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

async fn accept_streams(peer: Rc<TunnelPeer>, tunnel: TunnelStream) {
    let TunnelStream { tls, transport } = tunnel;
    let ample = peer.pod.caps.take(Resource::Ample);
    let room = match ample {
        Ok(_) => Room::Ample,
        Err(_) => Room::Scant,
    };
    let opening = transport.sending(server_settings(room).handshake(tls));
    let limit = peer.pod.limits.handshake_timeout;
    let mut connection = match tokio::time::timeout(limit, opening).await {
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
    let mut silent = std::pin::pin!(silence(connection.ping_pong()));
    loop {
        let accepted = tokio::select! {
            accepted = transport.sending(connection.accept()) => accepted,
            () = &mut silent => return,
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
    let way = (Direction::Inbound, Path::Tunnel);
    let mut call = InboundCall::register(Rc::clone(&peer.pod), way, caller, to);
    let _slot = match peer.pod.caps.take(Resource::Streams) {
        Ok(slot) => slot,
        Err(over) => {
            answer(&mut respond, StatusCode::SERVICE_UNAVAILABLE);
            return call.refuse(over.into());
        }
    };
    let delivered = tokio::select! {
        delivered = call.deliver() => delivered,
        _ = poll_fn(|context| respond.poll_reset(context)) => Err(Refusal::CallerLeft),
    };
    let delivered = match delivered {
        Ok(delivered) => delivered,
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
            call.carry(delivered, Client::Tunnel(tunnel)).await;
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
    /// Whether what held in the handshake holds still, on both sides.
    fn ensure_accepted(&self) -> Result<(), Refusal> {
        self.pod.certificates.ready()?;
        Ok(self.pod.certificates.ensure_accepted(&self.verified)?)
    }

    /// Whom the CONNECT is for, and who calls: the tunnel's peer, whatever the request says.
    fn target(&self, request: &Request<RecvStream>) -> Result<(Caller, SocketAddr), ConnectError> {
        let is_agents = |port| self.pod.datapath.owns_port(port);
        let target = connect_target(request, self.source, self.reached, is_agents)?;
        let caller = Caller {
            identity: Some(self.verified.identity().clone()),
            address: target.caller,
        };
        Ok((caller, target.to))
    }
}
