use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::{Ca, Files, HOUR, domain, identity};
use crate::{CertificateAuthority, IssueError, MIN_LIFETIME, SignedCertificate, SubjectKey};
use ambit_model::{TrustDomain, WorkloadIdentity};

const MINUTE: Duration = Duration::from_secs(60);

/// An intermediate below a root, with a change to its parameters.
fn authority(change: impl FnOnce(&mut CertificateParams)) -> CertificateAuthority {
    let root = Ca::named("root");
    let mut params = Ca::params("intermediate");
    change(&mut params);
    Files::of(&root.signs(&params), &[], &[&root])
        .open()
        .unwrap()
}

fn key() -> SubjectKey {
    SubjectKey::of(&KeyPair::generate().unwrap())
}

fn leaf(issued: &SignedCertificate) -> X509Certificate<'_> {
    x509_parser::parse_x509_certificate(&issued.chain[0])
        .unwrap()
        .1
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(names.critical);
    let names = names.value.general_names.iter();
    names
        .map(|name| match name {
            GeneralName::URI(uri) => format!("URI:{uri}"),
            GeneralName::DNSName(name) => format!("DNS:{name}"),
            GeneralName::IPAddress(address) => format!("IP:{address:?}"),
            other => panic!("{other}"),
        })
        .collect()
}

#[test]
fn a_workloads_certificate_contains_its_identity_and_nothing_else() {
    let authority = authority(|_| {});
    let key = KeyPair::generate().unwrap();
    let issued = authority
        .issue_workload(&identity(), &SubjectKey::of(&key), HOUR)
        .unwrap();
    assert_eq!(issued.chain.len(), 2);
    assert_eq!(issued.chain[1..], authority.intermediates);
    let leaf = leaf(&issued);
    assert_eq!(
        names(&leaf),
        ["URI:spiffe://cluster.local/ns/web/sa/frontend"]
    );
    assert_eq!(leaf.subject().iter_rdn().count(), 0);
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.flags == 1, "{usage:?}");
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.client_auth && purposes.server_auth && !purposes.any);
    assert!(purposes.other.is_empty());
    let has = |wanted: fn(&ParsedExtension<'_>) -> bool| {
        leaf.iter_extensions()
            .any(|extension| wanted(extension.parsed_extension()))
    };
    assert!(has(|e| matches!(
        e,
        ParsedExtension::SubjectKeyIdentifier(_)
    )));
    assert!(has(|e| matches!(
        e,
        ParsedExtension::AuthorityKeyIdentifier(_)
    )));
    assert_eq!(leaf.iter_extensions().count(), 6);
}

#[test]
fn only_an_rsa_key_may_encipher() {
    let authority = authority(|_| {});
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    for (key, enciphers) in [(key(), false), (SubjectKey::of(&rsa), true)] {
        let issued = authority.issue_workload(&identity(), &key, HOUR).unwrap();
        let leaf = leaf(&issued);
        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature());
        assert_eq!(usage.key_encipherment(), enciphers);
    }
}

#[test]
fn a_servers_certificate_has_its_names_and_serves_only() {
    let authority = authority(|_| {});
    let servers = ["ambit-ca.ambit-system.svc", "127.0.0.1", "::1"]
        .map(|name| ServerName::try_from(name).unwrap());
    let issued = authority.issue_server(&servers, &key(), HOUR).unwrap();
    let leaf = leaf(&issued);
    assert_eq!(
        names(&leaf),
        [
            "DNS:ambit-ca.ambit-system.svc".to_owned(),
            "IP:[127, 0, 0, 1]".to_owned(),
            format!("IP:{:?}", std::net::Ipv6Addr::LOCALHOST.octets()),
        ]
    );
    let purposes = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && !purposes.client_auth);
    let error = authority.issue_server(&[], &key(), HOUR).unwrap_err();
    assert_eq!(error, IssueError::NoName);
}

#[test]
fn serial_numbers_are_random_and_positive() {
    let authority = authority(|_| {});
    let serials: std::collections::BTreeSet<_> = (0..32)
        .map(|_| {
            let issued = authority.issue_workload(&identity(), &key(), HOUR).unwrap();
            let leaf = leaf(&issued);
            let raw = leaf.raw_serial();
            assert!(raw[0] & 0x80 == 0 && raw.len() <= 17, "{raw:?}");
            let told = u128::from_str_radix(&issued.serial, 16).unwrap();
            assert_eq!(leaf.serial.to_string(), told.to_string());
            told
        })
        .collect();
    assert_eq!(serials.len(), 32);
}

#[test]
fn a_certificate_is_backdated_and_never_outlives_the_ca() {
    let now = SystemTime::now();
    let ends = now + 10 * MINUTE;
    let short = authority(|params| params.not_after = ends.into());
    for lifetime in [11 * MINUTE, HOUR, Duration::MAX] {
        let issued = short.issue_workload(&identity(), &key(), lifetime).unwrap();
        assert_eq!(issued.not_after, short.valid_until());
        assert!(issued.not_after <= ends);
        assert!(issued.not_before <= now - MINUTE + MIN_LIFETIME);
    }
    let issued = short.issue_workload(&identity(), &key(), MINUTE).unwrap();
    assert!(issued.not_after <= SystemTime::now() + MINUTE);
    let leaf = leaf(&issued);
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_secs()).unwrap()
    };
    assert_eq!(
        leaf.validity().not_before.timestamp(),
        seconds(issued.not_before)
    );
    assert_eq!(
        leaf.validity().not_after.timestamp(),
        seconds(issued.not_after)
    );
    let young = authority(|params| params.not_before = now.into());
    let issued = young.issue_workload(&identity(), &key(), MINUTE).unwrap();
    assert!(issued.not_before > now - MIN_LIFETIME);
}

#[test]
fn a_lifetime_of_zero_and_a_foreign_identity_are_refused() {
    let authority = authority(|_| {});
    let issue = |identity: &WorkloadIdentity, lifetime| {
        authority.issue_workload(identity, &key(), lifetime)
    };
    issue(&identity(), MIN_LIFETIME).unwrap();
    for lifetime in [Duration::ZERO, Duration::from_millis(999)] {
        let error = issue(&identity(), lifetime).unwrap_err();
        assert_eq!(error, IssueError::Lifetime(lifetime));
    }
    let other = TrustDomain::new("other.example").unwrap();
    let foreign = WorkloadIdentity::new(other, "web", "frontend").unwrap();
    let error = issue(&foreign, HOUR).unwrap_err();
    let own = domain();
    assert_eq!(
        error,
        IssueError::ForeignTrustDomain {
            identity: foreign,
            own
        }
    );
}
