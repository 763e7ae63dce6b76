//! How a pod's checks reach external authorizers: over connections that are opened like the pod's own,
//! with its identity, over the path that the model gives.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, duplex};
use tokio::sync::watch;

use crate::connection::refusal::Refusal;
use crate::connection::registry::Registration;
use crate::connection::report::Ending;
use crate::connection::{ConnectionContext, ConnectionDirection};
use crate::hbone::FirstBytes;
use crate::inbound::CallerStream;
use crate::limits::{Resource, Slot};
use crate::outbound::{
    FailedAttempt, OpenedConnection, OutboundConnection, RemoteConnection, Upstream,
};
use crate::route::{Route, route};
use crate::shard::pod::ServedPod;
use crate::verdict::Termination;
use ambit_authorizer::{AuthorizerStream, NotConnected, PodNetwork, ServiceEndpoint, resolve};
use ambit_http::{Downstream, TunnelIo};
use ambit_model::{CallerAddress, Destination, ProviderService};
use ambit_policy::MeshView;
use ambit_relay::CloseMode;

/// The buffer, in bytes and for each direction, of a connection to an authorizer in a pod that this agent
/// serves: it needs no tunnel.
const OWN_BUFFER: usize = 64 << 10;

/// The network as one pod sees it.
pub(crate) struct AuthorizerNetwork {
    /// The pod, which owns this.
    pod: Weak<ServedPod>,
    mesh: watch::Receiver<Arc<MeshView>>,
}

impl AuthorizerNetwork {
    pub(crate) fn new(pod: Weak<ServedPod>, mesh: watch::Receiver<Arc<MeshView>>) -> Self {
        Self { pod, mesh }
    }

    async fn open(
        &self,
        endpoint: &ServiceEndpoint,
    ) -> Result<Box<dyn AuthorizerStream>, NotConnected> {
        let gone = || NotConnected::Unreachable("the pod is not served any more".to_owned());
        let pod = self.pod.upgrade().ok_or_else(gone)?;
        let address = endpoint.address();
        let own = pod.address_like(address.ip());
        let no_family =
            || NotConnected::Unreachable(format!("the pod has no address like {address}"));
        let connection = OutboundConnection {
            caller: CallerAddress(SocketAddr::new(own.ok_or_else(no_family)?, 0)),
            direction: ConnectionDirection::Authorizer,
            started: Instant::now(),
            first_bytes: FirstBytes::none(),
            pod,
        };
        match connect(&connection, endpoint).await {
            Ok(connected) => Ok(connected.into_stream()),
            Err(failed) => {
                let problem = failed.refusal.to_string();
                let failure = match failed.refusal {
                    Refusal::OverCap(_) => NotConnected::NoRoom(problem),
                    _ => NotConnected::Unreachable(problem),
                };
                failed.close();
                Err(failure)
            }
        }
    }
}

impl PodNetwork for AuthorizerNetwork {
    fn resolve<'a>(
        &'a self,
        service: &'a ProviderService,
    ) -> LocalBoxFuture<'a, io::Result<Vec<ServiceEndpoint>>> {
        let snapshot = Arc::clone(&self.mesh.borrow().snapshot);
        resolve(snapshot, service).boxed_local()
    }

    fn connect<'a>(
        &'a self,
        endpoint: &'a ServiceEndpoint,
    ) -> LocalBoxFuture<'a, Result<Box<dyn AuthorizerStream>, NotConnected>> {
        self.open(endpoint).boxed_local()
    }

    fn spawn(&self, task: LocalBoxFuture<'static, ()>) {
        // Without the pod there is nothing left to drive.
        if let Some(pod) = self.pod.upgrade() {
            pod.tasks.spawn(task);
        }
    }
}

/// A connection to an authorizer that is open.
struct Connected {
    opened: OpenedConnection,
    slot: Slot,
}

async fn connect(
    connection: &OutboundConnection<'_>,
    endpoint: &ServiceEndpoint,
) -> Result<Connected, FailedAttempt> {
    let address = endpoint.address();
    let refused = |refusal| connection.unrouted(address, refusal);
    let slot = connection.pod.caps.take(Resource::Outbound);
    let slot = slot.map_err(|over| refused(over.into()))?;
    let opened = match endpoint {
        ServiceEndpoint::Pod(target) => {
            if let Route::Refuse(refusal) = route(Destination::Workload(target.clone()), address) {
                return Err(refused(refusal));
            }
            connection.attempt(target).await?
        }
        ServiceEndpoint::Outside(to) => connection.attempt_outside(*to).await?,
    };
    Ok(Connected { opened, slot })
}

impl Connected {
    /// Returns the agent's end of the connection.
    fn into_stream(self) -> Box<dyn AuthorizerStream> {
        let Self { opened, slot } = self;
        let RemoteConnection {
            context,
            registration,
            upstream,
        } = match opened {
            OpenedConnection::ToOther(remote) => remote,
            OpenedConnection::ToOwnPod(own, delivery) => {
                let (near, far) = duplex(OWN_BUFFER);
                let pod = Rc::clone(&own.context().pod);
                pod.tasks.spawn(async move {
                    let _slot = slot;
                    own.carry(delivery, CallerStream::Agent(far)).await;
                });
                return Box::new(near);
            }
            OpenedConnection::HandedOver(remote) => {
                let (near, far) = duplex(OWN_BUFFER);
                let pod = Rc::clone(&remote.context.pod);
                pod.tasks.spawn(async move {
                    let _slot = slot;
                    remote.carry(CallerStream::Agent(far)).await;
                });
                return Box::new(near);
            }
        };
        let stream: Box<dyn Downstream> = match upstream {
            Upstream::Tunnel(tunnel) => Box::new(TunnelIo::new(tunnel)),
            Upstream::Tcp(tcp) => Box::new(tcp),
        };
        Box::new(AuthorizerConnection {
            context,
            registration,
            stream,
            ended: None,
            _slot: slot,
        })
    }
}

/// A connection to an authorizer. It ends when it may not go on, and is reported on drop.
struct AuthorizerConnection {
    context: Rc<ConnectionContext>,
    registration: Registration,
    stream: Box<dyn Downstream>,
    /// Why it may not go on, if it may not.
    ended: Option<Termination>,
    _slot: Slot,
}

impl AuthorizerConnection {
    /// Returns the stream while it may be used.
    fn stream(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut Box<dyn Downstream>>> {
        if self.ended.is_none()
            && let Poll::Ready(why) = self.registration.poll_terminated(context)
        {
            self.ended = Some(why);
        }
        match &self.ended {
            Some(why) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                why.to_string(),
            )),
            None => Ok(Pin::new(&mut self.stream)),
        }
    }
}

impl AsyncRead for AuthorizerConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.stream(context)?.poll_read(context, buffer);
        let length = buffer.filled().len() - before;
        self.context.meter.add_received(length as u64);
        read
    }
}

impl AsyncWrite for AuthorizerConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream(context)?.poll_write(context, data);
        if let Poll::Ready(Ok(length)) = &written {
            self.context.meter.add_sent(*length as u64);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(context)?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = self.stream(context)?.poll_shutdown(context);
        if let Poll::Ready(Ok(())) = shut {
            self.stream.set_close(CloseMode::Orderly);
        }
        shut
    }
}

impl Drop for AuthorizerConnection {
    fn drop(&mut self) {
        let ending = match self.ended.take() {
            Some(why) => Ending::Terminated(why),
            None => Ending::Finished(None),
        };
        self.context.close(&ending, None);
    }
}
