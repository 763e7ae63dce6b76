//! Fetches from servers on loopback.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, CertifiedKey, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;

use super::published_at;
use crate::cache::fetch::MAX_DOCUMENT;
use crate::testing::{TestIssuer, in_one_namespace, rule};
use crate::unverified::TokenHeader;
use crate::{
    Fetch, FetchError, FetchTurn, FetchableAddresses, HttpFetcher, KeyCache, RequestToAuthenticate,
    authenticate,
};
use ambit_datapath::is_local;
use ambit_policy::{Algorithm, HttpUrl, JwtRule, KeySource, KeyUrl};

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// Answers requests by their path.
type Serve = fn(&Request<Incoming>) -> Answer;

fn full(text: impl Into<Bytes>) -> Answer {
    Response::new(Full::new(text.into()).boxed())
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, serve: Serve, count: &AtomicUsize) {
    let service = service_fn(|request| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok::<_, Infallible>(serve(&request)))
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

/// A server without TLS, and the number of requests that it has received.
async fn server(answer: Serve) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream, answer, &counted).await;
        }
    });
    (address, count)
}

/// A server that reads a request, writes these bytes and closes.
async fn raw_server(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(bytes).await;
        }
    });
    address
}

fn fetcher() -> HttpFetcher {
    HttpFetcher::new(FetchableAddresses::Any, None).expect("a fetcher")
}

async fn fetch(address: SocketAddr, path: &str) -> Result<Bytes, FetchError> {
    let url = HttpUrl::parse(&format!("http://{address}{path}")).expect("a URL");
    fetcher().fetch(&url, &FetchTurn::free()).await
}

fn endless() -> Answer {
    let chunk = || Ok(Frame::data(Bytes::from_static(&[b' '; 64 * 1024])));
    let chunks = futures_util::stream::repeat_with(chunk);
    Response::new(StreamBody::new(chunks).boxed())
}

fn answer(request: &Request<Incoming>) -> Answer {
    let mut response = full("{}");
    match request.uri().path() {
        "/headers" => {
            let host = &request.headers()[header::HOST];
            return full(format!(
                "{} {}",
                host.to_str().expect("text"),
                request.uri()
            ));
        }
        "/largest" => return full(vec![b' '; MAX_DOCUMENT]),
        "/larger" => return full(vec![b' '; MAX_DOCUMENT + 1]),
        "/endless" => return endless(),
        "/moved" => {
            let target = header::HeaderValue::from_static("/");
            response.headers_mut().insert(header::LOCATION, target);
            *response.status_mut() = StatusCode::FOUND;
        }
        "/fails" => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        "/empty" => *response.status_mut() = StatusCode::NO_CONTENT,
        _ => {}
    }
    response
}

#[tokio::test]
async fn a_document_is_fetched() {
    let (address, count) = server(answer).await;
    assert_eq!(fetch(address, "/").await.expect("a document"), "{}");
    let headers = fetch(address, "/headers?a=b").await.expect("a document");
    assert_eq!(headers, format!("{address} /headers?a=b"));
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn other_answers_than_200_are_refused_and_redirects_are_not_followed() {
    let (address, count) = server(answer).await;
    let moved = fetch(address, "/moved").await;
    assert!(
        matches!(moved, Err(FetchError::Redirect(StatusCode::FOUND))),
        "{moved:?}"
    );
    assert_eq!(count.load(Ordering::SeqCst), 1);
    for (path, status) in [("/fails", 500), ("/empty", 204)] {
        let failed = fetch(address, path).await;
        assert!(
            matches!(failed, Err(FetchError::Status(got)) if got == status),
            "{failed:?}"
        );
    }
}

#[tokio::test]
async fn documents_that_are_too_large_are_refused() {
    let (address, _) = server(answer).await;
    let largest = fetch(address, "/largest").await.expect("a document");
    assert_eq!(largest.len(), MAX_DOCUMENT);
    for path in ["/larger", "/endless"] {
        let error = fetch(address, path).await;
        assert!(matches!(error, Err(FetchError::TooLarge)), "{error:?}");
    }
}

#[tokio::test]
async fn incomplete_answers_and_other_protocols_are_refused() {
    let cut_off = raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\"").await;
    let error = fetch(cut_off, "/").await;
    assert!(matches!(error, Err(FetchError::Body(_))), "{error:?}");
    for bytes in [&b""[..], b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n"] {
        let error = fetch(raw_server(bytes).await, "/").await;
        assert!(matches!(error, Err(FetchError::Http(_))), "{error:?}");
    }
    // The kernel never assigns this port.
    let closed = ([127, 0, 0, 1], 1).into();
    let error = fetch(closed, "/").await;
    assert!(matches!(error, Err(FetchError::Connect(_))), "{error:?}");
}

