//! The way of a connection from the pod: accepted, routed to endpoints, opened to one of them, carried,
//! reported.
//!
//! A failure is a refusal: an endpoint is dialled in plaintext only because its objects do not opt
//! it in, never because a tunnel failed.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

use crate::connection::refusal::Refusal;
use crate::connection::registry::Registration;
use crate::connection::report::Ending;
use crate::connection::{
    ConnectionContext, ConnectionDirection, ConnectionEnd, Path, ToApplication,
};
use crate::handoff::{HandedOver, Neighbour};
use crate::hbone::FirstBytes;
use crate::inbound::{CallerStream, InboundConnection, JudgedDelivery};
use crate::limits::Resource;
use crate::route::{Attempts, Route, attempts, path_to, route};
use crate::shard::accept::ResetOnDrop;
use crate::shard::pod::ServedPod;
use crate::verdict::Requirement;
use ambit_datapath::DeliveryCaller;
use ambit_model::{
    ApplicationAddress, CallerAddress, OriginalDestination, PodEndpoint, ServiceEndpoint,
};
use ambit_policy::MeshView;
use ambit_relay::{Ahead, Party, RelayEnd, relay, relay_tcp};
use ambit_tunnel::Stream;

/// A connection from the pod that is served, before an endpoint is connected.
pub(crate) struct OutboundConnection<'a> {
    pub(crate) pod: Rc<ServedPod>,
    /// [`ConnectionDirection::Outbound`] or [`ConnectionDirection::Authorizer`].
    pub(crate) direction: ConnectionDirection,
    /// The pod's own address, and the port of its process; port 0 if the agent opens the connection.
    pub(crate) caller: CallerAddress,
    pub(crate) started: Instant,
    /// What its client sends before it stands.
    pub(crate) first_bytes: FirstBytes<'a>,
}

/// A connection to one endpoint, ready to carry bytes.
pub(crate) enum OpenedConnection {
    /// To the pod's own application. It is judged here, as any inbound connection is.
    ToOwnPod(Box<InboundConnection>, JudgedDelivery),
    /// To the application of another pod that this agent serves, which has judged it.
    HandedOver(Box<RemoteConnection<HandedOver>>),
    ToOther(RemoteConnection),
}

/// A connection to an endpoint other than the pod itself.
pub(crate) struct RemoteConnection<U = Upstream> {
    pub(crate) context: Rc<ConnectionContext>,
    pub(crate) registration: Registration,
    pub(crate) upstream: U,
}

/// The endpoint's end of a connection.
pub(crate) enum Upstream {
    Tunnel(Stream),
    Tcp(TcpStream),
}

/// A connection that could not be opened.
pub(crate) struct FailedAttempt {
    context: Rc<ConnectionContext>,
    pub(crate) refusal: Refusal,
}

/// Serves a connection accepted on an outbound listener, to its end.
pub(crate) async fn serve(pod: Rc<ServedPod>, stream: TcpStream, peer: SocketAddr) {
    let Some(dialled) = pod.datapath.original_destination(&stream) else {
        // The kernel did not send it here, so there is nothing to say about it.
        pod.stats.refused(Refusal::NoRecord.as_str());
        drop(ResetOnDrop::new(stream));
        return;
    };
    let client = ResetOnDrop::new(stream);
    let own = pod.address_like(dialled.ip()).unwrap_or(peer.ip());
    let connection = OutboundConnection {
        direction: ConnectionDirection::Outbound,
        caller: CallerAddress(SocketAddr::new(own, peer.port())),
        started: Instant::now(),
        first_bytes: FirstBytes::of(client.stream()),
        pod,
    };
    let _slot = match connection.pod.caps.take(Resource::Outbound) {
        Ok(slot) => slot,
        Err(over) => return connection.unrouted(dialled.0, over.into()).close(),
    };
    match connect(&connection, dialled).await {
        Ok(opened) => {
            let taken = connection.first_bytes.take().await;
            drop(connection);
            carry(opened, client, taken).await;
        }
        Err(failed) => failed.close(),
    }
}

/// Connects to an endpoint of the original destination. If none can be reached, the connect hook refuses the next
/// connects to it for a moment.
async fn connect(
    connection: &OutboundConnection<'_>,
    dialled: OriginalDestination,
) -> Result<OpenedConnection, FailedAttempt> {
    let pod = &connection.pod;
    let Attempts { chosen, left_out } =
        resolve(pod.mesh.clone(), dialled, pod.limits.hold)
            .await
            .map_err(|refusal| connection.unrouted(dialled.0, refusal))?;
    let mut tried = Err(connection.unrouted(dialled.0, Refusal::Unknown(dialled.0)));
    for endpoint in &chosen {
        tried = match endpoint {
            ServiceEndpoint::Pod(target) => connection.attempt(target).await,
            ServiceEndpoint::Outside(address) => connection.attempt_outside(*address).await,
        };
        match &tried {
            Err(failed) if failed.refusal.permits_another(&connection.first_bytes) => {}
            Ok(_) | Err(_) => return tried,
        }
    }
    if left_out == 0 {
        let view = pod.view();
        let refuse = |dialled| pod.datapath.refuse_connects(dialled);
        pod.failed.add(dialled, chosen, &view.snapshot, refuse);
    }
    tried
}

