//! A peer's certificate, and the SPIFFE ID in it. An identity that is read is written the same way.

#![no_main]

use ambit_fuzz::ensure_linear;
use ambit_identity::peer_identity;
use ambit_model::WorkloadIdentity;
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::CertificateDer;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(identity) = peer_identity(&[CertificateDer::from(bytes)]) {
        check(&identity);
    }
    ensure_linear(bytes, |bytes| {
        let text = std::str::from_utf8(bytes).ok()?;
        let path = format!("spiffe://cluster.local/ns/{text}");
        WorkloadIdentity::from_spiffe_id(text)
            .or(WorkloadIdentity::from_spiffe_id(&path))
            .ok()
    });
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(identity) = WorkloadIdentity::from_spiffe_id(text)
    {
        assert_eq!(identity.spiffe_id(), text);
        check(&identity);
    }
});

fn check(identity: &WorkloadIdentity) {
    let again = WorkloadIdentity::from_spiffe_id(&identity.spiffe_id());
    assert_eq!(again.as_ref(), Ok(identity));
}
