//! Certificates as text (RFC 7468).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;

/// Characters in a line.
const WIDTH: usize = 64;

/// A chain in PEM.
pub(super) fn encode(chain: &[CertificateDer<'_>]) -> String {
    chain.iter().map(one).collect()
}

fn one(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(WIDTH.min(rest.len()));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anchors::certificates;

    #[test]
    fn what_is_written_is_read() {
        let chain: Vec<_> = [1, 47, 48, 49, 1000]
            .map(|length| CertificateDer::from(vec![7; length]))
            .into();
        let pem = encode(&chain);
        assert_eq!(certificates(pem.as_bytes()).unwrap(), chain);
        assert!(pem.lines().all(|line| line.len() <= WIDTH));
    }
}
