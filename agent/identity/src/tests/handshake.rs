use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, version};

use super::exchange::meet;
use super::{HOUR, Root, current, params, trust};
use crate::CLOCK_SKEW;
use crate::issued::IssuedCertificate;
use crate::tls::TlsConfigs;
use crate::verify::PeerVerifier;

const WEB: &str = "spiffe://cluster.local/ns/prod/sa/web";
const DB: &str = "spiffe://cluster.local/ns/prod/sa/db";

fn verifier(root: &Root) -> Arc<PeerVerifier> {
    Arc::new(PeerVerifier::new(&root.anchors(), trust(&["old.example"])).unwrap())
}

fn configs(root: &Root, own: &IssuedCertificate) -> TlsConfigs {
    TlsConfigs::new(own, &verifier(root)).unwrap()
}

#[tokio::test]
async fn both_sides_prove_who_they_are() {
    let root = Root::make();
    let (web, db) = (
        configs(&root, &root.sign(&[WEB], current())),
        configs(&root, &root.sign(&[DB], current())),
    );
    let met = meet(web.client, db.server).await.unwrap();
    assert_eq!(met.client.spiffe_id(), WEB);
    assert_eq!(met.server.spiffe_id(), DB);
}

#[tokio::test]
async fn no_session_is_resumed() {
    let root = Root::make();
    let web = configs(&root, &root.sign(&[WEB], current()));
    for _ in 0..2 {
        let (client, server) = (Arc::clone(&web.client), Arc::clone(&web.server));
        let met = meet(client, server).await.unwrap();
        assert_eq!((met.kind, met.tickets), (HandshakeKind::Full, 0));
    }
}

#[tokio::test]
async fn an_alias_of_the_trust_domain_is_accepted_and_another_is_not() {
    let root = Root::make();
    let own = configs(&root, &root.sign(&[WEB], current()));
    let of = |uri: &str| configs(&root, &root.sign(&[uri], current()));
    let alias = of("spiffe://old.example/ns/prod/sa/web");
    meet(alias.client, Arc::clone(&own.server)).await.unwrap();
    meet(Arc::clone(&own.client), alias.server).await.unwrap();
    let foreign = of("spiffe://foreign.example/ns/prod/sa/web");
    let error = meet(foreign.client, own.server).await.unwrap_err();
    assert!(error.to_string().contains("trust domain"), "{error}");
    meet(own.client, foreign.server).await.unwrap_err();
}

