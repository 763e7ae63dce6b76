use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType, SignatureAlgorithm,
};

use super::{Ca, Files, HOUR, domain, pem};
use crate::{CaCertificateFlaw, CaFilesError, CertificateAuthority};

/// A root, and an intermediate with a change to its parameters.
fn intermediate(change: impl FnOnce(&mut CertificateParams)) -> (Ca, Ca) {
    let root = Ca::named("root");
    let mut params = Ca::params("intermediate");
    change(&mut params);
    let intermediate = root.signs(&params);
    (root, intermediate)
}

fn flaw_of(files: &Files) -> (CaCertificateFlaw, String) {
    match files.open().unwrap_err() {
        CaFilesError::Certificate { flaw, subject, .. } => (flaw, subject),
        other => panic!("{other}"),
    }
}

fn uri(uri: &str) -> Vec<SanType> {
    vec![SanType::URI(uri.try_into().unwrap())]
}

#[test]
fn roots_with_keys_of_each_kind_sign() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] as [&SignatureAlgorithm; 4]
    {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let root = Ca::root(&Ca::params("root"), key);
        let authority = Files::of(&root, &[], &[&root]).open().unwrap();
        assert_eq!(authority.roots(), [root.certificate]);
    }
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let root = Ca::root(&Ca::params("root"), key);
    let error = Files::of(&root, &[], &[&root]).open().unwrap_err();
    assert!(
        error.to_string().contains("of an unsupported kind"),
        "{error}"
    );
}

#[test]
fn a_chain_may_include_its_ends_and_comments_or_be_absent_below_a_root() {
    let (root, upper) = intermediate(|_| {});
    let lower = upper.signs(&Ca::params("lower"));
    for between in [
        &[&upper][..],
        &[&lower, &upper],
        &[&upper, &root],
        &[&lower, &upper, &root],
    ] {
        let mut files = Files::of(&lower, between, &[&root]);
        files.chain = files
            .chain
            .map(|chain| format!("# Of the mesh\r\n{chain}\nthe end"));
        let authority = files.open().unwrap();
        assert_eq!(authority.intermediates.len(), 2);
        assert_eq!(*authority.root(), root.certificate);
    }
    Files::of(&upper, &[], &[&root]).open().unwrap();
}

#[test]
fn a_chain_with_a_gap_a_wrong_order_or_a_stranger_is_refused() {
    let (root, upper) = intermediate(|_| {});
    let middle = upper.signs(&Ca::params("middle"));
    let lower = middle.signs(&Ca::params("lower"));
    let stranger = Ca::named("intermediate");
    Files::of(&lower, &[&middle, &upper], &[&root])
        .open()
        .unwrap();
    for between in [
        &[&upper, &middle][..],
        &[&middle, &stranger],
        &[&upper],
        &[&middle, &lower],
        &[&middle, &root, &upper],
    ] {
        let error = Files::of(&lower, between, &[&root]).open().unwrap_err();
        assert!(matches!(error, CaFilesError::Chain { .. }), "{error}");
    }
    for between in [&[][..], &[&middle]] {
        let error = Files::of(&lower, between, &[&root]).open().unwrap_err();
        assert!(matches!(error, CaFilesError::OtherRoot { .. }), "{error}");
    }
}

#[test]
fn a_root_of_the_same_name_and_another_key_is_another_root() {
    let (root, signing) = intermediate(|_| {});
    let other = Ca::named("root");
    for (signing, roots) in [(&signing, [&other]), (&root, [&other])] {
        let error = Files::of(signing, &[], &roots).open().unwrap_err();
        assert!(matches!(error, CaFilesError::OtherRoot { .. }), "{error}");
    }
    let authority = Files::of(&signing, &[], &[&other, &root, &other])
        .open()
        .unwrap();
    assert_eq!(*authority.root(), root.certificate);
    assert_eq!(authority.roots(), [other.certificate, root.certificate]);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (root, other) = (Ca::named("root"), Ca::named("root"));
    let mut files = Files::of(&root, &[], &[&root, &other]);
    files.key = other.key.serialize_pem();
    let error = files.open().unwrap_err();
    assert!(
        matches!(error, CaFilesError::KeyOfAnother { .. }),
        "{error}"
    );
}

