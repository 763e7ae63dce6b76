//! A connection that is opened from a pod, over the path that the model says.
//!
//! A failure is a refusal: an endpoint is dialled in plaintext only because its objects do not opt
//! it in, never because a tunnel failed.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connection::refusal::Refusal;
use crate::connection::registry::Registration;
use crate::connection::report::{Account, Ending};
use crate::connection::{ConnectionDirection, Party, Path, Subject};
use crate::delivery::Delivered;
use crate::inbound::InboundCall;
use crate::route::path_to;
use crate::shard::pod::ServedPod;
use crate::verdict::Requirement;
use ambit_datapath::DeliveryCaller;
use ambit_model::{CallerAddress, Target};
use ambit_relay::Meter;
use ambit_relay::Tunnel;

/// A connection from the pod that is served.
pub(crate) struct OutboundCall {
    pub(crate) pod: Rc<ServedPod>,
    /// Who opens it: [`ConnectionDirection::Outbound`] or [`ConnectionDirection::Authorizer`].
    pub(crate) direction: ConnectionDirection,
    /// The pod's own address, and the process's port; 0 for the agent.
    pub(crate) source: SocketAddr,
    pub(crate) meter: Rc<Meter>,
    pub(crate) since: Instant,
}

/// A call's connection to one endpoint, ready to carry bytes.
pub(crate) enum Link {
    /// To the pod's own application: judged here, as what comes from elsewhere is.
    Own(Box<InboundCall>, Delivered),
    Other(Registered, Way),
}

/// What stands in the registry for as long as it is held.
pub(crate) struct Registered {
    pub(crate) registration: Registration,
    pub(crate) subject: Rc<Subject>,
}

/// How bytes go.
pub(crate) enum Way {
    Tunnel(Tunnel),
    Tcp(TcpStream),
}

/// A call that no endpoint answered.
pub(crate) struct Failure {
    pub(crate) subject: Rc<Subject>,
    pub(crate) refusal: Refusal,
}

impl OutboundCall {
    /// Connects to one endpoint.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn attempt(&self, endpoint: &Target) -> Result<Link, Failure> {
        match path_to(&endpoint.workload, &self.pod.workload) {
            Path::OwnPod => self.attempt_own(endpoint.address).await,
            path @ (Path::Tunnel | Path::Plaintext) => {
                let requirement = Requirement::Endpoint {
                    workload: Arc::clone(&endpoint.workload),
                    path,
                };
                let subject = self.subject(Some((path, endpoint)), endpoint.address);
                self.attempt_other(subject, requirement, self.open(path, endpoint))
                    .await
            }
        }
    }

    /// Connects in plaintext to what the mesh leaves alone.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn attempt_outside(&self, to: SocketAddr) -> Result<Link, Failure> {
        let subject = Subject {
            path: Some(Path::Plaintext),
            ..self.subject(None, to)
        };
        let opening = async { Ok(Way::Tcp(self.pod.datapath.dial_plaintext(to).await?)) };
        self.attempt_other(subject, Requirement::Outside(to), opening)
            .await
    }

    async fn attempt_own(&self, to: SocketAddr) -> Result<Link, Failure> {
        let caller = DeliveryCaller {
            identity: Some(self.pod.certificates.identity().clone()),
            address: CallerAddress(self.source),
        };
        let way = (self.direction, Path::OwnPod);
        let mut call = InboundCall::register(Rc::clone(&self.pod), way, caller, to);
        match call.deliver().await {
            Ok(delivered) => Ok(Link::Own(Box::new(call), delivered)),
            Err(refusal) => Err(Failure {
                subject: Rc::clone(call.subject()),
                refusal,
            }),
        }
    }

    async fn attempt_other(
        &self,
        subject: Subject,
        requirement: Requirement,
        opening: impl Future<Output = Result<Way, Refusal>>,
    ) -> Result<Link, Failure> {
        let subject = Rc::new(subject);
        let meter = Rc::clone(&self.meter);
        let registry = &self.pod.registry;
        let mut registration = registry.register(Rc::clone(&subject), requirement.clone(), meter);
        let opened = tokio::select! {
            opened = opening => opened,
            termination = registration.terminated() => Err(termination.into()),
        };
        let held = opened.and_then(|way| {
            self.pod.still_holds(&requirement)?;
            Ok(way)
        });
        match held {
            Ok(way) => {
                let registered = Registered {
                    registration,
                    subject,
                };
                Ok(Link::Other(registered, way))
            }
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

    /// What it is about: an endpoint and the path to it, or only what was dialled.
    pub(crate) fn subject(&self, chosen: Option<(Path, &Target)>, dialled: SocketAddr) -> Subject {
        let destination = match chosen {
            None => Party::unknown(dialled),
            Some((path, endpoint)) => Party {
                workload: Some(endpoint.workload.name.clone()),
                identity: (path != Path::Plaintext).then(|| endpoint.workload.identity.clone()),
                address: endpoint.address,
            },
        };
        Subject {
            direction: self.direction,
            path: chosen.map(|(path, _)| path),
            source: self.pod.party(self.source),
            destination,
        }
    }

    /// Accounts for it.
    pub(crate) fn close(&self, subject: &Subject, id: Option<u64>, ending: &Ending) {
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
