//! gRPC over TLS: the listener and its connections.

mod certificate;
mod connection;
mod health;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use certificate::{ServerCertificate, ServerCertificateError};
pub use health::serve_health;

use crate::service::CertificateService;
use connection::{ConnectionSlot, ConnectionSlots, Slot};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a connection could not be accepted, for example for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long calls under way have to end when the server stops.
const DRAIN: Duration = Duration::from_secs(15);

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is not available.
    #[error("cannot listen on {address}: {error}; give another --listen")]
    Bind {
        /// The configured address.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A listening server.
pub struct CaServer {
    listener: TcpListener,
    address: SocketAddr,
    tls: TlsAcceptor,
    service: Arc<CertificateService>,
    slots: ConnectionSlots,
}

impl CaServer {
    /// Listens on an address.
    ///
    /// # Errors
    /// [`ListenError`].
    pub async fn bind(
        address: SocketAddr,
        certificate: &Arc<ServerCertificate>,
        service: Arc<CertificateService>,
    ) -> Result<Self, ListenError> {
        let failed = |error| ListenError::Bind { address, error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        Ok(Self {
            address: listener.local_addr().map_err(failed)?,
            listener,
            tls: TlsAcceptor::from(certificate.tls()?),
            service,
            slots: ConnectionSlots::default(),
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `end` completes. Calls that are under way then are completed.
    pub async fn serve(self, end: impl Future<Output = ()>) {
        let (stop, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut end = std::pin::pin!(end);
        loop {
            tokio::select! {
                () = &mut end => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => match self.slots.take(peer.ip()) {
                        Ok(slot) => {
                            connections.spawn(self.connection(stream, peer, slot, stopped.clone()));
                        }
                        Err(error) => tracing::debug!(%peer, %error, "there is no room for a connection"),
                    },
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        // Fails only if there are no connections to tell.
        let _ = stop.send(true);
        let drained = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("calls under way did not end in time and are cut off");
        }
    }

    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        mut slot: Slot,
        mut stop: watch::Receiver<bool>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (tls, service) = (self.tls.clone(), Arc::clone(&self.service));
        let slots = self.slots.clone();
        async move {
            let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream));
            let stream = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = slot.displaced() => {
                    tracing::debug!(%peer, "a connection made room for another");
                    return;
                }
                handshake = handshake => match handshake {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => {
                        tracing::debug!(%peer, %error, "a handshake failed");
                        return;
                    }
                    Err(_) => {
                        tracing::debug!(%peer, "a handshake took too long");
                        return;
                    }
                },
            };
            let place = ConnectionSlot { slots, slot };
            if let Err(error) = connection::serve(stream, peer, service, place, stop).await {
                tracing::debug!(%peer, %error, "a connection failed");
            }
        }
    }
}