/// Checks that a peer with this certificate is refused as client and as server, with `word` in the
/// reason.
async fn ensure_refused(root: &Root, peer: IssuedCertificate, word: &str) {
    let own = configs(root, &root.sign(&[DB], current()));
    let peer = configs(root, &peer);
    for (client, server) in [(peer.client, own.server), (own.client, peer.server)] {
        let error = meet(client, server).await.unwrap_err();
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_a_workloads_is_refused() {
    let root = Root::make();
    for uri in [
        "spiffe://cluster.local/ns/prod/sa/web/extra",
        "spiffe://cluster.local/ns/prod/sa",
        "spiffe://cluster.local/ns/prod/sa/",
        "spiffe://cluster.local/ns//sa/web",
        "spiffe://cluster.local/ns/prod/sa/web/",
        "spiffe://cluster.local/sa/web/ns/prod",
        "spiffe://cluster.local/ns/pr%6fd/sa/web",
        "spiffe://cluster.local/ns/prod/sa/web?x=1",
        "spiffe://cluster.local/ns/prod/sa/web#x",
        "spiffe://cluster.local/ns/../sa/web",
        "spiffe://cluster.local:443/ns/prod/sa/web",
        "spiffe://user@cluster.local/ns/prod/sa/web",
        "spiffe:///ns/prod/sa/web",
        "SPIFFE://cluster.local/ns/prod/sa/web",
        "spiffe://CLUSTER.local/ns/prod/sa/web",
        "spiffe://cluster.local/ns/prod/sa/web\n",
        "spiffe://cluster.local/ns/prod/sa/we\0b",
        "https://cluster.local/ns/prod/sa/web",
        "cluster.local/ns/prod/sa/web",
        "",
    ] {
        let peer = root.sign(&[uri], current());
        ensure_refused(&root, peer, "does not name a workload").await;
    }
}

#[tokio::test]
async fn anything_but_one_uri_name_is_refused() {
    let root = Root::make();
    let two = root.sign(&[WEB, DB], current());
    ensure_refused(&root, two, "2 URI names").await;
    let twice = root.sign(&[WEB, WEB], current());
    ensure_refused(&root, twice, "2 URI names").await;
    let dns = vec![SanType::DnsName("web.prod.svc".try_into().unwrap())];
    let mut nameless = params(&[], current());
    nameless.subject_alt_names = dns;
    ensure_refused(&root, root.sign_params(nameless), "0 URI names").await;
    ensure_refused(&root, root.sign(&[], current()), "0 URI names").await;
}

#[tokio::test]
async fn a_certificate_that_is_not_valid_now_or_of_another_root_is_refused() {
    let root = Root::make();
    let now = SystemTime::now();
    let expired = root.sign(&[WEB], [now - 2 * HOUR, now - HOUR]);
    ensure_refused(&root, expired, "expired").await;
    let future = root.sign(&[WEB], [now + HOUR, now + 2 * HOUR]);
    ensure_refused(&root, future, "not valid yet").await;
    let stranger = Root::make().sign(&[WEB], current());
    ensure_refused(&root, stranger, "certificate").await;
}

#[tokio::test]
async fn a_certificate_for_other_usages_is_refused() {
    let root = Root::make();
    let of = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = params(&[WEB], current());
        change(&mut params);
        root.sign_params(params)
    };
    let unsigned = of(&|params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    ensure_refused(&root, unsigned, "digitalSignature").await;
    ensure_refused(
        &root,
        of(&|params| params.key_usages.clear()),
        "digitalSignature",
    )
    .await;
    let signs = of(&|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign));
    ensure_refused(&root, signs, "sign for a CA").await;
    let ca = of(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    ensure_refused(&root, ca, "CaUsedAsEndEntity").await;
    let mail = of(&|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    });
    ensure_refused(&root, mail, "certificate").await;
}

#[tokio::test]
async fn a_certificate_is_accepted_only_in_a_role_it_is_for() {
    let root = Root::make();
    let own = configs(&root, &root.sign(&[DB], current()));
    let only = |purpose: ExtendedKeyUsagePurpose| {
        let mut params = params(&[WEB], current());
        params.extended_key_usages = vec![purpose];
        configs(&root, &root.sign_params(params))
    };
    let client = only(ExtendedKeyUsagePurpose::ClientAuth);
    let server = only(ExtendedKeyUsagePurpose::ServerAuth);
    let as_client = |peer: &TlsConfigs| meet(Arc::clone(&peer.client), Arc::clone(&own.server));
    let as_server = |peer: &TlsConfigs| meet(Arc::clone(&own.client), Arc::clone(&peer.server));
    as_client(&client).await.unwrap();
    as_server(&server).await.unwrap();
    as_client(&server).await.unwrap_err();
    as_server(&client).await.unwrap_err();
}

#[tokio::test]
async fn clock_skew_is_tolerated_before_the_start_and_not_after_the_end() {
    let root = Root::make();
    let own = configs(&root, &root.sign(&[DB], current()));
    let second = Duration::from_secs(1);
    // Times are rounded down to whole seconds, and the test takes a few.
    let slack = 10 * second;
    let now = SystemTime::now();
    let ahead = root.sign(&[WEB], [now + CLOCK_SKEW - slack, now + HOUR]);
    let ahead = configs(&root, &ahead);
    meet(ahead.client, Arc::clone(&own.server)).await.unwrap();
    meet(own.client, ahead.server).await.unwrap();
    let too_far = root.sign(&[WEB], [now + CLOCK_SKEW + slack, now + HOUR]);
    ensure_refused(&root, too_far, "not valid yet").await;
    let just_expired = root.sign(&[WEB], [now - HOUR, now - second]);
    ensure_refused(&root, just_expired, "expired").await;
    // The tolerance does not extend a certificate past its end.
    let over = root.sign(&[WEB], [now + slack, now + slack / 2]);
    ensure_refused(&root, over, "certificate").await;
}

#[tokio::test]
async fn clock_skew_is_tolerated_for_an_issuers_certificate_too() {
    let verified = |skew: Duration| {
        let root = Root::make();
        let now = SystemTime::now();
        let (middle, leaf) = root.sign_through([now + skew, now + HOUR], &[WEB], current());
        let result = verifier(&root).as_server(
            &leaf,
            std::slice::from_ref(&middle),
            rustls::pki_types::UnixTime::now(),
        );
        result.is_ok()
    };
    assert!(verified(CLOCK_SKEW / 2));
    assert!(!verified(CLOCK_SKEW * 2));
}

/// The cryptography of a side that does not support the post-quantum key exchange.
fn classical() -> Arc<CryptoProvider> {
    let groups: [&dyn SupportedKxGroup; 1] = [kx_group::X25519];
    Arc::new(CryptoProvider {
        kx_groups: groups.to_vec(),
        ..aws_lc_rs::default_provider()
    })
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum_if_both_sides_support_it() {
    let root = Root::make();
    let own = configs(&root, &root.sign(&[DB], current()));
    let (client, server) = (Arc::clone(&own.client), Arc::clone(&own.server));
    let met = meet(client, server).await.unwrap();
    assert_eq!(met.group, NamedGroup::X25519MLKEM768);

    let peer = root.sign(&[WEB], current());
    let builder = ClientConfig::builder_with_provider(classical());
    let old = builder
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier(&root))
        .with_client_auth_cert(peer.chain, peer.key)
        .unwrap();
    let met = meet(Arc::new(old), own.server).await.unwrap();
    assert_eq!(met.group, NamedGroup::X25519);

    let peer = root.sign(&[WEB], current());
    let builder = rustls::ServerConfig::builder_with_provider(classical());
    let old = builder
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier(&root))
        .with_single_cert(peer.chain, peer.key)
        .unwrap();
    let met = meet(own.client, Arc::new(old)).await.unwrap();
    assert_eq!(met.group, NamedGroup::X25519);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let root = Root::make();
    let own = configs(&root, &root.sign(&[DB], current()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.certificate.clone()).unwrap();
    let nameless = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let error = meet(Arc::new(nameless), own.server).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
}