#[test]
fn expired_and_future_certificates_are_refused_wherever_they_are() {
    let now = SystemTime::now();
    let expired = |params: &mut CertificateParams| params.not_after = (now - HOUR).into();
    let future = |params: &mut CertificateParams| params.not_before = (now + HOUR).into();
    for change in [&expired as &dyn Fn(&mut CertificateParams), &future] {
        let is_time = |flaw: &CaCertificateFlaw| {
            matches!(
                flaw,
                CaCertificateFlaw::Expired(_) | CaCertificateFlaw::NotYetValid(_)
            )
        };
        let (root, upper) = intermediate(change);
        let (flaw, subject) = flaw_of(&Files::of(&upper, &[], &[&root]));
        assert!(is_time(&flaw) && subject == "CN=intermediate", "{flaw}");
        let lower = upper.signs(&Ca::params("lower"));
        let (flaw, subject) = flaw_of(&Files::of(&lower, &[&upper], &[&root]));
        assert!(is_time(&flaw) && subject == "CN=intermediate", "{flaw}");
        let mut params = Ca::params("root");
        change(&mut params);
        let root = Ca::root(&params, KeyPair::generate().unwrap());
        let below = root.signs(&Ca::params("below"));
        for signing in [&root, &below] {
            let (flaw, subject) = flaw_of(&Files::of(signing, &[], &[&root]));
            assert!(is_time(&flaw) && subject == "CN=root", "{flaw}");
        }
    }
}

#[test]
fn other_roots_are_trusted_before_they_are_valid_and_not_after_they_expired() {
    let now = SystemTime::now();
    let [mut old, mut new] = [Ca::params("old"), Ca::params("new")];
    old.not_after = (now - HOUR).into();
    new.not_before = (now + HOUR).into();
    let [old, new] = [old, new].map(|params| Ca::root(&params, KeyPair::generate().unwrap()));
    let own = Ca::named("own");
    let authority = Files::of(&own, &[], &[&old, &own, &new]).open().unwrap();
    assert_eq!(authority.roots(), [own.certificate, new.certificate]);
}

#[test]
fn a_certificate_that_may_not_sign_is_refused() {
    let no_ca = |params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa;
    let no_constraint = |params: &mut CertificateParams| params.is_ca = IsCa::NoCa;
    let no_cert_sign = |params: &mut CertificateParams| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    };
    for (change, expected) in [
        (
            &no_ca as &dyn Fn(&mut CertificateParams),
            CaCertificateFlaw::NoCa,
        ),
        (&no_constraint, CaCertificateFlaw::NoCa),
        (&no_cert_sign, CaCertificateFlaw::NoCertSign),
    ] {
        let (root, upper) = intermediate(change);
        assert_eq!(flaw_of(&Files::of(&upper, &[], &[&root])).0, expected);
        let lower = upper.signs(&Ca::params("lower"));
        assert_eq!(flaw_of(&Files::of(&lower, &[&upper], &[&root])).0, expected);
        let mut params = Ca::params("root");
        change(&mut params);
        let root = Ca::root(&params, KeyPair::generate().unwrap());
        assert_eq!(flaw_of(&Files::of(&root, &[], &[&root])).0, expected);
    }
}

