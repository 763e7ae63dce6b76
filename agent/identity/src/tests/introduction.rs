use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::ca::{TestCa, ready};
use super::{HOUR, Root, eventually, identity, trust};
use crate::introduction::{IntroductionError, introduce};
use crate::issued::{IssueRequest, IssuedCertificate, check_issued};
use crate::managed::ManagedCertificate;
use crate::roots::{MeshTrust, TrustAnchors};

/// A workload's certificate as its issuer's root accepts it, used by a node that has these roots.
fn held(
    account: &str,
    issuer: &Root,
    issued: IssuedCertificate,
    roots: &MeshTrust,
) -> ManagedCertificate {
    let (own, now) = (identity(account), SystemTime::now());
    let question = IssueRequest {
        identity: &own,
        lifetime: HOUR,
        now,
    };
    let verification = roots_of(&[issuer]).verification().unwrap();
    let checked = check_issued(issued, &question, &verification.verifier).unwrap();
    let held = ManagedCertificate::new(own);
    held.install(checked, roots, now).unwrap();
    held
}

fn roots_of(roots: &[&Root]) -> MeshTrust {
    let roots: Vec<CertificateDer<'static>> =
        roots.iter().map(|root| root.certificate.clone()).collect();
    let (_, anchors) = watch::channel(Arc::new(TrustAnchors::new(roots)));
    MeshTrust::new(anchors, trust(&[]))
}

fn signed(root: &Root, account: &str, lifetime: Duration) -> IssuedCertificate {
    let now = SystemTime::now();
    root.sign(&[&identity(account).spiffe_id()], [now, now + lifetime])
}

#[test]
fn workloads_meet_while_both_certificates_are_valid() {
    let root = Root::make();
    let roots = roots_of(&[&root]);
    let web = held("web", &root, signed(&root, "web", HOUR), &roots);
    let brief = held("db", &root, signed(&root, "db", HOUR / 2), &roots);
    let now = SystemTime::now();
    introduce(&web, &brief, now).unwrap();
    introduce(&brief, &web, now).unwrap();
    let later = now + HOUR.mul_f64(0.7);
    for (client, server) in [(&web, &brief), (&brief, &web)] {
        let error = introduce(client, server, later).unwrap_err();
        assert!(
            matches!(error, IntroductionError::Unavailable(_)),
            "{error}"
        );
        assert!(error.to_string().contains("sa/db"), "{error}");
    }
    introduce(&web, &web, later).unwrap();
}

#[test]
fn a_certificate_that_the_others_roots_do_not_accept_is_refused_on_either_side() {
    let (old, new) = (Root::make(), Root::make());
    let web = held(
        "web",
        &old,
        signed(&old, "web", HOUR),
        &roots_of(&[&old, &new]),
    );
    // It has the new roots already, and web's certificate is from before.
    let db = held("db", &new, signed(&new, "db", HOUR), &roots_of(&[&new]));
    let now = SystemTime::now();
    for (client, server) in [(&web, &db), (&db, &web)] {
        for _ in 0..2 {
            let error = introduce(client, server, now).unwrap_err();
            assert!(
                matches!(error, IntroductionError::NotAccepted { .. }),
                "{error}"
            );
            assert!(
                error.to_string().contains("sa/web is not accepted"),
                "{error}"
            );
        }
    }
}

#[test]
fn a_chain_is_refused_when_its_intermediate_has_expired() {
    let root = Root::make();
    let now = SystemTime::now();
    let uri = identity("web").spiffe_id();
    let leaf = rcgen::KeyPair::generate().unwrap();
    let issued = through(&root, [now, now + HOUR / 2], &uri, [now, now + HOUR], &leaf);
    let roots = roots_of(&[&root]);
    let web = held("web", &root, issued, &roots);
    let db = held("db", &root, signed(&root, "db", HOUR), &roots);
    for (client, server) in [(&web, &db), (&db, &web)] {
        introduce(client, server, now).unwrap();
        let error = introduce(client, server, now + HOUR.mul_f64(0.7)).unwrap_err();
        assert!(
            matches!(error, IntroductionError::NotAccepted { .. }),
            "{error}"
        );
    }
}

/// A leaf with its intermediate CA.
fn through(
    root: &Root,
    middle: [SystemTime; 2],
    uri: &str,
    validity: [SystemTime; 2],
    key: &rcgen::KeyPair,
) -> IssuedCertificate {
    let own = rcgen::KeyPair::generate().unwrap();
    let mut between = rcgen::CertificateParams::default();
    [between.not_before, between.not_after] = middle.map(Into::into);
    between.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = between.signed_by(&own, &root.issuer).unwrap();
    let issuer = rcgen::Issuer::new(between, own);
    let leaf = super::params(&[uri], validity)
        .signed_by(key, &issuer)
        .unwrap();
    IssuedCertificate {
        chain: vec![leaf.der().clone(), certificate.der().clone()],
        key: super::private(key),
    }
}

#[tokio::test]
async fn certificates_of_a_removed_root_introduce_no_one() {
    let ca = TestCa::make();
    let identities = ca.identities(HOUR);
    let (web, db) = (
        identities.hold(&identity("web")),
        identities.hold(&identity("db")),
    );
    ready(&web).await;
    ready(&db).await;
    web.ensure_introduced(&db).unwrap();
    let (old, new) = (ca.root(), Arc::new(Root::make()));
    ca.publish(&[&old, &new]);
    web.ensure_introduced(&db).unwrap();
    // No new certificates for now.
    ca.fails.store(true, std::sync::atomic::Ordering::SeqCst);
    ca.publish(&[&new]);
    eventually("a refusal", || web.ensure_introduced(&db).is_err()).await;
    let error = web.ensure_introduced(&db).unwrap_err();
    assert!(
        matches!(error, IntroductionError::NotAccepted { .. }),
        "{error}"
    );
    ca.sign_with(new);
    ca.fails.store(false, std::sync::atomic::Ordering::SeqCst);
    eventually("new certificates", || web.ensure_introduced(&db).is_ok()).await;
}
