//! The server's own certificate, signed by the CA that it serves. It is in memory only.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rcgen::KeyPair;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};
use tokio::sync::watch;

use ambit_authority::{CertificateAuthority, IssueError, SubjectKey};

/// The only protocol that the server speaks.
const ALPN: &[u8] = b"h2";

/// How often the clock is read again, since it can be set, and timers stop while a machine sleeps.
const CLOCK_LOOK: Duration = Duration::from_secs(5);

/// The pause after a failed renewal.
const RETRY: Duration = Duration::from_secs(30);

/// Why the server has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum ServerCertificateError {
    /// No key could be generated.
    #[error("no key can be generated for the server: {0}")]
    Key(#[from] rcgen::Error),
    /// The CA does not sign it.
    #[error("the server's certificate cannot be issued: {0}")]
    Issue(#[from] IssueError),
    /// rustls does not accept it.
    #[error("the server's certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// The server's certificate, always the newest.
#[derive(Debug)]
pub struct ServerCertificate {
    names: Vec<ServerName<'static>>,
    lifetime: Duration,
    authority: watch::Receiver<Arc<CertificateAuthority>>,
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    certified: Arc<CertifiedKey>,
    not_after: SystemTime,
    renews_at: SystemTime,
}

impl ServerCertificate {
    /// Issues a certificate for these names, valid for `lifetime`.
    ///
    /// # Errors
    /// [`ServerCertificateError`].
    pub fn new(
        mut authority: watch::Receiver<Arc<CertificateAuthority>>,
        names: Vec<ServerName<'static>>,
        lifetime: Duration,
    ) -> Result<Self, ServerCertificateError> {
        let first = issue(&authority.borrow_and_update(), &names, lifetime)?;
        Ok(Self {
            names,
            lifetime,
            authority,
            current: ArcSwap::from_pointee(first),
        })
    }

    /// The server's TLS configuration: TLS 1.3, HTTP/2, no resumption, no client certificates. Callers
    /// prove their identities by tokens.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn tls(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// Whether it has not expired.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        now < self.current.load().not_after
    }

    /// Renews it at half its life and when the CA's files change, while this is polled.
    pub async fn follow(&self) {
        let mut authority = self.authority.clone();
        loop {
            let due = self.current.load().renews_at;
            let wait = due.duration_since(SystemTime::now()).unwrap_or_default();
            if !wait.is_zero() {
                tokio::select! {
                    changed = authority.changed() => match changed {
                        Ok(()) => {}
                        Err(_) => return,
                    },
                    () = tokio::time::sleep(wait.min(CLOCK_LOOK)) => continue,
                }
            }
            let newest = Arc::clone(&authority.borrow_and_update());
            match issue(&newest, &self.names, self.lifetime) {
                Ok(renewed) => {
                    self.current.store(Arc::new(renewed));
                    tracing::info!("the server's own certificate is renewed");
                }
                Err(error) => {
                    tracing::warn!(%error, "the server's own certificate is not renewed");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

impl ResolvesServerCert for ServerCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().certified))
    }
}

fn issue(
    authority: &CertificateAuthority,
    names: &[ServerName<'_>],
    lifetime: Duration,
) -> Result<Current, ServerCertificateError> {
    let key = KeyPair::generate()?;
    let issued = authority.issue_server(names, &SubjectKey::of(&key), lifetime)?;
    let now = SystemTime::now();
    let left = issued.not_after.duration_since(now).unwrap_or_default();
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = aws_lc_rs::sign::any_supported_type(&der)?;
    let certified = CertifiedKey::new(issued.chain, key);
    certified.keys_match()?;
    Ok(Current {
        certified: Arc::new(certified),
        not_after: issued.not_after,
        renews_at: now + left / 2,
    })
}
