use std::io;
use std::net::SocketAddr;

use futures_util::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use ambit_model::{PodEndpoint, ProviderService};

/// How the checks of one pod reach authorizers: as the pod, from where it is.
pub trait PodNetwork {
    /// Where a service is reached at this moment; nowhere where nothing is ready.
    ///
    /// # Errors
    /// Where nobody knows the service, or its address leads nowhere.
    fn resolve<'a>(
        &'a self,
        service: &'a ProviderService,
    ) -> LocalBoxFuture<'a, io::Result<Vec<Endpoint>>>;

    /// Connects to one of them.
    ///
    /// # Errors
    /// [`NotConnected`].
    fn connect<'a>(
        &'a self,
        endpoint: &'a Endpoint,
    ) -> LocalBoxFuture<'a, Result<Box<dyn AuthorizerStream>, NotConnected>>;

    /// Runs what drives a connection until its end, or the pod's.
    fn spawn(&self, task: LocalBoxFuture<'static, ()>);
}

/// A connection to an authorizer.
pub trait AuthorizerStream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> AuthorizerStream for T {}

/// Where an authorizer is.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// A pod that the mesh knows: how it is reached is the mesh's to say.
    Pod(PodEndpoint),
    /// What the mesh leaves alone.
    Outside(SocketAddr),
}

/// Why there is no connection: a sentence without full stop.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotConnected {
    /// The authorizer cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The pod may have no more connections.
    #[error("{0}")]
    NoRoom(String),
}

impl Endpoint {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Pod(target) => target.address,
            Self::Outside(address) => *address,
        }
    }
}

/// A pod is told by its uid: a successor at the same address is another endpoint.
impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pod(one), Self::Pod(other)) => {
                one.address == other.address && one.workload.uid == other.workload.uid
            }
            (Self::Outside(one), Self::Outside(other)) => one == other,
            (Self::Pod(_), Self::Outside(_)) | (Self::Outside(_), Self::Pod(_)) => false,
        }
    }
}
