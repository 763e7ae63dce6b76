//! A client for Istio's CA protocol, as istiod and `ambit ca serve` speak it.
//!
//! The agent generates the key and the request, and asks on behalf of a pod of its node, with a token
//! of its own. The CA is verified by a root file and a name before that token leaves the node.

mod client;
mod config;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;

pub use config::{CaAddress, CaAddressError, IstioCaConfig};

use crate::issued::{IssueRequest, IssuedCertificate, IssuedCertificateError, ensure_usable};
use crate::provider::{CertificateProvider, IssueFailure, IssueFuture};
use crate::roots::{BundleError, BundleFile, BundleFileError, TrustAnchors, certificates};
use crate::verify::{PeerVerifier, TrustPolicy};
use ambit_ca_protocol::CertificateResponse;
use ambit_model::WorkloadIdentity;
use client::{CaConnection, certificate_request, send};

/// A CA that is asked over the network.
pub struct IstioCa {
    config: IstioCaConfig,
    trust: TrustPolicy,
    connection: CaConnection,
    roots: Roots,
}

/// Where the mesh's roots come from.
enum Roots {
    /// A file, which alone defines them.
    File(BundleFile),
    /// The CA's newest answer.
    Answers(AdoptedRoots),
}

struct AdoptedRoots {
    published: watch::Sender<Arc<TrustAnchors>>,
    questions: Mutex<RequestNumbers>,
}

/// Requests are numbered as they are sent, so that an answer that arrives after a newer one does not
/// change the roots.
#[derive(Default)]
struct RequestNumbers {
    sent: u64,
    adopted: u64,
}

impl IstioCa {
    /// A client that has not asked anything yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If one of the files of roots cannot be used.
    pub fn new(config: IstioCaConfig, trust: TrustPolicy) -> Result<Self, BundleFileError> {
        BundleFile::read(&config.root)?;
        let roots = match &config.trust_roots {
            Some(path) => Roots::File(BundleFile::follow(path)?),
            None => Roots::Answers(AdoptedRoots {
                published: watch::Sender::default(),
                questions: Mutex::default(),
            }),
        };
        Ok(Self {
            config,
            trust,
            connection: CaConnection::default(),
            roots,
        })
    }

    async fn ask(
        &self,
        identity: &WorkloadIdentity,
        lifetime: Duration,
    ) -> Result<IssuedCertificate, IssueFailure> {
        let refused = |error: rcgen::Error| IssueFailure::Refused(error.to_string());
        let key = KeyPair::generate().map_err(refused)?;
        let message = certificate_request(identity, &key, lifetime).map_err(refused)?;
        let number = self.roots.next_question();
        let response = send(&self.config, &self.connection, message).await?;
        let CaResponse { chain, roots } = CaResponse::read(&response)?;
        let issued = IssuedCertificate {
            chain,
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        };
        if let Roots::Answers(adopted) = &self.roots {
            let question = IssueRequest {
                identity,
                lifetime,
                now: SystemTime::now(),
            };
            adopted.adopt(roots, number, &issued, &question, &self.trust)?;
        }
        Ok(issued)
    }
}

impl CertificateProvider for IstioCa {
    fn issue<'a>(&'a self, identity: &'a WorkloadIdentity, lifetime: Duration) -> IssueFuture<'a> {
        Box::pin(self.ask(identity, lifetime))
    }

    fn anchors(&self) -> watch::Receiver<Arc<TrustAnchors>> {
        match &self.roots {
            Roots::File(file) => file.anchors(),
            Roots::Answers(adopted) => adopted.published.subscribe(),
        }
    }

    fn problem(&self) -> Option<String> {
        match &self.roots {
            Roots::File(file) => file.problem(),
            Roots::Answers(_) => None,
        }
    }
}

impl Roots {
    fn next_question(&self) -> u64 {
        match self {
            Self::File(_) => 0,
            Self::Answers(adopted) => {
                let mut questions = adopted.lock();
                questions.sent += 1;
                questions.sent
            }
        }
    }
}

impl AdoptedRoots {
    /// Adopts the roots of an answer as the mesh's, if the whole answer verifies against them.
    fn adopt(
        &self,
        roots: TrustAnchors,
        number: u64,
        issued: &IssuedCertificate,
        question: &IssueRequest<'_>,
        trust: &TrustPolicy,
    ) -> Result<(), IssuedCertificateError> {
        if roots.is_empty() {
            return Err(IssuedCertificateError::NoRoots);
        }
        if **self.published.borrow() == roots {
            self.lock().note(number);
            return Ok(());
        }
        let verifier = PeerVerifier::new(&roots, trust.clone())
            .map_err(|error| IssuedCertificateError::Chain(error.to_string()))?;
        ensure_usable(issued, question, &verifier)?;
        if self.lock().note(number) {
            self.published.send_replace(Arc::new(roots));
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, RequestNumbers> {
        self.questions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestNumbers {
    /// Records the answer to a request, and returns whether it is the newest so far.
    fn note(&mut self, number: u64) -> bool {
        let newest = number > self.adopted;
        self.adopted = self.adopted.max(number);
        newest
    }
}

/// The certificates of an answer.
struct CaResponse {
    /// Leaf first, without self-issued certificates.
    chain: Vec<CertificateDer<'static>>,
    /// The mesh's roots, according to the CA.
    roots: TrustAnchors,
}

impl CaResponse {
    /// Decodes an answer. The last element contains all roots. In an answer of one element, the
    /// self-issued certificates are the roots.
    ///
    /// # Errors
    /// [`IssuedCertificateError::Empty`], [`IssuedCertificateError::Unreadable`].
    fn read(response: &CertificateResponse) -> Result<Self, IssuedCertificateError> {
        let unreadable = |error: BundleError| IssuedCertificateError::Unreadable(error.to_string());
        let read = |pem: &String| certificates(pem.as_bytes()).map_err(unreadable);
        let elements = response.cert_chain.iter().map(read);
        let mut elements = elements.collect::<Result<Vec<_>, _>>()?;
        let last = match elements.len() {
            0 | 1 => Vec::new(),
            _ => elements.pop().unwrap_or_default(),
        };
        let mut rest = elements.into_iter().flatten();
        let leaf = rest.next().ok_or(IssuedCertificateError::Empty)?;
        let (own, between): (Vec<_>, Vec<_>) = rest.partition(is_self_issued);
        let roots = if last.is_empty() { own } else { last };
        Ok(Self {
            chain: std::iter::once(leaf).chain(between).collect(),
            roots: TrustAnchors::new(roots),
        })
    }
}

fn is_self_issued(certificate: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, parsed)| parsed.subject() == parsed.issuer())
}
