//! The roots of the mesh: the set, a file of them that is followed, and verification with the newest.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, pem};
use tokio::sync::watch;

use crate::issued::IssuedCertificateError;
use crate::verify::{PeerVerifier, TrustPolicy};
use ambit_input::{FileFollower, pem_without_marks, read_bounded};

/// The largest bundle that is read, in bytes.
pub(super) const LARGEST_BUNDLE: usize = 1 << 20;

/// How often the file is read.
const LOOK: Duration = Duration::from_secs(1);

/// The roots that the mesh's certificates must lead to. A set: order and repetition do not matter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrustAnchors(Vec<CertificateDer<'static>>);

/// Why a text is not a usable bundle of roots.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BundleError {
    /// It is not PEM, or a block in it cannot be decoded.
    #[error("it cannot be read as PEM certificates: {0}")]
    Pem(String),
    /// It contains no certificate.
    #[error("it has no certificate")]
    Empty,
    /// One of its certificates does not belong to a CA.
    #[error("its certificate {position} cannot be a root: {reason}")]
    NotARoot {
        /// The certificate's position, counted from 1.
        position: usize,
        /// Why it cannot be a root.
        reason: String,
    },
    /// It is larger than the limit.
    #[error("it is larger than {LARGEST_BUNDLE} bytes")]
    TooLarge,
}

impl TrustAnchors {
    /// The set of these certificates.
    pub fn new(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        let mut roots: Vec<_> = roots.into_iter().collect();
        roots.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
        roots.dedup();
        Self(roots)
    }

    /// Reads the roots of a PEM text, of which there must be at least one.
    ///
    /// # Errors
    /// [`BundleError`]. A text with one unusable part is refused as a whole.
    pub fn from_pem(text: &[u8]) -> Result<Self, BundleError> {
        let roots = certificates(text)?;
        if roots.is_empty() {
            return Err(BundleError::Empty);
        }
        for (index, root) in roots.iter().enumerate() {
            ensure_authority(root).map_err(|reason| BundleError::NotARoot {
                position: index + 1,
                reason,
            })?;
        }
        Ok(Self::new(roots))
    }

    /// The roots, each one once.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The certificates of a PEM text, in order.
///
/// # Errors
/// [`BundleError::Pem`], [`BundleError::TooLarge`].
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, BundleError> {
    if text.len() > LARGEST_BUNDLE {
        return Err(BundleError::TooLarge);
    }
    CertificateDer::pem_slice_iter(&pem_without_marks(text))
        .collect::<Result<_, pem::Error>>()
        .map_err(|error| BundleError::Pem(error.to_string()))
}

fn ensure_authority(root: &CertificateDer<'_>) -> Result<(), String> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(root).map_err(|error| error.to_string())?;
    if parsed.is_ca() {
        return Ok(());
    }
    Err(format!("{} is not a CA's certificate", parsed.subject()))
}

/// Why a file of roots cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the file of roots {} cannot be used: {problem}", path.display())]
pub struct BundleFileError {
    path: PathBuf,
    problem: String,
}

/// The roots in a file that is followed. If the file becomes unusable, the last good roots stay in
/// force.
pub(super) struct BundleFile {
    published: watch::Receiver<Arc<TrustAnchors>>,
    follower: FileFollower,
}

impl BundleFile {
    /// Reads the file once.
    ///
    /// # Errors
    /// [`BundleFileError`].
    pub(super) fn read(path: &Path) -> Result<TrustAnchors, BundleFileError> {
        let failed = |problem: String| BundleFileError {
            path: path.to_owned(),
            problem,
        };
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        let text = read_bounded(file, LARGEST_BUNDLE as u64);
        let text = text.map_err(|error| failed(error.to_string()))?;
        TrustAnchors::from_pem(&text).map_err(|error: BundleError| failed(error.to_string()))
    }

    /// Reads the file, and follows it until this is dropped.
    ///
    /// # Errors
    /// [`BundleFileError`] if it cannot be used at first.
    pub(super) fn follow(path: &Path) -> Result<Self, BundleFileError> {
        let (publish, published) = watch::channel(Arc::new(Self::read(path)?));
        let (read, logged) = (path.to_owned(), path.to_owned());
        let look = move || {
            let anchors = Self::read(&read)?;
            publish.send_if_modified(|current| {
                let changed = **current != anchors;
                if changed {
                    *current = Arc::new(anchors);
                }
                changed
            });
            Ok::<(), BundleFileError>(())
        };
        let report = move |fault: Option<&str>| match fault {
            Some(fault) => tracing::warn!("{}", with_consequence(fault)),
            None => {
                tracing::info!(path = %logged.display(), "the file of roots can be used again");
            }
        };
        let follower = FileFollower::start("ambit-roots", LOOK, look, report);
        Ok(Self {
            published,
            follower: follower.map_err(|error| BundleFileError {
                path: path.to_owned(),
                problem: error.to_string(),
            })?,
        })
    }

