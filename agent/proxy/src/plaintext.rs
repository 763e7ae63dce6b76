//! Inbound plaintext that the kernel leaves to userspace (its answer was ASK): judged by the
//! evaluator, without an identity, and then delivered like any connection, under a ticket.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::TcpStream;

use crate::carrier::CallerStream;
use crate::connection::refusal::Refusal;
use crate::connection::{ConnectionDirection, Path};
use crate::ends::Ends;
use crate::hbone::canonical;
use crate::inbound::InboundCall;
use crate::limits::places::{PlaceKind, PlaceSource};
use crate::limits::{Resource, Slot};
use crate::shard::accept::ResetOnDrop;
use crate::shard::pod::ServedPod;
use crate::verdict::Judge;
use ambit_admission::Seat;
use ambit_datapath::DeliveryCaller;
use ambit_model::CallerAddress;
use ambit_policy::ConnectionVerdict;

/// Serves a connection accepted on a plaintext listener, to its end.
pub(crate) async fn serve(pod: Rc<ServedPod>, stream: TcpStream, peer: SocketAddr) {
    let local = stream.local_addr();
    let client = ResetOnDrop::new(stream);
    let to = match local {
        Ok(local) => canonical(local),
        Err(error) => {
            tracing::debug!(%error, pod = %pod.workload.name, "a plaintext connection was lost");
            return;
        }
    };
    let caller = DeliveryCaller {
        identity: None,
        address: CallerAddress(canonical(peer)),
    };
    let way = (ConnectionDirection::Inbound, Path::Plaintext);
    let mut call = InboundCall::register(Rc::clone(&pod), way, caller.clone(), to);
    let (_descriptor, seat) = match admit(&pod, &caller, to) {
        Ok(admitted) => admitted,
        Err(refusal) => return call.refuse(refusal),
    };
    call.sit(seat, None);
    match call.deliver().await {
        Ok(delivered) => {
            call.carry(delivered, CallerStream::Tcp(client.into_inner()))
                .await
        }
        Err(refusal) => call.refuse(refusal),
    }
}

/// Lets a connection come as far as the kernel's second verdict.
fn admit(
    pod: &ServedPod,
    caller: &DeliveryCaller,
    to: SocketAddr,
) -> Result<(Slot, Seat<PlaceSource>), Refusal> {
    if !pod.has_address(to.ip()) || pod.datapath.owns_port(to.port()) {
        return Err(Refusal::ForeignAddress(to));
    }
    let view = pod.view();
    match Judge::new(&view, &pod.workload).connection(&Ends { caller, to }.attributes()) {
        ConnectionVerdict::Deny(denial) => return Err(Refusal::by_evaluator(denial)),
        ConnectionVerdict::Allow(_) | ConnectionVerdict::Ask => {}
    }
    let descriptor = pod.caps.take(Resource::Descriptors)?;
    let source = pod.unverified_source(caller.address.ip());
    let seat = pod.caps.places.take(PlaceKind::Plaintext, source)?;
    Ok((descriptor, seat))
}
