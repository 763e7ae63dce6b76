//! A CA on loopback that gives the answers a test wants, in HTTP/2 frames of its own making.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use rcgen::{CertificateParams, CertificateSigningRequestParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::tests::{HOUR, Root, current, params};
use crate::tls::crypto_provider;
use ambit_ca_protocol::{CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse};

/// What the server answers.
#[derive(Clone)]
pub(super) enum Reply {
    /// A certificate for the requested identity, signed by this root, with these roots.
    Certificate { signer: Arc<Root>, roots: String },
    /// A certificate for another identity.
    For(Arc<Root>, &'static str),
    /// An expired certificate.
    Expired(Arc<Root>),
    /// A certificate for another key.
    OtherKey(Arc<Root>),
    /// Exactly these elements.
    Elements(Vec<String>),
    /// A gRPC status with a message.
    Status(u16, &'static str),
    /// An answer of this many bytes.
    Endless(usize),
    /// No answer.
    Silence,
}

/// The server, and what it has received.
pub(super) struct CaServer {
    pub(super) address: SocketAddr,
    seen: Arc<Seen>,
}

struct Seen {
    reply: Mutex<Reply>,
    requests: Mutex<Vec<SeenRequest>>,
    connections: Mutex<usize>,
}

/// The headers of a request, and its message.
pub(super) type SeenRequest = (HeaderMap, CertificateRequest);

impl CaServer {
    /// Starts a server with a certificate for `name`, signed by `root`.
    pub(super) async fn start(root: &Root, name: &str, reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            reply: Mutex::new(reply),
            requests: Mutex::default(),
            connections: Mutex::default(),
        });
        let acceptor = TlsAcceptor::from(Arc::new(server_config(root, name)));
        tokio::spawn(accept(listener, acceptor, Arc::clone(&seen)));
        Self { address, seen }
    }

    pub(super) fn reply(&self, reply: Reply) {
        *self.seen.reply.lock().unwrap() = reply;
    }

    pub(super) fn requests(&self) -> Vec<SeenRequest> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// How many TCP connections were accepted.
    pub(super) fn connections(&self) -> usize {
        *self.seen.connections.lock().unwrap()
    }
}

fn server_config(root: &Root, name: &str) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let mut own = CertificateParams::new([name.to_owned()]).unwrap();
    [own.not_before, own.not_after] = current().map(Into::into);
    let chain = CertificateDer::from_pem_slice(root.certify(&own, &key).as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![chain],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, seen: Arc<Seen>) {
    while let Ok((stream, _)) = listener.accept().await {
        *seen.connections.lock().unwrap() += 1;
        tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&seen)));
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, seen: Arc<Seen>) {
    // A client that does not trust this server closes the connection.
    let Ok(tls) = acceptor.accept(stream).await else {
        return;
    };
    let Ok(mut connection) = h2::server::handshake(tls).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(handle(request, respond, Arc::clone(&seen)));
    }
}

async fn handle(request: Request<RecvStream>, respond: SendResponse<Bytes>, seen: Arc<Seen>) {
    assert_eq!(request.uri().path(), CREATE_CERTIFICATE_PATH);
    let (head, body) = request.into_parts();
    let message = read(body).await;
    let reply = seen.reply.lock().unwrap().clone();
    seen.requests
        .lock()
        .unwrap()
        .push((head.headers, message.clone()));
    match reply {
        Reply::Silence => {
            let _held = respond;
            std::future::pending().await
        }
        Reply::Status(code, text) => refuse(respond, code, text),
        Reply::Endless(bytes) => send(respond, vec!["x".repeat(bytes)]),
        Reply::Elements(elements) => send(respond, elements),
        Reply::Certificate { signer, roots } => {
            let leaf = sign(&signer, &asked_for(&message), &message.csr, HOUR);
            send(respond, vec![leaf, roots]);
        }
        Reply::For(signer, other) => {
            let leaf = sign(&signer, other, &message.csr, HOUR);
            send(respond, vec![leaf, signer.pem.clone()]);
        }
        Reply::Expired(signer) => {
            let request = CertificateSigningRequestParams::from_pem(&message.csr).unwrap();
            let [long_ago, _] = current();
            let old = params(&[&asked_for(&message)], [long_ago - HOUR, long_ago]);
            let leaf = signer.certify(&old, &request.public_key);
            send(respond, vec![leaf, signer.pem.clone()]);
        }
        Reply::OtherKey(signer) => {
            let params = params(&[&asked_for(&message)], current());
            let leaf = signer.certify(&params, &KeyPair::generate().unwrap());
            send(respond, vec![leaf, signer.pem.clone()]);
        }
    }
}

fn sign(signer: &Root, uri: &str, csr: &str, lifetime: std::time::Duration) -> String {
    let request = CertificateSigningRequestParams::from_pem(csr).unwrap();
    let now = std::time::SystemTime::now();
    signer.certify(&params(&[uri], [now, now + lifetime]), &request.public_key)
}

/// The identity that a request is for.
pub(super) fn asked_for(message: &CertificateRequest) -> String {
    let fields = &message.metadata.as_ref().unwrap().fields;
    let identity = fields["ImpersonatedIdentity"].string_value.clone();
    identity.unwrap_or_default()
}

async fn read(mut body: RecvStream) -> CertificateRequest {
    let mut frame = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        let _ = body.flow_control().release_capacity(data.len());
        frame.extend_from_slice(&data);
    }
    CertificateRequest::decode(&frame[5..]).unwrap()
}

fn head() -> Response<()> {
    let mut head = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    head.headers_mut().insert("content-type", grpc);
    head
}

fn refuse(mut respond: SendResponse<Bytes>, code: u16, text: &'static str) {
    let mut head = head();
    head.headers_mut().insert("grpc-status", code.into());
    let text = HeaderValue::from_static(text);
    head.headers_mut().insert("grpc-message", text);
    let _ = respond.send_response(head, true);
}

fn send(mut respond: SendResponse<Bytes>, cert_chain: Vec<String>) {
    let message = CertificateResponse { cert_chain }.encode_to_vec();
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(message.len().try_into().unwrap());
    frame.extend_from_slice(&message);
    // The client may have closed the stream already.
    let Ok(mut body) = respond.send_response(head(), false) else {
        return;
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    if body.send_data(frame.freeze(), false).is_ok() {
        let _ = body.send_trailers(trailers);
    }
}
