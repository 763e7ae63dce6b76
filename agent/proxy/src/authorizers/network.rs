//! How a pod's checks reach external authorizers: over connections that are opened as the pod's own
//! are, with its identity, over the path that the model says.

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

use crate::carrier::CallerStream;
use crate::connection::ConnectionDirection;
use crate::connection::refusal::Refusal;
use crate::connection::report::Ending;
use crate::limits::{Resource, Slot};
use crate::outbound_call::{Failure, Link, OutboundCall, Registered, Way};
use crate::route::{Route, route};
use crate::shard::pod::ServedPod;
use crate::verdict::Termination;
use ambit_authorizer::{AuthorizerStream, Endpoint, NotConnected, PodNetwork, resolve};
use ambit_http::{Downstream, TunnelIo};
use ambit_model::{Destination, ProviderService};
use ambit_policy::MeshView;
use ambit_relay::{Close, Meter};

/// Bytes that may be on their way to an authorizer in the pod itself, in each direction.
const OWN_BUFFER: usize = 64 << 10;

/// The way from one pod.
pub(crate) struct AuthorizerNetwork {
    /// It belongs to the pod.
    pod: Weak<ServedPod>,
    mesh: watch::Receiver<Arc<MeshView>>,
}

impl AuthorizerNetwork {
    pub(crate) fn new(pod: Weak<ServedPod>, mesh: watch::Receiver<Arc<MeshView>>) -> Self {
        Self { pod, mesh }
    }

    async fn open(&self, endpoint: &Endpoint) -> Result<Box<dyn AuthorizerStream>, NotConnected> {
        let gone = || NotConnected::Unreachable("the pod is not served any more".to_owned());
        let pod = self.pod.upgrade().ok_or_else(gone)?;
        let address = endpoint.address();
        let own = pod.address_like(address.ip());
        let no_family =
            || NotConnected::Unreachable(format!("the pod has no address like {address}"));
        let call = OutboundCall {
            source: SocketAddr::new(own.ok_or_else(no_family)?, 0),
            direction: ConnectionDirection::Authorizer,
            meter: Rc::new(Meter::default()),
            since: Instant::now(),
            pod,
        };
        match connect(&call, endpoint).await {
            Ok((slot, link)) => Ok(line(call, slot, link)),
            Err(Failure { subject, refusal }) => {
                let problem = refusal.to_string();
                let failure = match refusal {
                    Refusal::OverCap(_) => NotConnected::NoRoom(problem),
                    _ => NotConnected::Unreachable(problem),
                };
                call.close(&subject, None, &Ending::Refused(refusal));
                Err(failure)
            }
        }
    }
}

impl PodNetwork for AuthorizerNetwork {
    fn resolve<'a>(
        &'a self,
        service: &'a ProviderService,
    ) -> LocalBoxFuture<'a, io::Result<Vec<Endpoint>>> {
        let snapshot = Arc::clone(&self.mesh.borrow().snapshot);
        resolve(snapshot, service).boxed_local()
    }

    fn connect<'a>(
        &'a self,
        endpoint: &'a Endpoint,
    ) -> LocalBoxFuture<'a, Result<Box<dyn AuthorizerStream>, NotConnected>> {
        self.open(endpoint).boxed_local()
    }

    fn spawn(&self, task: LocalBoxFuture<'static, ()>) {
        // Without the pod nothing is left to be driven.
        if let Some(pod) = self.pod.upgrade() {
            pod.tasks.spawn(task);
        }
    }
}

async fn connect(call: &OutboundCall, endpoint: &Endpoint) -> Result<(Slot, Link), Failure> {
    let address = endpoint.address();
    let refused = |refusal| Failure {
        subject: Rc::new(call.subject(None, address)),
        refusal,
    };
    let slot = call.pod.caps.take(Resource::Outbound);
    let slot = slot.map_err(|over| refused(over.into()))?;
    let link = match endpoint {
        Endpoint::Pod(target) => {
            if let Route::Refuse(refusal) = route(Destination::Workload(target.clone()), address) {
                return Err(refused(refusal));
            }
            call.attempt(target).await?
        }
        Endpoint::Outside(to) => call.attempt_outside(*to).await?,
    };
    Ok((slot, link))
}

/// The agent's end of a connection.
fn line(call: OutboundCall, slot: Slot, link: Link) -> Box<dyn AuthorizerStream> {
    let (registered, way) = match link {
        Link::Other(registered, way) => (registered, way),
        Link::Own(own, delivered) => {
            let (near, far) = duplex(OWN_BUFFER);
            call.pod.tasks.spawn(async move {
                let _slot = slot;
                own.carry(delivered, CallerStream::Agent(far)).await;
            });
            return Box::new(near);
        }
    };
    let stream: Box<dyn Downstream> = match way {
        Way::Tunnel(tunnel) => Box::new(TunnelIo::new(tunnel)),
        Way::Tcp(tcp) => Box::new(tcp),
    };
    Box::new(Line {
        call,
        registered,
        stream,
        ended: None,
        _slot: slot,
    })
}

/// A connection to an authorizer, which ends when it may not go on, and is accounted for.
struct Line {
    call: OutboundCall,
    registered: Registered,
    stream: Box<dyn Downstream>,
    /// Why it may not go on.
    ended: Option<Termination>,
    _slot: Slot,
}

impl Line {
    /// The stream, as long as it may be used.
    fn stream(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut Box<dyn Downstream>>> {
        if self.ended.is_none()
            && let Poll::Ready(why) = self.registered.registration.poll_terminated(context)
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

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.stream(context)?.poll_read(context, buffer);
        let length = buffer.filled().len() - before;
        self.call.meter.add_received(length as u64);
        read
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream(context)?.poll_write(context, data);
        if let Poll::Ready(Ok(length)) = &written {
            self.call.meter.add_sent(*length as u64);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream(context)?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = self.stream(context)?.poll_shutdown(context);
        if let Poll::Ready(Ok(())) = shut {
            self.stream.set_close(Close::Orderly);
        }
        shut
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let ending = match self.ended.take() {
            Some(why) => Ending::Terminated(why),
            None => Ending::Finished,
        };
        let Registered {
            registration,
            subject,
        } = &self.registered;
        self.call.close(subject, Some(registration.id()), &ending);
    }
}