    /// The roots, and each change of them.
    pub(super) fn anchors(&self) -> watch::Receiver<Arc<TrustAnchors>> {
        self.published.clone()
    }

    /// Why the present file is not in force; `None` if it is.
    pub(super) fn problem(&self) -> Option<String> {
        let fault = self.follower.fault()?;
        Some(with_consequence(&fault))
    }
}

fn with_consequence(fault: &str) -> String {
    format!("{fault}; its last good roots stay in force")
}

/// Gives out verification with the newest roots.
#[derive(Debug)]
pub(super) struct MeshTrust {
    anchors: watch::Receiver<Arc<TrustAnchors>>,
    policy: TrustPolicy,
    newest: Mutex<Option<Arc<Verification>>>,
}

/// Verification with one set of roots, shared by all identities.
#[derive(Debug)]
pub(super) struct Verification {
    pub(super) verifier: Arc<PeerVerifier>,
    /// Increases with each set of roots.
    pub(super) generation: u64,
    anchors: Arc<TrustAnchors>,
}

impl MeshTrust {
    pub(super) fn new(anchors: watch::Receiver<Arc<TrustAnchors>>, policy: TrustPolicy) -> Self {
        Self {
            anchors,
            policy,
            newest: Mutex::default(),
        }
    }

    /// The roots, and each change of them.
    pub(super) fn changes(&self) -> watch::Receiver<Arc<TrustAnchors>> {
        self.anchors.clone()
    }

    /// Verification with the newest roots.
    ///
    /// # Errors
    /// If there are no roots, or one of them cannot be used.
    pub(super) fn verification(&self) -> Result<Arc<Verification>, IssuedCertificateError> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        // Read with the lock held, so that what is built last uses the newest roots.
        let anchors = Arc::clone(&self.anchors.borrow());
        if let Some(known) = &*newest
            && *known.anchors == *anchors
        {
            return Ok(Arc::clone(known));
        }
        if anchors.is_empty() {
            return Err(IssuedCertificateError::NoRoots);
        }
        let verifier = PeerVerifier::new(&anchors, self.policy.clone())
            .map_err(|error| IssuedCertificateError::Chain(error.to_string()))?;
        let built = Arc::new(Verification {
            verifier: Arc::new(verifier),
            generation: newest.as_ref().map_or(1, |known| known.generation + 1),
            anchors,
        });
        *newest = Some(Arc::clone(&built));
        Ok(built)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    use super::*;

    fn pem(is_ca: IsCa) -> String {
        let mut params = CertificateParams::default();
        params.is_ca = is_ca;
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .pem()
    }

    fn root() -> String {
        pem(IsCa::Ca(BasicConstraints::Unconstrained))
    }

    #[test]
    fn order_and_repetition_of_roots_do_not_matter() {
        let (one, two) = (root(), root());
        let read = |texts: &[&str]| TrustAnchors::from_pem(texts.concat().as_bytes()).unwrap();
        assert_eq!(read(&[&one, &two]), read(&[&two, &one, &two]));
        assert_ne!(read(&[&one]), read(&[&one, &two]));
    }

    #[test]
    fn a_byte_order_mark_hides_no_root() {
        let (one, two) = (root(), root());
        let marked = format!("\u{feff}{one}\u{feff}{two}");
        let read = |text: &str| TrustAnchors::from_pem(text.as_bytes()).unwrap();
        assert_eq!(read(&marked), read(&format!("{one}{two}")));
    }

    #[test]
    fn certificates_that_are_written_as_pem_are_read_back() {
        let chain: Vec<_> = [1, 47, 48, 49, 1000]
            .map(|length| CertificateDer::from(vec![7; length]))
            .into();
        let pem = ambit_authority::encode_pem(&chain);
        assert_eq!(certificates(pem.as_bytes()).unwrap(), chain);
        assert!(pem.lines().all(|line| line.len() <= 64));
    }

    #[test]
    fn a_text_with_one_unusable_part_is_refused_as_a_whole() {
        let read = |text: &str| TrustAnchors::from_pem(text.as_bytes()).unwrap_err();
        assert_eq!(read(""), BundleError::Empty);
        assert_eq!(read("no PEM at all"), BundleError::Empty);
        let torn = root().replace("-----END CERTIFICATE-----", "");
        assert!(matches!(
            read(&format!("{}{torn}", root())),
            BundleError::Pem(_)
        ));
        let leaf = format!("{}{}", root(), pem(IsCa::ExplicitNoCa));
        assert!(matches!(
            read(&leaf),
            BundleError::NotARoot { position: 2, .. }
        ));
        assert_eq!(read(&"#".repeat(LARGEST_BUNDLE + 1)), BundleError::TooLarge);
    }
}