#[test]
fn a_path_longer_than_an_authority_allows_is_refused() {
    let short = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    };
    let expected = CaCertificateFlaw::PathLength {
        allowed: 0,
        below: 1,
    };
    let (root, upper) = intermediate(short);
    Files::of(&upper, &[], &[&root]).open().unwrap();
    let lower = upper.signs(&Ca::params("lower"));
    let files = Files::of(&lower, &[&upper], &[&root]);
    assert_eq!(flaw_of(&files).0, expected);
    let mut params = Ca::params("root");
    short(&mut params);
    let root = Ca::root(&params, KeyPair::generate().unwrap());
    Files::of(&root, &[], &[&root]).open().unwrap();
    let below = root.signs(&Ca::params("below"));
    assert_eq!(flaw_of(&Files::of(&below, &[], &[&root])).0, expected);
}

#[test]
fn an_authority_of_another_trust_domain_is_refused() {
    for own in [uri("spiffe://cluster.local"), Vec::new()] {
        let (root, signing) = intermediate(|params| params.subject_alt_names = own);
        Files::of(&signing, &[], &[&root]).open().unwrap();
    }
    for foreign in [
        uri("spiffe://other.example"),
        uri("spiffe://cluster.local/ns/web/sa/frontend"),
        uri("https://cluster.local"),
        [uri("spiffe://cluster.local"), uri("spiffe://other.example")].concat(),
    ] {
        let (root, signing) = intermediate(|params| params.subject_alt_names = foreign.clone());
        let (flaw, _) = flaw_of(&Files::of(&signing, &[], &[&root]));
        assert!(
            matches!(flaw, CaCertificateFlaw::TrustDomain { .. }),
            "{flaw}"
        );
    }
}

#[test]
fn a_ca_whose_certificates_peers_would_refuse_is_refused() {
    let (root, signing) = intermediate(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    });
    let error = Files::of(&signing, &[], &[&root]).open().unwrap_err();
    assert!(matches!(error, CaFilesError::Refused { .. }), "{error}");
}

#[test]
fn files_with_wrong_contents_are_refused() {
    let (root, signing) = intermediate(|_| {});
    let good = || Files::of(&signing, &[], &[&root]);
    let cut = |text: &str| text[..text.len() / 2].to_owned();
    let broken = |change: &dyn Fn(&mut Files)| {
        let mut files = good();
        change(&mut files);
        files.open().unwrap_err()
    };
    for (what, change) in [
        (
            "two certificates",
            &(|files: &mut Files| files.certificate = pem(&[&signing, &root]))
                as &dyn Fn(&mut Files),
        ),
        ("no certificate", &|files| files.certificate.clear()),
        ("half a certificate", &|files| {
            files.certificate = cut(&files.certificate);
        }),
        ("a key as certificate", &|files| {
            files.certificate.clone_from(&files.key);
        }),
        ("no key", &|files| files.key.clear()),
        ("half a key", &|files| files.key = cut(&files.key)),
        ("two keys", &|files| files.key = files.key.repeat(2)),
        ("an encrypted key", &|files| {
            files.key = files.key.replace("PRIVATE", "ENCRYPTED PRIVATE")
        }),
        ("half a chain", &|files| {
            files.chain = Some(cut(&files.roots))
        }),
        ("no root", &|files| files.roots.clear()),
        ("half a root", &|files| files.roots = cut(&files.roots)),
    ] {
        let error = broken(change);
        assert!(
            matches!(error, CaFilesError::Invalid { .. }),
            "{what}: {error}"
        );
    }
    let (flaw, _) = flaw_of(&Files::of(&signing, &[], &[&root, &signing]));
    assert_eq!(flaw, CaCertificateFlaw::NotSelfIssued("CN=root".to_owned()));
}

#[test]
fn each_file_except_the_chain_is_required() {
    for name in ["ca-cert.pem", "ca-key.pem", "root-cert.pem"] {
        let directory = tempfile::tempdir().unwrap();
        let root = Ca::named("root");
        Files::of(&root, &[], &[&root]).write(directory.path());
        std::fs::remove_file(directory.path().join(name)).unwrap();
        let error = CertificateAuthority::open(directory.path(), &domain()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}