/// Returns the endpoints to try for an original destination. An address that the model does not know
/// is held for up to `hold`, until a view knows it.
///
/// # Errors
/// The [`Refusal`] of [`route`].
async fn resolve(
    mut mesh: watch::Receiver<Arc<MeshView>>,
    dialled: OriginalDestination,
    hold: Duration,
) -> Result<Attempts, Refusal> {
    let deadline = tokio::time::Instant::now() + hold;
    loop {
        let destination = mesh.borrow_and_update().snapshot.destination(dialled.0);
        match route(destination, dialled.0) {
            Route::Endpoints(endpoints) => return Ok(attempts(endpoints, &mut rand::rng())),
            Route::Refuse(refusal) => return Err(refusal),
            Route::Hold(refusal) => match timeout_at(deadline, mesh.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(refusal),
            },
        }
    }
}

/// Carries the connection to its end, and reports it. `first_bytes` is what was sent before the connection
/// stood, and was taken from the client's socket.
async fn carry(opened: OpenedConnection, client: ResetOnDrop, first_bytes: io::Result<usize>) {
    let client = client.into_inner();
    let RemoteConnection {
        context,
        mut registration,
        upstream,
    } = match opened {
        OpenedConnection::ToOwnPod(own, delivery) => {
            // On the heap: few pods call themselves.
            return Box::pin(own.carry(delivery, CallerStream::Tcp(client))).await;
        }
        OpenedConnection::HandedOver(remote) => {
            // On the heap, too: with `--same-node tunnel` there are none.
            return Box::pin(remote.carry(CallerStream::Tcp(client))).await;
        }
        OpenedConnection::ToOther(remote) => remote,
    };
    let carried = async {
        match first_bytes {
            Ok(sent) => context.meter.add_sent(sent as u64),
            Err(error) => return RelayEnd::failed(Party::Client, &error),
        }
        let (meter, ahead) = (&context.meter, Ahead::default());
        let has_closed = |party, socket: &TcpStream| context.has_closed(party, socket);
        match upstream {
            Upstream::Tunnel(tunnel) => {
                let has_closed = |socket: &TcpStream| has_closed(Party::Client, socket);
                relay(client, tunnel, Party::Client, ahead, meter, has_closed).await
            }
            Upstream::Tcp(server) => relay_tcp(client, server, ahead, meter, has_closed).await,
        }
    };
    let ending = tokio::select! {
        end = carried => Ending::Finished(Some(end)),
        termination = registration.terminated() => Ending::Terminated(termination),
    };
    context.close(&ending, None);
}

