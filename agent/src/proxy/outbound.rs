//! Connections that a pod's processes open to mesh addresses.
//!
//! A failure is a refusal: an endpoint is dialled in plaintext only because its objects do not opt
//! it in, never because a tunnel failed.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_common::RecordKind;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

use super::carrier::Client;
use super::connections::Registration;
use super::delivery::Delivered;
use super::hbone::Tunnel;
use super::inbound_call::InboundCall;
use super::limits::Resource;
use super::pod::ServedPod;
use super::refusal::Refusal;
use super::relay::{Meter, Side, relay, relay_tcp};
use super::report::{Account, Ending};
use super::reset::ResetOnDrop;
use super::route::{Route, attempts, path_to, route};
use super::subject::{Direction, Party, Path, Subject};
use super::verdict::Basis;
use crate::datapath::Caller;
use crate::model::Target;
use crate::policy::MeshView;

/// A connection that one of the pod's processes opened.
struct Call {
    pod: Rc<ServedPod>,
    /// The pod's own address, and the process's port.
    source: SocketAddr,
    meter: Rc<Meter>,
    since: Instant,
}

/// A call's connection to one endpoint, ready to carry bytes.
enum Link {
    /// To the pod's own application: judged here, as what comes from elsewhere is.
    Own(Box<InboundCall>, Delivered),
    Other {
        registration: Registration,
        subject: Rc<Subject>,
        way: Way,
    },
}

enum Way {
    Tunnel(Tunnel),
    Tcp(TcpStream),
}

/// A call that no endpoint answered.
struct Failure {
    subject: Rc<Subject>,
    refusal: Refusal,
}

/// Serves a connection accepted on an outbound listener, to its end.
pub(crate) async fn serve(pod: Rc<ServedPod>, stream: TcpStream, peer: SocketAddr) {
    let Some(dialled) = original_destination(&pod, &stream) else {
        // Whoever it is, the kernel did not send it here: there is nothing to say of it.
        pod.stats.refused(Refusal::NoRecord.as_str());
        drop(ResetOnDrop::new(stream));
        return;
    };
    let client = ResetOnDrop::new(stream);
    let source = pod.address_like(dialled.ip()).unwrap_or(peer.ip());
    let call = Call {
        source: SocketAddr::new(source, peer.port()),
        meter: Rc::new(Meter::default()),
        since: Instant::now(),
        pod,
    };
    let _slot = match call.pod.caps.take(Resource::Outbound) {
        Ok(slot) => slot,
        Err(over) => return call.refuse(dialled, over.into()),
    };
    match call.connect(dialled).await {
        Ok(link) => call.carry(link, client).await,
        Err(Failure { subject, refusal }) => {
            call.close(&subject, None, &Ending::Refused(refusal));
        }
    }
}

