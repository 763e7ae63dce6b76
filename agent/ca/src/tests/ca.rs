//! A CA that a test has started: everything but the processes around it.

use std::io::Write;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::Client;
use super::{AGENT, account, binding, pods};
use crate::CertificateService;
use crate::audit::Audit;
use crate::authorization::IssuancePolicy;
use crate::caller::{AuthenticatedCaller, JwksFile, OfflineReviewer, TokenReviewer};
use crate::limits::{RateLimit, RateLimiter};
use crate::pods::PodDirectory;
use crate::request::Lifetimes;
use crate::server::{CaServer, ServerCertificate};
use ambit_authority::{AuthorityFiles, CertificateAuthority, make_root};
use ambit_jwt::ExpectedToken;
use ambit_jwt::testing::TestIssuer;
use ambit_model::TrustDomain;

/// The server's name.
pub(super) const NAME: &str = "ambit-ca.ambit-system.svc";

/// `iss` of the cluster's tokens.
pub(super) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The longest lifetime.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);

/// Where the caller does not say.
pub(super) const DEFAULT: Duration = Duration::from_secs(600);

/// What a test has otherwise than usual.
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
    /// With the usual pods, and the cluster's keys at hand.
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

    /// The roots that callers know.
    pub(super) fn roots(&self) -> &[CertificateDer<'static>] {
        self.authority.roots()
    }

    /// A connection that verifies the server by its roots and name.
    pub(super) async fn client(&self) -> Client {
        Client::connect(self.server, self.roots(), NAME)
            .await
            .unwrap()
    }

    /// A token as the cluster issues it to a caller.
    pub(super) fn token(&self, caller: &AuthenticatedCaller) -> String {
        self.issuer.token(&claims(caller))
    }

    /// Tells the server to end, and waits until it has.
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
