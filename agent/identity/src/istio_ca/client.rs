//! Sends certificate requests to the CA, over connections on which it has proved its identity.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore, version};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::istio_ca::config::{CaAddress, IstioCaConfig};
use crate::provider::IssueFailure;
use crate::roots::TrustAnchors;
use crate::tls::crypto_provider;
use ambit_ca_protocol::{
    CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse, IMPERSONATED_IDENTITY, Struct,
};
use ambit_input::without_mark;
use ambit_model::WorkloadIdentity;

/// The largest answer that is read, in bytes.
const LARGEST_ANSWER: usize = 1 << 20;

/// The deadline that is sent with each request.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long connecting may take, including the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is used. After that the name is resolved again, so that another replica of the
/// CA can take over.
const MAX_AGE: Duration = Duration::from_secs(60);

/// A word in istiod's message by which it refuses requests for other identities: it has no separate
/// status code for that.
const IMPERSONATION: &str = "impersonation";

/// Builds the request for an identity's certificate.
///
/// # Errors
/// If the request cannot be signed.
pub(super) fn certificate_request(
    identity: &WorkloadIdentity,
    key: &KeyPair,
    lifetime: Duration,
) -> Result<CertificateRequest, rcgen::Error> {
    let id = identity.spiffe_id();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
    Ok(CertificateRequest {
        csr: params.serialize_request(key)?.pem()?,
        validity_duration: i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX),
        metadata: Some(Struct::with_string(IMPERSONATED_IDENTITY, id)),
    })
}

/// Sends a request, with the agent's token.
///
/// # Errors
/// [`IssueFailure`].
pub(super) async fn send(
    config: &IstioCaConfig,
    connection: &CaConnection,
    message: CertificateRequest,
) -> Result<CertificateResponse, IssueFailure> {
    let mut called = attempt(config, connection, &message).await?;
    if called.as_ref().is_err_and(is_of_transport) {
        // The connection may have been closed for its age before this request arrived.
        connection.give_up().await;
        called = attempt(config, connection, &message).await?;
    }
    if called.is_err() {
        connection.give_up().await;
    }
    called.map_err(|status| of_call(config, &status))
}

async fn attempt(
    config: &IstioCaConfig,
    connection: &CaConnection,
    message: &CertificateRequest,
) -> Result<Result<CertificateResponse, Status>, IssueFailure> {
    let channel = connection.channel(config).await?;
    let request = authorized(config, message.clone()).await?;
    Ok(call(channel, request).await)
}

/// Whether a call failed because the connection did, so that the CA did not answer at all.
fn is_of_transport(status: &Status) -> bool {
    status
        .source()
        .is_some_and(|cause| cause.is::<tonic::transport::Error>())
}

async fn authorized(
    config: &IstioCaConfig,
    message: CertificateRequest,
) -> Result<Request<CertificateRequest>, IssueFailure> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    let cluster = config.cluster_id.parse().map_err(|_| {
        let id = &config.cluster_id;
        IssueFailure::Unavailable(format!("{id:?} is not a valid cluster name (--cluster-id)"))
    })?;
    let metadata = request.metadata_mut();
    metadata.insert("clusterid", cluster);
    metadata.insert("authorization", bearer(&config.token).await?);
    Ok(request)
}

/// Reads the agent's token, which the kubelet replaces.
async fn bearer(path: &Path) -> Result<MetadataValue<Ascii>, IssueFailure> {
    let unusable = |problem: &str| {
        let path = path.display();
        IssueFailure::Unavailable(format!(
            "there is no token for the CA in {path} (--ca-token): {problem}; mount a service \
             account token of the audience istio-ca there"
        ))
    };
    let token = tokio::fs::read_to_string(path)
        .await
        .map_err(|error| unusable(&error.to_string()))?;
    let token = without_mark(&token).trim();
    if token.is_empty() {
        return Err(unusable("the file is empty"));
    }
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .map_err(|_| unusable("it contains characters that a token cannot contain"))?;
    value.set_sensitive(true);
    Ok(value)
}