#[tokio::test]
async fn a_policy_cannot_make_the_node_fetch_from_itself() {
    let (address, count) = server(answer).await;
    let fetcher =
        HttpFetcher::new(FetchableAddresses::Routable(is_local), None).expect("a fetcher");
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let url = HttpUrl::parse(&format!("http://{host}:{}/", address.port())).expect("a URL");
        let error = fetcher.fetch(&url, &FetchTurn::free()).await;
        assert!(matches!(error, Err(FetchError::Unreachable)), "{error:?}");
    }
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn https_is_verified() {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let cert = params.self_signed(&key).expect("a certificate");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(cert.pem().as_bytes()).expect("written");
    let address = tls_server(CertifiedKey {
        cert,
        signing_key: key,
    })
    .await;
    let trusting = HttpFetcher::new(FetchableAddresses::Any, Some(file.path())).expect("a fetcher");
    let url = |host: &str| HttpUrl::parse(&format!("https://{host}:{}/", address.port()));
    let right = url("127.0.0.1").expect("a URL");
    assert_eq!(
        trusting
            .fetch(&right, &FetchTurn::free())
            .await
            .expect("a document"),
        "{}"
    );
    let distrusting = fetcher().fetch(&right, &FetchTurn::free()).await;
    assert!(
        matches!(distrusting, Err(FetchError::Tls(_))),
        "{distrusting:?}"
    );
    let other_name = url("localhost").expect("a URL");
    let other_name = trusting.fetch(&other_name, &FetchTurn::free()).await;
    assert!(
        matches!(other_name, Err(FetchError::Tls(_) | FetchError::Connect(_))),
        "{other_name:?}"
    );
}

async fn tls_server(certified: CertifiedKey<KeyPair>) -> SocketAddr {
    let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let count = AtomicUsize::new(0);
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream, answer, &count).await;
            }
        }
    });
    address
}

#[test]
fn a_ca_file_without_certificates_is_refused() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"not PEM").expect("written");
    for path in [file.path(), "/does/not/exist".as_ref()] {
        let error = HttpFetcher::new(FetchableAddresses::Any, Some(path))
            .err()
            .expect("refused");
        assert!(
            error.to_string().contains(&path.display().to_string()),
            "{error}"
        );
    }
}

/// The issuer of [`answer_keys`].
static ISSUER: std::sync::LazyLock<TestIssuer> = std::sync::LazyLock::new(TestIssuer::ed25519);

fn answer_keys(request: &Request<Incoming>) -> Answer {
    let host = request.headers()[header::HOST].to_str().expect("text");
    match request.uri().path() {
        "/.well-known/openid-configuration" => {
            full(json!({"jwks_uri": format!("http://{host}/keys")}).to_string())
        }
        "/keys" => full(ISSUER.jwks().to_string()),
        _ => answer(request),
    }
}

#[tokio::test]
async fn a_token_is_verified_with_keys_that_were_fetched_or_discovered() {
    let (address, _) = server(answer_keys).await;
    let issuer = format!("http://{address}");
    let configuration = HttpUrl::discovery_of(&issuer).expect("a URL");
    let discovered = KeySource::Published(KeyUrl::Configuration(configuration));
    let cache = KeyCache::new(Handle::current(), Arc::new(fetcher()));
    let token = ISSUER.token(&json!({"iss": issuer}));
    let mut headers = HeaderMap::new();
    let value = format!("Bearer {token}").try_into().expect("a value");
    headers.insert(header::AUTHORIZATION, value);
    let request = RequestToAuthenticate {
        method: &Method::GET,
        target: "/",
        headers: &headers,
    };
    for keys in [discovered, published_at(&format!("{issuer}/keys")).keys] {
        let rules = [JwtRule {
            keys,
            ..rule(&issuer)
        }];
        cache.wanted(in_one_namespace(&rules));
        let verified = authenticate(&rules, &request, &cache, SystemTime::now()).await;
        assert_eq!(
            verified.expect("accepted").expect("a token").token().issuer,
            issuer
        );
    }
    let rules = [JwtRule {
        keys: published_at(&format!("{issuer}/fails")).keys,
        ..rule(&issuer)
    }];
    cache.wanted(in_one_namespace(&rules));
    let refused = authenticate(&rules, &request, &cache, SystemTime::now()).await;
    assert_eq!(
        refused.expect_err("refused").body(),
        "Jwks remote fetch is failed"
    );
}

/// A server that accepts connections and never answers.
async fn silent_server() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    address
}

#[tokio::test]
async fn servers_that_hang_do_not_delay_the_keys_of_others() {
    let (good, _) = server(answer_keys).await;
    let mut rules = Vec::new();
    for namespace in ["hostile", "hostile-too"] {
        for _ in 0..24 {
            let hangs = published_at(&format!("http://{}/keys", silent_server().await));
            rules.push((Arc::<str>::from(namespace), hangs));
        }
    }
    let cache = KeyCache::new(Handle::current(), Arc::new(fetcher()));
    cache.wanted(rules.iter().map(|(namespace, rule)| (namespace, rule)));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let other = (
        Arc::from("other"),
        published_at(&format!("http://{good}/keys")),
    );
    rules.push(other.clone());
    cache.wanted(rules.iter().map(|(namespace, rule)| (namespace, rule)));
    let began = Instant::now();
    let header = TokenHeader {
        algorithm: Algorithm::EdDsa,
        key_id: None,
    };
    let keys = cache.keys_for(&other.1.keys, &header, Duration::from_secs(60));
    let keys = keys.await.expect("keys");
    assert!(keys.has_key_for(&header));
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let cache = KeyCache::new(Handle::current(), Arc::new(fetcher()));
    let rule = published_at(&format!("http://{address}/"));
    cache.wanted(in_one_namespace([&rule]));
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let [problem] = &cache.problems()[..] else {
        panic!("one problem")
    };
    assert!(
        problem.message.contains("no answer within 5s"),
        "{}",
        problem.message
    );
    drop(listener);
}
