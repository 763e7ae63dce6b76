//! A running CA for tests, and a client.

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::CertificateService;
use crate::audit::Audit;
use crate::caller::{AuthenticatedCaller, JwksFile, OfflineReviewer, TokenReviewer};
use crate::issuance::IssuancePolicy;
use crate::pods::PodDirectory;
use crate::rate_limit::{RateLimit, RateLimiter};
use crate::server::{CaServer, ServerCertificate};
use crate::service::Lifetimes;
use crate::tests::{AGENT, account, binding, pods};
use ambit_authority::{AuthorityFiles, CertificateAuthority, make_root};
use ambit_ca_protocol::{
    CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse, IMPERSONATED_IDENTITY, Struct,
};
use ambit_jwt::ExpectedToken;
use ambit_jwt::testing::TestIssuer;
use ambit_model::TrustDomain;

/// The name in the server's certificate.
pub(super) const NAME: &str = "ambit-ca.ambit-system.svc";

/// `iss` of the cluster's tokens.
pub(super) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The longest lifetime of certificates.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// The lifetime of certificates if the caller does not say.
pub(super) const DEFAULT: Duration = Duration::from_secs(600);

/// Settings that tests change.
pub(super) struct Settings {
    pub(super) reviewer: TokenReviewer,
    pub(super) pods: PodDirectory,
    pub(super) burst: u32,
}

pub(super) struct TestCa {
    pub(super) server: std::net::SocketAddr,
    pub(super) authority: Arc<CertificateAuthority>,
    pub(super) service: Arc<CertificateService>,
    pub(super) issuer: Arc<TestIssuer>,
    end: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    _files: AuthorityFiles,
    _directory: TempDir,
}

impl TestCa {
    /// Starts a CA with the usual pods and the cluster's keys.
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(super) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let issuer = TestIssuer::ec("P-256");
        let mut settings = Settings {
            reviewer: TokenReviewer::Offline(offline(&issuer)),
            pods: PodDirectory::default(),
            burst: 100,
        };
        settings.pods.replace(pods());
        change(&mut settings);
        let directory = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new("cluster.local").unwrap();
        let files = directory.path().join("ca");
        make_root(&files, &domain, Duration::from_secs(86_400)).unwrap();
        let files = AuthorityFiles::follow(&files, &domain, LONGEST).unwrap();
        let names = vec![ServerName::try_from(NAME).unwrap()];
        let certificate = ServerCertificate::new(files.subscribe(), names, LONGEST);
        let certificate = Arc::new(certificate.unwrap());
        let service = Arc::new(service(settings, domain, &files));
        let address = ([127, 0, 0, 1], 0).into();
        let server = CaServer::bind(address, &certificate, Arc::clone(&service));
        let server = server.await.unwrap();
        let (end, ended) = oneshot::channel();
        Self {
            server: server.address(),
            authority: files.latest(),
            service,
            issuer: Arc::new(issuer),
            end: Some(end),
            served: tokio::spawn(server.serve(async { ended.await.unwrap_or_default() })),
            _files: files,
            _directory: directory,
        }
    }

    /// The roots that callers verify the server with.
    pub(super) fn roots(&self) -> &[CertificateDer<'static>] {
        self.authority.roots()
    }

    /// Connects and verifies the server by its roots and name.
    pub(super) async fn client(&self) -> Client {
        Client::connect(self.server, self.roots(), NAME)
            .await
            .unwrap()
    }

    /// A token as the cluster issues it to a caller.
    pub(super) fn token(&self, caller: &AuthenticatedCaller) -> String {
        self.issuer.token(&claims(caller))
    }

    /// Stops the server, and waits until it has ended.
    pub(super) async fn end(&mut self) {
        self.end.take().unwrap().send(()).unwrap();
        (&mut self.served).await.unwrap();
    }
}

/// The claims of a caller's token.
pub(super) fn claims(caller: &AuthenticatedCaller) -> Value {
    let now = seconds();
    json!({
        "iss": ISSUER,
        "aud": ["istio-ca"],
        "sub": format!("system:serviceaccount:{}:{}", caller.account.namespace(), caller.account.name()),
        "iat": now,
        "nbf": now,
        "exp": now + 600,
        "kubernetes.io": binding(caller),
    })
}

