//! PEM (RFC 7468). Text around the blocks and blocks of other kinds are ignored.

use ::pem::{EncodeConfig, LineEnding, Pem, encode_many_config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use ambit_input::pem_without_marks;

/// All blocks of one kind, in order.
pub(super) fn all<T: PemObject>(text: &[u8]) -> Result<Vec<T>, String> {
    T::pem_slice_iter(&pem_without_marks(text))
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

/// The only block of one kind.
pub(super) fn only<T: PemObject>(text: &[u8]) -> Result<T, String> {
    let mut found = all(text)?;
    match (found.pop(), found.len()) {
        (Some(one), 0) => Ok(one),
        (Some(_), more) => Err(format!(
            "there are {} blocks, but exactly one is expected",
            more + 1
        )),
        (None, _) => Err("there is no PEM block of the expected kind".to_owned()),
    }
}

/// Encodes certificates, one block after another.
pub fn encode(certificates: &[CertificateDer<'_>]) -> String {
    let blocks = certificates.iter();
    let blocks: Vec<Pem> = blocks
        .map(|der| Pem::new("CERTIFICATE", der.as_ref()))
        .collect();
    encode_many_config(&blocks, EncodeConfig::new().set_line_ending(LineEnding::LF))
}
