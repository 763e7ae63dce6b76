//! Fetches over HTTP/1.1, in the clear or over TLS 1.3.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
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

use super::addresses::FetchableAddresses;
use super::fetch::{Fetch, FetchError, MAX_DOCUMENT};
use super::turns::FetchTurn;
use ambit_input::pem_without_marks;
use ambit_policy::HttpUrl;

/// The longest head of an answer, in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// As many of a host's addresses are tried.
const MAX_ADDRESSES: usize = 8;

/// Fetches over HTTP.
pub struct HttpFetcher {
    addresses: FetchableAddresses,
    tls: TlsConnector,
}

/// Why the authorities that https is verified with cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file is no PEM file of certificates.
    #[error("the CA file {} cannot be used ({reason}); it has to have PEM certificates", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is the matter with it.
        reason: String,
    },
    /// TLS is not available.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

impl HttpFetcher {
    /// A fetcher that trusts the node's authorities and, besides, those of a PEM file.
    ///
    /// The node's, not a list that is compiled in: an operator adds a company's own to them, and
    /// withdraws one, without a new agent.
    pub fn new(addresses: FetchableAddresses, extra_ca: Option<&Path>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(native.certs);
        if roots.is_empty() {
            warn!(
                errors = ?native.errors,
                "the node has no trusted authorities, so that keys cannot be fetched over https; \
                 install the package ca-certificates, or configure a CA file"
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

    /// Connects to the first address that takes it. The name is resolved once, and the address that
    /// was judged is the one that is dialled, so that a name cannot stand for one that is not
    /// admitted.
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

/// The host's addresses. A look-up cannot be given up: its thread keeps the turn until it ends, or
/// names whose servers do not answer would use up all threads.
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
        return Err(failed("it has none".to_owned()));
    }
    Ok(())
}

/// One request on a connection, and all of its answer.
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
        // What it has read is yet to be taken.
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
