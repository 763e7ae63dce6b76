//! What an answer of the authority says: a chain, and the mesh's roots.

use rustls::pki_types::CertificateDer;

use crate::anchors::{BundleError, TrustAnchors, certificates};
use crate::answer::IssuedCertificateError;
use ambit_ca_protocol::CertificateResponse;

/// An answer, taken apart.
pub(super) struct CaResponse {
    /// Leaf first, without what signed itself.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// What the authority says that the mesh's roots are.
    pub(super) roots: TrustAnchors,
}

/// Takes an answer apart. The last element has the roots, all of them; in an answer of one element
/// they are what signed itself.
///
/// # Errors
/// [`IssuedCertificateError::Empty`], [`IssuedCertificateError::Unreadable`].
pub(super) fn read(response: &CertificateResponse) -> Result<CaResponse, IssuedCertificateError> {
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
    Ok(CaResponse {
        chain: std::iter::once(leaf).chain(between).collect(),
        roots: TrustAnchors::new(roots),
    })
}

fn is_self_issued(certificate: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(certificate)
        .is_ok_and(|(_, parsed)| parsed.subject() == parsed.issuer())
}
