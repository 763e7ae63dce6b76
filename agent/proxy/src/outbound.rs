//! Connections that a pod's processes open to mesh addresses.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::carrier::CallerStream;
use crate::connection::ConnectionDirection;
use crate::connection::refusal::Refusal;
use crate::connection::report::Ending;
use crate::limits::Resource;
use crate::outbound_call::{Failure, Link, OutboundCall, Registered, Way};
use crate::route::{Route, attempts, route};
use crate::shard::accept::ResetOnDrop;
use crate::shard::pod::ServedPod;
use ambit_model::{Endpoint, OriginalDestination};
use ambit_policy::MeshView;
use ambit_relay::{Meter, Side, relay, relay_tcp};

/// Serves a connection accepted on an outbound listener, to its end.
pub(crate) async fn serve(pod: Rc<ServedPod>, stream: TcpStream, peer: SocketAddr) {
    let Some(OriginalDestination(dialled)) = pod.datapath.original_destination(&stream) else {
        // Whoever it is, the kernel did not send it here: there is nothing to say of it.
        pod.stats.refused(Refusal::NoRecord.as_str());
        drop(ResetOnDrop::new(stream));
        return;
    };
    let client = ResetOnDrop::new(stream);
    let source = pod.address_like(dialled.ip()).unwrap_or(peer.ip());
    let call = OutboundCall {
        direction: ConnectionDirection::Outbound,
        source: SocketAddr::new(source, peer.port()),
        meter: Rc::new(Meter::default()),
        since: Instant::now(),
        pod,
    };
    let _slot = match call.pod.caps.take(Resource::Outbound) {
        Ok(slot) => slot,
        Err(over) => return refuse(&call, dialled, over.into()),
    };
    match connect(&call, dialled).await {
        Ok(link) => carry(&call, link, client).await,
        Err(Failure { subject, refusal }) => {
            call.close(&subject, None, &Ending::Refused(refusal));
        }
    }
}

/// The endpoints to try for what was dialled. An address that the model does not know is held for
/// up to `hold`, until a view knows it.
///
/// # Errors
/// [`Refusal`], which [`route`] gives.
async fn resolve(
    mut mesh: watch::Receiver<Arc<MeshView>>,
    dialled: SocketAddr,
    hold: Duration,
) -> Result<Vec<Endpoint>, Refusal> {
    let deadline = tokio::time::Instant::now() + hold;
    loop {
        let destination = mesh.borrow_and_update().snapshot.destination(dialled);
        match route(destination, dialled) {
            Route::Endpoints(endpoints) => return Ok(attempts(endpoints, &mut rand::rng())),
            Route::Refuse(refusal) => return Err(refusal),
            Route::Hold(refusal) => match timeout_at(deadline, mesh.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(refusal),
            },
        }
    }
}

/// Connects to an endpoint of what was dialled.
async fn connect(call: &OutboundCall, dialled: SocketAddr) -> Result<Link, Failure> {
    let unrouted = |refusal| Failure {
        subject: Rc::new(call.subject(None, dialled)),
        refusal,
    };
    let endpoints = resolve(call.pod.mesh.clone(), dialled, call.pod.limits.hold)
        .await
        .map_err(unrouted)?;
    let mut tried = Err(unrouted(Refusal::Unknown(dialled)));
    for endpoint in &endpoints {
        tried = match endpoint {
            Endpoint::Pod(target) => call.attempt(target).await,
            Endpoint::Outside(address) => call.attempt_outside(*address).await,
        };
        match &tried {
            Err(failure) if failure.refusal.is_unreachable() => {}
            Ok(_) | Err(_) => break,
        }
    }
    tried
}

/// Carries the connection to its end.
async fn carry(call: &OutboundCall, link: Link, client: ResetOnDrop) {
    let client = client.into_inner();
    let (registered, way) = match link {
        Link::Own(own, delivered) => {
            // On the heap: few pods call themselves.
            return Box::pin(own.carry(delivered, CallerStream::Tcp(client))).await;
        }
        Link::Other(registered, way) => (registered, way),
    };
    let carried = async {
        match way {
            Way::Tunnel(tunnel) => relay(client, tunnel, Side::Source, &call.meter).await,
            Way::Tcp(server) => relay_tcp(client, server, &call.meter).await,
        }
    };
    let Registered {
        mut registration,
        subject,
    } = registered;
    let ending = tokio::select! {
        _ = carried => Ending::Finished,
        termination = registration.terminated() => Ending::Terminated(termination),
    };
    call.close(&subject, Some(registration.id()), &ending);
}

fn refuse(call: &OutboundCall, dialled: SocketAddr, refusal: Refusal) {
    call.close(
        &call.subject(None, dialled),
        None,
        &Ending::Refused(refusal),
    );
}