impl OutboundConnection<'_> {
    /// Connects to one endpoint.
    ///
    /// # Errors
    /// [`FailedAttempt`].
    pub(crate) async fn attempt(
        &self,
        endpoint: &PodEndpoint,
    ) -> Result<OpenedConnection, FailedAttempt> {
        self.first_bytes.begin();
        match path_to(&endpoint.workload, &self.pod.workload) {
            Path::OwnPod => self.attempt_own(ApplicationAddress(endpoint.address)).await,
            Path::Tunnel | Path::Handoff => match self.pod.neighbours.at(endpoint, &self.pod) {
                Some(neighbour) => self.attempt_neighbour(neighbour, endpoint).await,
                None => self.attempt_remote(Path::Tunnel, endpoint).await,
            },
            Path::Plaintext => self.attempt_remote(Path::Plaintext, endpoint).await,
        }
    }

    async fn attempt_remote(
        &self,
        path: Path,
        endpoint: &PodEndpoint,
    ) -> Result<OpenedConnection, FailedAttempt> {
        let (context, requirement) = self.towards(endpoint, path);
        self.attempt_other(context, requirement, self.open(path, endpoint))
            .await
            .map(OpenedConnection::ToOther)
    }

    /// Hands the connection to a pod that this agent serves.
    async fn attempt_neighbour(
        &self,
        neighbour: Neighbour,
        endpoint: &PodEndpoint,
    ) -> Result<OpenedConnection, FailedAttempt> {
        let (context, requirement) = self.towards(endpoint, Path::Handoff);
        let handing = neighbour.hand_over(Rc::clone(&context));
        self.attempt_other(context, requirement, handing)
            .await
            .map(|remote| OpenedConnection::HandedOver(Box::new(remote)))
    }

    /// Returns the context of a connection to an endpoint by a path, and what has to hold for it.
    fn towards(&self, endpoint: &PodEndpoint, path: Path) -> (Rc<ConnectionContext>, Requirement) {
        let requirement = Requirement::Endpoint {
            workload: Arc::clone(&endpoint.workload),
            path,
        };
        let destination = ConnectionEnd {
            workload: Some(endpoint.workload.name.clone()),
            identity: (path != Path::Plaintext).then(|| endpoint.workload.identity.clone()),
            address: endpoint.address,
        };
        (self.context(Some(path), destination), requirement)
    }

    /// Connects in plaintext to an address outside the mesh.
    ///
    /// # Errors
    /// [`FailedAttempt`].
    pub(crate) async fn attempt_outside(
        &self,
        to: SocketAddr,
    ) -> Result<OpenedConnection, FailedAttempt> {
        self.first_bytes.begin();
        let context = self.context(Some(Path::Plaintext), ConnectionEnd::unknown(to));
        let opening = async { Ok(Upstream::Tcp(self.pod.datapath.dial_plaintext(to).await?)) };
        self.attempt_other(context, Requirement::Outside(to), opening)
            .await
            .map(OpenedConnection::ToOther)
    }

    async fn attempt_own(&self, to: ApplicationAddress) -> Result<OpenedConnection, FailedAttempt> {
        let mut connection = InboundConnection::register(ToApplication {
            pod: Rc::clone(&self.pod),
            direction: self.direction,
            path: Path::OwnPod,
            caller: DeliveryCaller {
                identity: Some(self.pod.certificates.identity().clone()),
                address: self.caller,
            },
            to,
            started: self.started,
        });
        match connection.deliver().await {
            Ok(delivery) => Ok(OpenedConnection::ToOwnPod(Box::new(connection), delivery)),
            Err(refusal) => Err(FailedAttempt::new(Rc::clone(connection.context()), refusal)),
        }
    }

    async fn attempt_other<U>(
        &self,
        context: Rc<ConnectionContext>,
        requirement: Requirement,
        opening: impl Future<Output = Result<U, Refusal>>,
    ) -> Result<RemoteConnection<U>, FailedAttempt> {
        let mut registration = context.register(requirement.clone());
        // The first bytes may leave before the answer.
        if let Err(termination) = self.pod.still_holds(&requirement) {
            return Err(FailedAttempt::new(context, termination.into()));
        }
        let opened = tokio::select! {
            biased;
            termination = registration.terminated() => Err(termination.into()),
            opened = opening => opened,
        };
        let held = opened.and_then(|upstream| {
            self.pod.still_holds(&requirement)?;
            Ok(upstream)
        });
        match held {
            Ok(upstream) => Ok(RemoteConnection {
                context,
                registration,
                upstream,
            }),
            Err(refusal) => Err(FailedAttempt::new(context, refusal)),
        }
    }

    async fn open(&self, path: Path, endpoint: &PodEndpoint) -> Result<Upstream, Refusal> {
        let pod = &self.pod;
        match path {
            Path::Plaintext => Ok(Upstream::Tcp(
                pod.datapath.dial_plaintext(endpoint.address).await?,
            )),
            Path::Tunnel | Path::Handoff | Path::OwnPod => {
                let opening = pod.pool.open(endpoint, self.caller, &self.first_bytes);
                let limit = pod.limits.dial_timeout;
                match timeout(limit, opening).await {
                    Ok(tunnel) => Ok(Upstream::Tunnel(tunnel?)),
                    Err(_) => Err(Refusal::DialTimedOut(limit)),
                }
            }
        }
    }

    /// A refusal before an endpoint was chosen.
    pub(crate) fn unrouted(&self, to: SocketAddr, refusal: Refusal) -> FailedAttempt {
        let context = self.context(None, ConnectionEnd::unknown(to));
        FailedAttempt::new(context, refusal)
    }

    fn context(&self, path: Option<Path>, destination: ConnectionEnd) -> Rc<ConnectionContext> {
        Rc::new(ConnectionContext {
            pod: Rc::clone(&self.pod),
            direction: self.direction,
            path,
            source: self.pod.connection_end(self.caller.0),
            destination,
            meter: Default::default(),
            started: self.started,
            number: Default::default(),
        })
    }
}

impl FailedAttempt {
    /// The context loses its number: another endpoint may be tried under another one, and the access log
    /// has one line without a number if none answers.
    fn new(context: Rc<ConnectionContext>, refusal: Refusal) -> Self {
        context.number.set(None);
        Self { context, refusal }
    }

    /// Reports the refusal.
    pub(crate) fn close(self) {
        self.context.close(&Ending::Refused(self.refusal), None);
    }
}