async fn call(
    channel: Channel,
    request: Request<CertificateRequest>,
) -> Result<CertificateResponse, Status> {
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(LARGEST_ANSWER);
    client
        .ready()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
    let path = PathAndQuery::from_static(CREATE_CERTIFICATE_PATH);
    Ok(client.unary(request, path, codec).await?.into_inner())
}

/// The connection that all requests share.
#[derive(Default)]
pub(super) struct CaConnection(Mutex<State>);

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// The last attempt, if it failed. All who waited for it get the same result.
    failed: Option<(Instant, IssueFailure)>,
}

struct Open {
    channel: Channel,
    /// The roots that the CA was verified with.
    roots: TrustAnchors,
    since: Instant,
}

impl CaConnection {
    /// The shared connection. A new one is made if there is none, if it is too old, or if the root file
    /// has changed since.
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

    /// Drops a connection that broke.
    pub(super) async fn give_up(&self) {
        self.0.lock().await.open = None;
    }
}

/// Reads the CA's roots again: replacing the file is all that an operator has to do.
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
    // TLS is below tonic, which does not see it.
    let endpoint = Endpoint::from_shared(format!("http://{}", address.authority()))
        .map_err(failed)?
        .origin(address.to_string().parse().map_err(invalid)?);
    // There is only this stream. If it breaks, another connection replaces it and is verified again.
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

/// Connects to the CA. The returned stream is verified.
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
    let mut config = ClientConfig::builder_with_provider(crypto_provider())
        .with_protocol_versions(&[&version::TLS13])?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Why there is no connection to the CA.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectFailure {
    #[error("its name cannot be resolved: {0}")]
    Resolve(io::Error),
    /// The TCP connection failed.
    #[error("{0}")]
    Connect(io::Error),
    /// The CA did not prove its identity.
    #[error("{0}")]
    Tls(io::Error),
    /// Connecting took too long.
    #[error("it does not answer")]
    TimedOut,
}

/// Explains a failed connection attempt.
pub(super) fn of_connect(config: &IstioCaConfig, failure: &ConnectFailure) -> IssueFailure {
    let address = &config.address;
    IssueFailure::Unavailable(match failure {
        ConnectFailure::Tls(error) => format!(
            "TLS with the CA at {address} failed: {error}; it must prove that it is {} by a \
             certificate of a root in {} (--ca-root), and no token was sent to it",
            config.address.server_name().to_str(),
            config.root.display(),
        ),
        ConnectFailure::Resolve(_) | ConnectFailure::Connect(_) | ConnectFailure::TimedOut => {
            format!("the CA at {address} (--ca-address) cannot be reached: {failure}")
        }
    })
}

/// Explains a failed call.
pub(super) fn of_call(config: &IstioCaConfig, status: &Status) -> IssueFailure {
    let (address, said) = (&config.address, describe(status));
    let refuses_others = status.message().contains(IMPERSONATION);
    match status.code() {
        Code::PermissionDenied => IssueFailure::Refused(not_for_others(config, &said)),
        Code::Unauthenticated if refuses_others => {
            IssueFailure::Refused(not_for_others(config, &said))
        }
        Code::Unauthenticated => IssueFailure::Unavailable(format!(
            "the CA at {address} does not accept this agent's token ({said}); the token in {} \
             (--ca-token) has to be of an audience that the CA accepts (istio-ca), and of the \
             cluster {} (--cluster-id)",
            config.token.display(),
            config.cluster_id,
        )),
        Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Aborted => {
            IssueFailure::Unavailable(format!("the CA at {address} cannot issue now ({said})"))
        }
        _ => IssueFailure::Refused(format!("the CA at {address} refused ({said})")),
    }
}

fn not_for_others(config: &IstioCaConfig, said: &str) -> String {
    format!(
        "the CA at {} does not let this agent ask for this identity ({said}); the agent's \
         namespace and service account have to be in istiod's CA_TRUSTED_NODE_ACCOUNTS (of `ambit \
         ca`: --node-account), and a pod of that identity on this node",
        config.address
    )
}

fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
