use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::SanType;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, ServerConfig, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{HOUR, Root, current};
use crate::identity::provider::IssuedCertificate;
use crate::identity::tls::TlsConfigs;
use crate::identity::{TrustPolicy, explain_handshake, peer_identity};
use crate::model::{TrustDomain, WorkloadIdentity};

const WEB: &str = "spiffe://cluster.local/ns/prod/sa/web";
const DB: &str = "spiffe://cluster.local/ns/prod/sa/db";

fn trust(aliases: &[&str]) -> TrustPolicy {
    let domain = |name: &str| TrustDomain::new(name).unwrap();
    TrustPolicy {
        trust_domain: domain("cluster.local"),
        aliases: aliases.iter().map(|name| domain(name)).collect(),
    }
}

fn configs(root: &Root, own: &IssuedCertificate) -> TlsConfigs {
    TlsConfigs::new(own, vec![root.certificate.clone()], trust(&["old.example"])).unwrap()
}

/// What both sides know of each other after a handshake and a byte each way.
#[derive(Debug)]
struct Met {
    client: WorkloadIdentity,
    server: WorkloadIdentity,
    kind: HandshakeKind,
}

async fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> io::Result<Met> {
    let (near, far) = duplex(64 * 1024);
    let accept = async {
        let mut tls = TlsAcceptor::from(server)
            .accept(far)
            .await
            .map_err(explain_handshake)?;
        tls.write_all(b"x").await?;
        tls.read_u8().await?;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        peer_identity(chain).map_err(io::Error::other)
    };
    let connect = async {
        let name = ServerName::try_from("mesh.invalid").map_err(io::Error::other)?;
        let mut tls = TlsConnector::from(client)
            .connect(name, near)
            .await
            .map_err(explain_handshake)?;
        tls.read_u8().await?;
        tls.write_all(b"x").await?;
        let session = tls.get_ref().1;
        let identity = peer_identity(session.peer_certificates().unwrap_or_default());
        let kind = session.handshake_kind().ok_or(io::ErrorKind::Other)?;
        io::Result::Ok((identity.map_err(io::Error::other)?, kind))
    };
    let (client, met) = tokio::join!(accept, connect);
    let (client, (server, kind)) = match (client, met) {
        (Ok(client), Ok(met)) => (client, met),
        // One side refused, and the other was told: "received fatal alert".
        (Err(why), Err(told)) if told.to_string().contains("alert") => return Err(why),
        (_, Err(why)) | (Err(why), _) => return Err(why),
    };
    Ok(Met {
        client,
        server,
        kind,
    })
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
        assert_eq!(met.kind, HandshakeKind::Full);
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

/// Whoever presents `peer` is refused as client and as server, for a reason that has `word` in it.
async fn ensure_refused(root: &Root, peer: IssuedCertificate, word: &str) {
    let own = configs(root, &root.sign(&[DB], current()));
    let peer = configs(root, &peer);
    for (client, server) in [(peer.client, own.server), (own.client, peer.server)] {
        let error = meet(client, server).await.unwrap_err();
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[tokio::test]
async fn a_name_that_is_no_workload_is_refused() {
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
        "spiffe://cluster.local/ns/prod/sa/we\0b",
        "https://cluster.local/ns/prod/sa/web",
        "cluster.local/ns/prod/sa/web",
        "",
    ] {
        let peer = root.sign(&[uri], current());
        ensure_refused(&root, peer, "names no workload").await;
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
    ensure_refused(&root, root.sign_names(dns, current()), "0 URI names").await;
    ensure_refused(&root, root.sign(&[], current()), "0 URI names").await;
}

#[tokio::test]
async fn a_certificate_out_of_its_time_or_of_another_root_is_refused() {
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
