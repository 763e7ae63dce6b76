//! The life of a connection to the pod's application: registered, judged, delivered, carried,
//! accounted for.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use tokio::net::TcpStream;

use super::connections::Registration;
use super::delivery::{Delivered, attributes, deliver};
use super::hbone::Tunnel;
use super::pod::ServedPod;
use super::refusal::Refusal;
use super::relay::{Meter, Side, relay, relay_tcp};
use super::report::{Account, Ending, Permission};
use super::subject::{Direction, Party, Path, Subject};
use super::verdict::{Basis, Content};
use crate::datapath::{AuthorizedStream, Caller};
use crate::policy::Attributes;

/// A connection that a caller opened to the pod's application, from its registration on.
#[derive(Debug)]
pub(crate) struct InboundCall {
    pod: Rc<ServedPod>,
    caller: Caller,
    to: SocketAddr,
    subject: Rc<Subject>,
    meter: Rc<Meter>,
    since: Instant,
    registration: Registration,
    permission: Option<Permission>,
}

/// The caller's end of a connection.
pub(crate) enum Client {
    /// A connection in the clear: plaintext, or the pod's own.
    Tcp(TcpStream),
    /// A stream of a tunnel.
    Tunnel(Tunnel),
}

impl InboundCall {
    pub(crate) fn register(pod: Rc<ServedPod>, path: Path, caller: Caller, to: SocketAddr) -> Self {
        let subject = Rc::new(Subject {
            direction: match path {
                Path::OwnPod => Direction::Outbound,
                Path::Tunnel | Path::Plaintext => Direction::Inbound,
            },
            path: Some(path),
            source: source(&pod, &caller),
            destination: pod.party(to),
        });
        let meter = Rc::new(Meter::default());
        let basis = Basis::Policy {
            connection: attributes(&caller, to),
            content: Content::Nothing,
        };
        let registration = pod
            .registry
            .register(Rc::clone(&subject), basis, Rc::clone(&meter));
        Self {
            pod,
            caller,
            to,
            subject,
            meter,
            since: Instant::now(),
            registration,
            permission: None,
        }
    }

    /// Connects to the application, as far as policy allows it.
    ///
    /// # Errors
    /// [`Refusal`]; not a byte has passed.
    pub(crate) async fn deliver(&mut self) -> Result<Delivered, Refusal> {
        let delivered = tokio::select! {
            delivered = deliver(&self.pod, &self.caller, self.to) => delivered?,
            termination = self.registration.terminated() => return Err(termination.into()),
        };
        let content = match &delivered {
            Delivered::Allowed(stream, content) => {
                self.permission = Some(Permission {
                    layer: stream.layer(),
                    decider: stream.decider().cloned(),
                });
                content.clone()
            }
            Delivered::Requests(_) => Content::Requests,
        };
        self.registration.rebase(Basis::Policy {
            connection: self.connection(),
            content,
        });
        Ok(delivered)
    }

    /// Carries the connection to its end.
    pub(crate) async fn carry(mut self, delivered: Delivered, client: Client) {
        let meter = Rc::clone(&self.meter);
        let carried = async {
            match delivered {
                Delivered::Allowed(application, _) => {
                    carry_bytes(client, application, &meter).await
                }
                Delivered::Requests(_) => {}
            }
        };
        let ending = tokio::select! {
            () = carried => Ending::Finished,
            termination = self.registration.terminated() => Ending::Terminated(termination),
        };
        self.close(&ending);
    }

    /// Accounts for a connection that is not served.
    pub(crate) fn refuse(self, refusal: Refusal) {
        self.close(&Ending::Refused(refusal));
    }

    /// What the connection is about.
    pub(crate) fn subject(&self) -> &Rc<Subject> {
        &self.subject
    }

    fn connection(&self) -> Attributes {
        attributes(&self.caller, self.to)
    }

    fn close(self, ending: &Ending) {
        let account = Account {
            subject: &self.subject,
            id: Some(self.registration.id()),
            since: self.since,
            meter: &self.meter,
            permission: self.permission.as_ref(),
        };
        account.close(ending, &self.pod.stats);
    }
}

/// Carries bytes, whatever they are.
async fn carry_bytes(client: Client, application: AuthorizedStream, meter: &Meter) {
    let application = application.into_stream();
    match client {
        Client::Tunnel(tunnel) => relay(application, tunnel, Side::Destination, meter).await,
        Client::Tcp(client) => relay_tcp(client, application, meter).await,
    }
}

/// The caller as the log shows it: its workload is the pod that the model has at its address, where
/// that pod's identity is the one that the caller proved.
fn source(pod: &ServedPod, caller: &Caller) -> Party {
    let view = pod.view();
    let workload = view
        .snapshot
        .by_address(caller.address.ip())
        .filter(|found| {
            caller
                .identity
                .as_ref()
                .is_none_or(|own| *own == found.identity)
        })
        .map(|found| found.name.clone());
    Party {
        workload,
        identity: caller.identity.clone(),
        address: caller.address,
    }
}
