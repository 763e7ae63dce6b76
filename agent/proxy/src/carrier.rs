//! Carries what a caller sends to the pod's application, and what is answered: as bytes where policy
//! allows the connection, request by request where it depends on them.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;

use crate::connection::refusal::Refusal;
use crate::connection::registry::Place;
use crate::connection::report::Permission;
use crate::delivery::Delivered;
use crate::opaque::judge_opaque;
use crate::requests::RequestGate;
use crate::verdict::{Content, Requirement};
use ambit_datapath::{AuthorizedStream, UnjudgedStream};
use ambit_http::{Downstream, HttpLimits, NotHttp, Served, TunnelIo, relay_opaque, serve};
use ambit_relay::Tunnel;
use ambit_relay::{Meter, Side, relay, relay_tcp};

/// The caller's end of a connection.
pub(crate) enum CallerStream {
    /// A connection in the clear: plaintext, or the pod's own.
    Tcp(TcpStream),
    /// A stream of a tunnel.
    Tunnel(Tunnel),
    /// The agent itself, which asks an external authorizer.
    Agent(DuplexStream),
}

/// What carrying a connection takes.
pub(crate) struct Carrier {
    /// Judges its requests.
    pub(crate) gate: RequestGate,
    /// Where it is registered.
    pub(crate) place: Place,
    pub(crate) meter: Rc<Meter>,
}

impl Carrier {
    /// Carries a connection to its end. Tells who allowed it where that came out only now.
    ///
    /// # Errors
    /// [`Refusal`] where it turned out not to be HTTP, and is denied as what it is.
    pub(crate) async fn carry(
        &self,
        delivered: Delivered,
        client: CallerStream,
    ) -> Result<Option<Permission>, Refusal> {
        match delivered {
            Delivered::Allowed(application, _) => {
                self.carry_bytes(client, application).await;
                Ok(None)
            }
            Delivered::Requests(application) => self.carry_any_requests(client, application).await,
        }
    }

    /// On the heap: requests take many times the memory that bytes do, and most connections carry
    /// none.
    fn carry_any_requests(
        &self,
        client: CallerStream,
        application: UnjudgedStream,
    ) -> LocalBoxFuture<'_, Result<Option<Permission>, Refusal>> {
        match client {
            CallerStream::Tcp(client) => self.carry_requests(client, application).boxed_local(),
            CallerStream::Tunnel(tunnel) => self
                .carry_requests(TunnelIo::new(tunnel), application)
                .boxed_local(),
            CallerStream::Agent(agent) => self.carry_requests(agent, application).boxed_local(),
        }
    }

    async fn carry_bytes(&self, client: CallerStream, application: AuthorizedStream) {
        let application = application.into_stream();
        match client {
            CallerStream::Tunnel(tunnel) => {
                relay(application, tunnel, Side::Destination, &self.meter).await;
            }
            CallerStream::Tcp(client) => relay_tcp(client, application, &self.meter).await,
            CallerStream::Agent(agent) => {
                // On the heap, as it is so seldom.
                Box::pin(relay_opaque(agent, Bytes::new(), application, &self.meter)).await;
            }
        }
    }

    async fn carry_requests<D: Downstream>(
        &self,
        client: D,
        application: UnjudgedStream,
    ) -> Result<Option<Permission>, Refusal> {
        let (application, limits) = (application.per_request(), HttpLimits::default());
        match serve(client, application, &self.gate, limits, &self.meter).await {
            Served::Ended => Ok(None),
            Served::NotHttp(opaque) => self.carry_other(opaque).await.map(Some),
        }
    }

    /// Carries what is not HTTP, on a port that is declared to be.
    async fn carry_other<D: Downstream>(&self, opaque: NotHttp<D>) -> Result<Permission, Refusal> {
        let NotHttp {
            downstream,
            read,
            application,
        } = opaque;
        let (permit, approvals) = judge_opaque(&self.gate.pod, self.gate.ends()).await?;
        self.place.require(Requirement::Policy {
            connection: self.gate.connection(),
            content: Content::Opaque(approvals),
        });
        let _in_use = self.gate.places.occupy();
        let application = application.authorize(permit);
        let permission = Permission::of(&application);
        relay_opaque(downstream, read, application.into_stream(), &self.meter).await;
        Ok(permission)
    }
}
