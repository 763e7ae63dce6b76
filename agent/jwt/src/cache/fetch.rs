//! Fetches small documents over HTTP/1.1, in the clear or over TLS 1.3, from addresses that policies
//! may reach.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tracing::warn;

use super::turns::FetchTurn;
use ambit_input::pem_without_marks;
use ambit_policy::HttpUrl;

/// The largest document that is fetched, in bytes.
pub(super) const MAX_DOCUMENT: usize = 1024 * 1024;

/// Fetches small documents.
pub trait Fetch: Send + Sync + 'static {
    /// Fetches a document. It does not follow redirects and has no timeout of its own: the caller sets
    /// one. Work that continues after the caller has given up keeps a clone of `turn`.
    fn fetch<'a>(
        &'a self,
        url: &'a HttpUrl,
        turn: &'a FetchTurn,
    ) -> BoxFuture<'a, Result<Bytes, FetchError>>;
}

/// Why a document was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The host has no address.
    #[error("the host's name does not resolve ({0}); check whether the node can resolve it")]
    Resolve(std::io::Error),
    /// None of the host's addresses may be used.
    #[error(
        "the host has no address that policies may use: the node's own addresses, those of its link, \
         and those that give a cloud's machines their credentials are excluded; serve the keys elsewhere"
    )]
    Unreachable,
    /// No connection.
    #[error("the host does not accept a connection ({0}); check whether the node can reach it")]
    Connect(std::io::Error),
    /// The TLS handshake failed.
    #[error(
        "TLS with the host failed ({0}); the host has to support TLS 1.3 and have a certificate of the \
         node's trusted authorities or the configured ones"
    )]
    Tls(std::io::Error),
    /// Not HTTP, or cut off.
    #[error("the answer is not a complete HTTP/1.1 response ({0})")]
    Http(#[from] hyper::Error),
    /// The request could not be made.
    #[error("the URL cannot be requested ({0}); correct it in the policy")]
    Request(#[from] http::Error),
    /// A redirect, which is not followed.
    #[error("the answer is a redirect ({0}), which is not followed; set the URL that it leads to")]
    Redirect(StatusCode),
    /// Another status than 200.
    #[error("the answer is {0}; see the host's log")]
    Status(StatusCode),
    /// The document is too large.
    #[error("the answer is larger than {MAX_DOCUMENT} bytes")]
    TooLarge,
    /// The body was cut off.
    #[error("the answer was cut off ({0})")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// How many of a host's addresses are tried.
const MAX_ADDRESSES: usize = 8;

/// Fetches over HTTP.
pub struct HttpFetcher {
    addresses: FetchableAddresses,
    tls: TlsConnector,
}

/// Why the authorities for https cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read, or has no valid PEM certificates.
    #[error("the CA file {} cannot be used ({reason}); it has to contain PEM certificates", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS is not available.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

impl HttpFetcher {
    /// A fetcher that trusts the node's authorities and those of a PEM file.
    ///
    /// It does not use a list that is compiled in, so that an operator can add and remove authorities
    /// without a new agent.
    ///
    /// # Errors
    /// [`TrustError`] if the file cannot be used.
    pub fn new(addresses: FetchableAddresses, extra_ca: Option<&Path>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        if roots.is_empty() {
            warn!(
                errors = ?native.errors,
                "the node has no trusted authorities, so keys cannot be fetched over https; install the \
                 package ca-certificates, or configure a CA file"
            );
        }
        if let Some(path) = extra_ca {
            add_file(&mut roots, path)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            addresses,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    async fn get(&self, url: &HttpUrl, turn: &FetchTurn) -> Result<Bytes, FetchError> {
        let tcp = self.connect(url, turn).await?;
        if !url.is_https() {
            return exchange(tcp, url).await;
        }
        let name = ServerName::try_from(url.host().to_owned())
            .map_err(|error| FetchError::Tls(io::Error::other(error)))?;
        let tls = self.tls.connect(name, tcp).await.map_err(FetchError::Tls)?;
        exchange(tls, url).await
    }

    /// Connects to the first address that accepts. The name is resolved once, and the address that was
    /// checked is the one that is dialled, so a name cannot lead to an address that is excluded.
    async fn connect(&self, url: &HttpUrl, turn: &FetchTurn) -> Result<TcpStream, FetchError> {
        let mut error = FetchError::Unreachable;
        for address in resolve(url, turn).await? {
            match self.addresses.admits(address.ip()) {
                Ok(true) => {}
                Ok(false) => continue,
                Err(failure) => {
                    error = FetchError::Connect(failure);
                    continue;
                }
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(failure) => error = FetchError::Connect(failure),
            }
        }
        Err(error)
    }
}

/// Resolves the host. A look-up cannot be cancelled, so its thread keeps the turn until it ends. Otherwise
/// names whose servers do not answer could use up all threads.
async fn resolve(url: &HttpUrl, turn: &FetchTurn) -> Result<Vec<SocketAddr>, FetchError> {
    let (host, port, turn) = (url.host().to_owned(), url.port(), turn.clone());
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let look_up = move || {
        let resolved = (host.as_str(), port).to_socket_addrs();
        drop(turn);
        resolved.map(|addresses| addresses.take(MAX_ADDRESSES).collect())
    };
    let resolved = tokio::task::spawn_blocking(look_up).await;
    resolved
        .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
        .map_err(FetchError::Resolve)
}

impl Fetch for HttpFetcher {
    fn fetch<'a>(
        &'a self,
        url: &'a HttpUrl,
        turn: &'a FetchTurn,
    ) -> BoxFuture<'a, Result<Bytes, FetchError>> {
        Box::pin(self.get(url, turn))
    }
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TrustError> {
    let failed = |reason: String| TrustError::File {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let text = pem_without_marks(&text);
    let certificates = CertificateDer::pem_slice_iter(&text);
    let mut count = 0;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| failed(error.to_string()))?;
        count += 1;
    }
    if count == 0 {
        return Err(failed("it has no certificates".to_owned()));
    }
    Ok(())
}

/// Sends one request on a connection and reads the whole answer.
async fn exchange<S>(stream: S, url: &HttpUrl) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    let request = Request::get(url.path_and_query())
        .header(header::HOST, url.authority())
        .header(header::ACCEPT, "application/json")
        .header(
            header::USER_AGENT,
            concat!("ambit/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let document = async { document(sender.send_request(request).await?).await };
    tokio::pin!(document);
    tokio::select! {
        biased;
        document = &mut document => document,
        // The connection has ended, but what it has read is still to be processed.
        _ = connection => document.await,
    }
}

async fn document(response: Response<Incoming>) -> Result<Bytes, FetchError> {
    match response.status() {
        StatusCode::OK => {}
        status if status.is_redirection() => return Err(FetchError::Redirect(status)),
        status => return Err(FetchError::Status(status)),
    }
    match Limited::new(response.into_body(), MAX_DOCUMENT)
        .collect()
        .await
    {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge),
        Err(error) => Err(FetchError::Body(error)),
    }
}

/// Whether packets to an address stay on this node, by its current routes.
pub type IsLocal = fn(IpAddr) -> io::Result<bool>;

/// The addresses, besides link-local ones, at which clouds give a machine its credentials. The node can
/// reach them, and its pods often cannot.
const METADATA: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// The prefix whose addresses a gateway translates to IPv4 (RFC 6052, section 2.1).
const NAT64: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

/// Which addresses may be fetched from. Anyone who may write a policy in some namespace can have the node
/// send a request to a URL, and the node can reach more than a pod can. Pods of the mesh do not depend on
/// this: to them, the kernel treats the agent as any outside caller.
#[derive(Clone, Copy, Debug)]
pub enum FetchableAddresses {
    /// All but the node's own addresses, those of its link, and those of a cloud's metadata.
    Routable(IsLocal),
    /// All addresses.
    Any,
}

impl FetchableAddresses {
    /// Whether an address may be fetched from.
    ///
    /// # Errors
    /// If it cannot be determined whether the address is the node's own.
    pub(super) fn admits(self, address: IpAddr) -> io::Result<bool> {
        match self {
            Self::Any => Ok(true),
            Self::Routable(is_local) => {
                let address = address.to_canonical();
                Ok(is_routable(address) && !is_local(address)?)
            }
        }
    }
}

fn is_routable(address: IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(address) => {
            address.is_link_local() || address.is_broadcast() || address.octets()[0] == 0
        }
        IpAddr::V6(address) => {
            let carries_special = |inner: Ipv4Addr| !is_routable(inner.into());
            address.is_unicast_link_local() || embedded(address).is_some_and(carries_special)
        }
    };
    let is_local = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    !is_special && !is_local && !METADATA.contains(&address)
}

/// The IPv4 address that a gateway translates this one to.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [prefix @ .., high, low] = address.segments();
    let [a, b] = high.to_be_bytes();
    let [c, d] = low.to_be_bytes();
    (prefix == NAT64).then(|| Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_does_not_reach_the_node_or_its_link() {
        let is_own = |address: IpAddr| Ok(address == IpAddr::from([192, 168, 0, 7]));
        let routable = FetchableAddresses::Routable(is_own);
        let admitted = |text: &str| {
            let address = text.parse().expect("an address");
            routable.admits(address).expect("told")
        };
        for text in [
            "10.0.0.1",
            "192.168.0.1",
            "1.1.1.1",
            "fd00::1",
            "2001:db8::1",
            "64:ff9b::1.1.1.1",
        ] {
            assert!(admitted(text), "{text}");
        }
        for text in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "255.255.255.255",
            "224.0.0.1",
            "192.168.0.7",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:192.168.0.7",
            "64:ff9b::169.254.169.254",
            "64:ff9b::127.0.0.1",
        ] {
            assert!(!admitted(text), "{text}");
            let any = FetchableAddresses::Any.admits(text.parse().expect("an address"));
            assert!(any.expect("told"));
        }
    }

    #[test]
    fn an_address_that_cannot_be_checked_is_not_used() {
        let unknown = FetchableAddresses::Routable(|_| Err(io::ErrorKind::Other.into()));
        assert!(unknown.admits(IpAddr::from([10, 0, 0, 1])).is_err());
        let link_local = unknown.admits(IpAddr::from([169, 254, 169, 254]));
        assert!(!link_local.expect("needs no route"));
    }
}