/// Seconds since 1970.
pub(super) fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

fn offline(issuer: &TestIssuer) -> OfflineReviewer {
    let expected = ExpectedToken {
        issuer: ISSUER.to_owned(),
        audience: "istio-ca".to_owned(),
    };
    let mut file = NamedTempFile::new().unwrap();
    write!(file, "{}", issuer.jwks()).unwrap();
    OfflineReviewer::new(expected, JwksFile::follow(file.path()).unwrap())
}

fn service(
    settings: Settings,
    trust_domain: TrustDomain,
    files: &AuthorityFiles,
) -> CertificateService {
    CertificateService {
        reviewer: settings.reviewer,
        authorization: IssuancePolicy {
            trust_domain,
            node_accounts: [account(AGENT)].into(),
        },
        pods: settings.pods,
        limits: RateLimiter::new(RateLimit {
            burst: NonZeroU32::new(settings.burst).unwrap(),
            per_second: NonZeroU32::MIN,
        }),
        lifetimes: Lifetimes {
            default: DEFAULT,
            longest: LONGEST,
        },
        authority: files.subscribe(),
        audit: Audit::default(),
    }
}

pub(super) struct Client {
    channel: Channel,
}

/// A call that a test makes.
#[derive(Clone)]
pub(super) struct Ask {
    /// The values of the header `authorization`.
    pub(super) authorization: Vec<String>,
    pub(super) request: CertificateRequest,
}

impl Ask {
    /// Requests the caller's own identity, for a new key.
    pub(super) fn own(token: &str) -> Self {
        Self {
            authorization: vec![format!("Bearer {token}")],
            request: CertificateRequest {
                csr: csr(),
                ..CertificateRequest::default()
            },
        }
    }

    /// Requests another identity.
    pub(super) fn impersonating(token: &str, id: &str) -> Self {
        let mut ask = Self::own(token);
        ask.request.metadata = Some(Struct::with_string(IMPERSONATED_IDENTITY, id.to_owned()));
        ask
    }

    pub(super) fn lasting(mut self, seconds: i64) -> Self {
        self.request.validity_duration = seconds;
        self
    }

    pub(super) fn with_csr(mut self, csr: impl Into<String>) -> Self {
        self.request.csr = csr.into();
        self
    }
}

impl Client {
    pub(super) async fn connect(
        address: SocketAddr,
        roots: &[CertificateDer<'static>],
        name: &'static str,
    ) -> Result<Self, tonic::transport::Error> {
        let tls = TlsConnector::from(Arc::new(tls(roots)));
        let connector = tower::service_fn(move |_: Uri| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from(name).expect("a name");
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        let endpoint = Endpoint::from_static("https://ca");
        let channel = endpoint.connect_with_connector(connector).await?;
        Ok(Self { channel })
    }

    pub(super) async fn ask(&self, ask: &Ask) -> Result<Vec<String>, Status> {
        self.ask_at(CREATE_CERTIFICATE_PATH, ask).await
    }

    pub(super) async fn ask_at(
        &self,
        path: &'static str,
        ask: &Ask,
    ) -> Result<Vec<String>, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client
            .ready()
            .await
            .map_err(|error| Status::from_error(error.into()))?;
        let mut request = tonic::Request::new(ask.request.clone());
        for value in &ask.authorization {
            let value: AsciiMetadataValue = value.parse().expect("ASCII");
            request.metadata_mut().append("authorization", value);
        }
        let cluster = AsciiMetadataValue::from_static("Kubernetes");
        request.metadata_mut().insert("clusterid", cluster);
        let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
        let path = PathAndQuery::from_static(path);
        let response = client.unary(request, path, codec).await?;
        Ok(response.into_inner().cert_chain)
    }

    /// The code and message of a call that must be refused.
    pub(super) async fn refused(&self, ask: &Ask) -> (Code, String) {
        let status = self.ask(ask).await.expect_err("refused");
        (status.code(), status.message().to_owned())
    }
}

/// A request for a new key's certificate.
pub(super) fn csr() -> String {
    let key = KeyPair::generate().expect("a key");
    let request = CertificateParams::default().serialize_request(&key);
    request.expect("a request").pem().expect("PEM")
}

pub(super) fn tls(roots: &[CertificateDer<'static>]) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).expect("a root");
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
