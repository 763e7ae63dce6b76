//! One HTTP/2 connection to the authority, over TLS by which it has proved who it is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore, version};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::address::CaAddress;
use super::config::IstioCaConfig;
use super::failure::{ConnectFailure, of_connect};
use crate::anchors::TrustAnchors;
use crate::crypto;
use crate::provider::IssueFailure;

/// How long a connect may take, handshake and all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is used. Then the name is resolved again, and another replica of the
/// authority may take over.
const MAX_AGE: Duration = Duration::from_secs(60);

/// A connection that all questions share.
#[derive(Default)]
pub(super) struct CaConnection(Mutex<State>);

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// The last attempt, where it failed: those who waited for it share the result.
    failed: Option<(Instant, IssueFailure)>,
}

struct Open {
    channel: Channel,
    /// What it was verified by.
    roots: TrustAnchors,
    since: Instant,
}

impl CaConnection {
    /// The connection: a new one where there is none, or where it was verified by other roots than
    /// those that the root file has now.
    ///
    /// # Errors
    /// [`IssueFailure::Unavailable`].
    pub(super) async fn channel(&self, config: &IstioCaConfig) -> Result<Channel, IssueFailure> {
        let asked = Instant::now();
        let mut state = self.0.lock().await;
        let roots = read_roots(config).await?;
        if let Some(open) = &state.open
            && open.roots == roots
            && open.since.elapsed() < MAX_AGE
        {
            return Ok(open.channel.clone());
        }
        if let Some((at, failure)) = &state.failed
            && *at > asked
        {
            return Err(failure.clone());
        }
        state.open = None;
        match open(&config.address, &roots).await {
            Ok(channel) => {
                state.open = Some(Open {
                    channel: channel.clone(),
                    roots,
                    since: Instant::now(),
                });
                Ok(channel)
            }
            Err(failure) => {
                let failure = of_connect(config, &failure);
                state.failed = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
        }
    }

    /// Gives up a connection that broke.
    pub(super) async fn give_up(&self) {
        self.0.lock().await.open = None;
    }
}

/// The roots of the authority, read anew: an operator replaces the file, and nothing else.
async fn read_roots(config: &IstioCaConfig) -> Result<TrustAnchors, IssueFailure> {
    let path = config.root.display();
    let unusable = |problem: String| {
        IssueFailure::Unavailable(format!(
            "the CA cannot be verified: {path} (--ca-root): {problem}"
        ))
    };
    let text = tokio::fs::read(&config.root)
        .await
        .map_err(|error| unusable(error.to_string()))?;
    TrustAnchors::from_pem(&text).map_err(|error| unusable(error.to_string()))
}

async fn open(address: &CaAddress, roots: &TrustAnchors) -> Result<Channel, ConnectFailure> {
    let verified = timeout(CONNECT_TIMEOUT, connect(address, roots));
    let stream = verified.await.map_err(|_| ConnectFailure::TimedOut)??;
    let failed = |error: tonic::transport::Error| ConnectFailure::Connect(io::Error::other(error));
    // TLS is below, where tonic does not see it.
    let endpoint = Endpoint::from_shared(format!("http://{}", address.authority()))
        .map_err(failed)?
        .origin(address.to_string().parse().map_err(invalid)?);
    // There is this one stream only: one that breaks is replaced by another connection, which is
    // verified anew.
    let mut stream = Some(TokioIo::new(stream));
    let once = tower::service_fn(move |_: Uri| {
        let stream = stream
            .take()
            .ok_or(io::Error::from(io::ErrorKind::NotConnected));
        std::future::ready(stream)
    });
    endpoint.connect_with_connector(once).await.map_err(failed)
}

fn invalid(error: http::uri::InvalidUri) -> ConnectFailure {
    ConnectFailure::Connect(io::Error::other(error))
}

/// A stream to the authority. What is returned is verified.
async fn connect(
    address: &CaAddress,
    roots: &TrustAnchors,
) -> Result<TlsStream<TcpStream>, ConnectFailure> {
    let tls = |error: rustls::Error| ConnectFailure::Tls(io::Error::other(error));
    let connector = TlsConnector::from(client_config(roots).map_err(tls)?);
    let addresses = lookup_host((address.host(), address.port()))
        .await
        .map_err(ConnectFailure::Resolve)?;
    let addresses: Vec<_> = addresses.collect();
    let stream = TcpStream::connect(addresses.as_slice())
        .await
        .map_err(ConnectFailure::Connect)?;
    connector
        .connect(address.server_name(), stream)
        .await
        .map_err(ConnectFailure::Tls)
}

fn client_config(roots: &TrustAnchors) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut store = RootCertStore::empty();
    for root in roots.certificates() {
        store.add(root.clone())?;
    }
    let mut config = ClientConfig::builder_with_provider(crypto::provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
