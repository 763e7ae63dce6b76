use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};

use crate::{CsrError, SubjectKey};

/// A request with an ECDSA P-256 key in DER, and its key.
fn request(params: &CertificateParams) -> (Vec<u8>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let request = params.serialize_request(&key).unwrap();
    (request.der().to_vec(), key)
}

#[test]
fn keys_of_each_kind_are_accepted_and_weak_or_unknown_ones_are_not() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
        &rcgen::PKCS_RSA_SHA512,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let request = CertificateParams::default().serialize_request(&key);
        let request = request.unwrap().pem().unwrap();
        let subject = SubjectKey::from_csr_pem(request.as_bytes()).unwrap();
        assert_eq!(
            subject.subject_public_key_info(),
            key.subject_public_key_info()
        );
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let request = CertificateParams::default().serialize_request(&key);
    let error = SubjectKey::from_csr_der(request.unwrap().der()).unwrap_err();
    assert!(matches!(error, CsrError::Key(_)), "{error}");
    let error = SubjectKey::from_csr_pem(include_bytes!("data/rsa1024.csr")).unwrap_err();
    assert_eq!(error, CsrError::Key("RSA of 1024 bits".to_owned()));
    let error = SubjectKey::from_csr_pem(include_bytes!("data/sha1.csr")).unwrap_err();
    assert!(matches!(error, CsrError::Signature(_)), "{error}");
}

#[test]
fn only_the_key_is_taken_from_a_request() {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![
        SanType::URI(
            "spiffe://cluster.local/ns/admin/sa/root"
                .try_into()
                .unwrap(),
        ),
        SanType::DnsName("istiod.istio-system.svc".try_into().unwrap()),
    ];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let (request, key) = request(&params);
    let subject = SubjectKey::from_csr_der(&request).unwrap();
    assert_eq!(subject.der_bytes(), key.der_bytes());
    assert_eq!(subject.algorithm(), key.algorithm());
}

#[test]
fn a_request_that_its_key_did_not_sign_is_refused() {
    let (good, key) = request(&CertificateParams::default());
    SubjectKey::from_csr_der(&good).unwrap();
    let mut signature = good.clone();
    *signature.last_mut().unwrap() ^= 1;
    let mut subject = good.clone();
    let name = b"rcgen self signed cert";
    let at = subject
        .windows(name.len())
        .position(|window| window == name);
    subject[at.unwrap()] ^= 1;
    let mut other = good.clone();
    let own = key.der_bytes();
    let at = other.windows(own.len()).position(|window| window == own);
    let stranger = KeyPair::generate().unwrap();
    other[at.unwrap()..][..own.len()].copy_from_slice(stranger.der_bytes());
    for tampered in [signature, subject, other] {
        let error = SubjectKey::from_csr_der(&tampered).unwrap_err();
        assert!(matches!(error, CsrError::Signature(_)), "{error}");
    }
}

#[test]
fn anything_but_one_request_is_refused() {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let (pem, der) = (request.pem().unwrap(), request.der().to_vec());
    for text in [
        String::new(),
        pem.repeat(2),
        pem.replace("REQUEST", ""),
        pem[..pem.len() / 2].to_owned(),
        "x".repeat(1 << 20),
    ] {
        let error = SubjectKey::from_csr_pem(text.as_bytes()).unwrap_err();
        assert!(matches!(error, CsrError::Unreadable(_)), "{error}");
    }
    let followed = [der.as_slice(), &[0]].concat();
    for bytes in [&[][..], &der[1..], &der[..der.len() - 1], &followed] {
        let error = SubjectKey::from_csr_der(bytes).unwrap_err();
        assert!(matches!(error, CsrError::Unreadable(_)), "{error}");
    }
}
