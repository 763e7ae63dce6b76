//! The roots of the mesh.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};

use ambit_input::pem_without_marks;

/// The largest bundle that is read, in bytes.
pub(super) const LARGEST_BUNDLE: usize = 1 << 20;

/// The roots that certificates of the mesh have to lead to: an order-less set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrustAnchors(Vec<CertificateDer<'static>>);

/// Why a text is no bundle of roots.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BundleError {
    /// It is not PEM.
    #[error("it cannot be read as PEM certificates: {0}")]
    Pem(String),
    /// It has no certificate.
    #[error("it has no certificate")]
    Empty,
    /// One of its certificates is none of an authority.
    #[error("its certificate {position} cannot be a root: {reason}")]
    NotARoot {
        /// Which, from 1.
        position: usize,
        /// Why not.
        reason: String,
    },
    /// It is larger than any bundle.
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

    /// The roots in a PEM text, one at least.
    ///
    /// # Errors
    /// [`BundleError`]; a text of which one part is not understood is refused as a whole.
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

    /// The roots, each once.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The certificates of a PEM text, in their order.
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
    Err(format!("{} is not of a CA", parsed.subject()))
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
    fn a_bundle_is_a_set() {
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
    fn what_is_no_bundle_is_refused_whole() {
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