/// What the process dialled, as the kernel recorded it.
fn original_destination(pod: &ServedPod, stream: &TcpStream) -> Option<SocketAddr> {
    let record = pod.datapath.record(stream)?;
    match record.kind()? {
        RecordKind::OutboundAccepted => Some(record.endpoint.into()),
        RecordKind::OutboundClient
        | RecordKind::DeliveryClient
        | RecordKind::DeliveryAccepted
        | RecordKind::Node => None,
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
) -> Result<Vec<Target>, Refusal> {
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

impl Call {
    /// Connects to an endpoint of what was dialled.
    async fn connect(&self, dialled: SocketAddr) -> Result<Link, Failure> {
        let unrouted = |refusal| Failure {
            subject: Rc::new(self.subject(None, dialled)),
            refusal,
        };
        let endpoints = resolve(self.pod.mesh.clone(), dialled, self.pod.limits.hold)
            .await
            .map_err(unrouted)?;
        let mut tried = Err(unrouted(Refusal::Unknown(dialled)));
        for endpoint in &endpoints {
            tried = self.attempt(endpoint).await;
            match &tried {
                Err(failure) if failure.refusal.is_unreachable() => {}
                Ok(_) | Err(_) => break,
            }
        }
        tried
    }

    /// Connects to one endpoint.
    async fn attempt(&self, endpoint: &Target) -> Result<Link, Failure> {
        match path_to(&endpoint.workload, &self.pod.workload) {
            Path::OwnPod => self.attempt_own(endpoint.address).await,
            path @ (Path::Tunnel | Path::Plaintext) => self.attempt_other(path, endpoint).await,
        }
    }

    async fn attempt_own(&self, to: SocketAddr) -> Result<Link, Failure> {
        let caller = Caller {
            identity: Some(self.pod.certificates.identity().clone()),
            address: self.source,
        };
        let mut call = InboundCall::register(Rc::clone(&self.pod), Path::OwnPod, caller, to);
        match call.deliver().await {
            Ok(delivered) => Ok(Link::Own(Box::new(call), delivered)),
            Err(refusal) => Err(Failure {
                subject: Rc::clone(call.subject()),
                refusal,
            }),
        }
    }

    async fn attempt_other(&self, path: Path, endpoint: &Target) -> Result<Link, Failure> {
        let subject = Rc::new(self.subject(Some((path, endpoint)), endpoint.address));
        let basis = Basis::Endpoint {
            workload: Arc::clone(&endpoint.workload),
            path,
        };
        let meter = Rc::clone(&self.meter);
        let registry = &self.pod.registry;
        let mut registration = registry.register(Rc::clone(&subject), basis.clone(), meter);
        let opened = tokio::select! {
            opened = self.open(path, endpoint) => opened,
            termination = registration.terminated() => Err(termination.into()),
        };
        let held = opened.and_then(|way| {
            self.pod.still_holds(&basis)?;
            Ok(way)
        });
        match held {
            Ok(way) => Ok(Link::Other {
                registration,
                subject,
                way,
            }),
            Err(refusal) => Err(Failure { subject, refusal }),
        }
    }

    async fn open(&self, path: Path, endpoint: &Target) -> Result<Way, Refusal> {
        let pod = &self.pod;
        match path {
            Path::Plaintext => Ok(Way::Tcp(
                pod.datapath.dial_plaintext(endpoint.address).await?,
            )),
            Path::Tunnel | Path::OwnPod => {
                let opening = pod.pool.open(endpoint, self.source);
                let limit = pod.limits.dial_timeout;
                match timeout(limit, opening).await {
                    Ok(tunnel) => Ok(Way::Tunnel(tunnel?)),
                    Err(_) => Err(Refusal::DialTimedOut(limit)),
                }
            }
        }
    }

    /// Carries the connection to its end.
    async fn carry(&self, link: Link, client: ResetOnDrop) {
        let client = client.into_inner();
        let (mut registration, subject, way) = match link {
            Link::Own(call, delivered) => {
                return call.carry(delivered, Client::Tcp(client)).await;
            }
            Link::Other {
                registration,
                subject,
                way,
            } => (registration, subject, way),
        };
        let carried = async {
            match way {
                Way::Tunnel(tunnel) => relay(client, tunnel, Side::Source, &self.meter).await,
                Way::Tcp(server) => relay_tcp(client, server, &self.meter).await,
            }
        };
        let ending = tokio::select! {
            _ = carried => Ending::Finished,
            termination = registration.terminated() => Ending::Terminated(termination),
        };
        self.close(&subject, Some(registration.id()), &ending);
    }

    fn subject(&self, chosen: Option<(Path, &Target)>, dialled: SocketAddr) -> Subject {
        let destination = match chosen {
            None => Party::unknown(dialled),
            Some((path, endpoint)) => Party {
                workload: Some(endpoint.workload.name.clone()),
                identity: (path != Path::Plaintext).then(|| endpoint.workload.identity.clone()),
                address: endpoint.address,
            },
        };
        Subject {
            direction: Direction::Outbound,
            path: chosen.map(|(path, _)| path),
            source: self.pod.party(self.source),
            destination,
        }
    }

    fn refuse(&self, dialled: SocketAddr, refusal: Refusal) {
        self.close(
            &self.subject(None, dialled),
            None,
            &Ending::Refused(refusal),
        );
    }

    fn close(&self, subject: &Subject, id: Option<u64>, ending: &Ending) {
        let account = Account {
            subject,
            id,
            since: self.since,
            meter: &self.meter,
            permission: None,
        };
        account.close(ending, &self.pod);
    }
}
