use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, IsCa, KeyPair, KeyUsagePurpose};

use super::{HOUR, Root, identity, params, private, trust};
use crate::certificate::CLOCK_SKEW;
use crate::issued::IssuedCertificate;
use crate::issued::{CheckedCertificate, IssueRequest, check_issued};
use crate::verify::PeerVerifier;

const WEB: &str = "spiffe://cluster.local/ns/prod/sa/web";

/// Checks an answer to a request for `web` and one hour.
fn judge(root: &Root, answer: IssuedCertificate) -> Result<CheckedCertificate, String> {
    let verifier = PeerVerifier::new(&root.anchors(), trust(&[])).unwrap();
    let web = identity("web");
    let question = IssueRequest {
        identity: &web,
        lifetime: HOUR,
        now: SystemTime::now(),
    };
    check_issued(answer, &question, &verifier).map_err(|error| error.to_string())
}

fn fresh() -> [SystemTime; 2] {
    let now = SystemTime::now();
    [now, now + HOUR]
}

fn changed(root: &Root, change: impl FnOnce(&mut CertificateParams)) -> IssuedCertificate {
    let mut params = params(&[WEB], fresh());
    change(&mut params);
    root.sign_params(params)
}

#[test]
fn an_answer_that_fits_its_request_is_accepted() {
    let root = Root::make();
    let taken = judge(&root, root.sign(&[WEB], fresh())).unwrap();
    assert!(!taken.serial.is_empty());
    assert!(taken.validity.until > SystemTime::now());
}

#[test]
fn each_wrong_answer_is_refused_for_its_own_reason() {
    let root = Root::make();
    let now = SystemTime::now();
    let second = Duration::from_secs(1);
    let of = |uris: &[&str]| root.sign(uris, fresh());
    let at = |from: SystemTime, until: SystemTime| root.sign(&[WEB], [from, until]);
    let mut other_key = of(&[WEB]);
    other_key.key = private(&KeyPair::generate().unwrap());
    let mut nothing = of(&[WEB]);
    nothing.chain.clear();
    let mut garbage = of(&[WEB]);
    garbage.chain = vec![vec![1, 2, 3].into()];
    for (answer, reason) in [
        (nothing, "no certificate"),
        (garbage, "cannot be read"),
        (other_key, "another key"),
        (
            of(&["spiffe://cluster.local/ns/prod/sa/db"]),
            "is for cluster.local/ns/prod/sa/db",
        ),
        (
            of(&["spiffe://other.example/ns/prod/sa/web"]),
            "is for other.example",
        ),
        (
            of(&[WEB, "spiffe://cluster.local/ns/prod/sa/db"]),
            "2 URI names",
        ),
        (of(&[WEB, WEB]), "2 URI names"),
        (of(&[]), "0 URI names"),
        (
            of(&["https://cluster.local/ns/prod/sa/web"]),
            "does not name a workload",
        ),
        (at(now - HOUR, now - second), "expired at"),
        (
            at(now + CLOCK_SKEW + 10 * second, now + HOUR),
            "not valid before",
        ),
        (at(now, now + 30 * second), "only"),
        (at(now, now + 400 * 24 * HOUR), "were requested"),
        (Root::make().sign(&[WEB], fresh()), "mesh's roots"),
        (
            changed(&root, |params| {
                params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)
            }),
            "a CA's own",
        ),
        (
            changed(&root, |params| {
                params.key_usages = vec![KeyUsagePurpose::KeyAgreement]
            }),
            "digitalSignature",
        ),
        (
            changed(&root, |params| {
                params.key_usages.push(KeyUsagePurpose::CrlSign)
            }),
            "sign for a CA",
        ),
        (
            changed(&root, |params| params.extended_key_usages.truncate(1)),
            "mesh's roots",
        ),
    ] {
        let error = judge(&root, answer).unwrap_err();
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn a_ca_may_be_slightly_ahead_and_issue_one_lifetime_only() {
    let root = Root::make();
    let now = SystemTime::now();
    let second = Duration::from_secs(1);
    for [from, until] in [
        [now + CLOCK_SKEW - 10 * second, now + HOUR],
        [now, now + 2 * Duration::from_secs(60)],
        [now, now + 24 * HOUR],
    ] {
        judge(&root, root.sign(&[WEB], [from, until])).unwrap();
    }
}
