//! `lab-ca ADDRESS NAME DIRECTORY`: an authority by Istio's protocol, with a certificate for NAME. Its
//! answers are wrong as `DIRECTORY/fault` says, and right if that is empty or missing. It writes its
//! root to `DIRECTORY/root.pem`, and prints each request to the standard output.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ambit_tests::CaFault;
use ambit_tests::ca_protocol::{
    CREATE_CERTIFICATE, CertificateRequest, CertificateResponse, IMPERSONATED_IDENTITY, frame,
};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const HOUR: Duration = Duration::from_secs(3600);

/// The identity of a certificate for another workload.
const SOMEBODY_ELSE: &str = "spiffe://cluster.local/ns/else/sa/somebody";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, name, directory] = &arguments[..] else {
        bail!("usage: lab-ca ADDRESS NAME DIRECTORY");
    };
    let authority = Arc::new(Authority::make(directory.into())?);
    let acceptor = TlsAcceptor::from(Arc::new(authority.server_config(name)?));
    fs::write(authority.directory.join("root.pem"), &authority.own.pem)?;
    let listener = TcpListener::bind(address).await?;
    println!("listening");
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, authority) = (acceptor.clone(), Arc::clone(&authority));
        tokio::spawn(async move {
            if let Err(error) = serve(stream, acceptor, authority).await {
                eprintln!("{error:#}");
            }
        });
    }
}

/// A root that signs.
struct Root {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Root {
    fn make() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "lab-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { issuer, pem })
    }
}

struct Authority {
    directory: PathBuf,
    own: Root,
    /// One that nothing else knows.
    other: Root,
}

impl Authority {
    fn make(directory: PathBuf) -> Result<Self> {
        Ok(Self {
            directory,
            own: Root::make()?,
            other: Root::make()?,
        })
    }

    fn server_config(&self, name: &str) -> Result<ServerConfig> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new([name.to_owned()])?;
        let certificate = params.signed_by(&key, &self.own.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn fault(&self) -> Option<CaFault> {
        let word = fs::read_to_string(self.directory.join("fault")).unwrap_or_default();
        CaFault::of(&word)
    }

    /// The chain of an answer, leaf first.
    fn certify(&self, fault: Option<CaFault>, request: &Asked) -> Result<Vec<String>> {
        let now = SystemTime::now();
        let (current, past) = ([now, now + HOUR], [now - 2 * HOUR, now - HOUR]);
        let (own, key) = (&self.own, &request.key);
        let leaf = match fault {
            Some(CaFault::Garbage) => "no certificate".to_owned(),
            Some(CaFault::OtherIdentity) => leaf(own, SOMEBODY_ELSE, current, key)?,
            Some(CaFault::OtherKey) => leaf(own, &request.uri, current, &KeyPair::generate()?)?,
            Some(CaFault::Expired) => leaf(own, &request.uri, past, key)?,
            Some(CaFault::OtherRoot) => leaf(&self.other, &request.uri, current, key)?,
            Some(CaFault::Silence | CaFault::Refusal) | None => {
                leaf(own, &request.uri, current, key)?
            }
        };
        Ok(vec![leaf, own.pem.clone()])
    }
}

fn leaf(
    root: &Root,
    uri: &str,
    [from, until]: [SystemTime; 2],
    key: &impl PublicKeyData,
) -> Result<String> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    [params.not_before, params.not_after] = [from.into(), until.into()];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params.signed_by(key, &root.issuer)?.pem())
}

/// The requested identity, and its key.
struct Asked {
    uri: String,
    key: rcgen::PublicKey,
}

impl Asked {
    async fn read(mut body: RecvStream) -> Result<Self> {
        let mut bytes = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            bytes.extend_from_slice(&data);
        }
        let message = bytes.get(5..).context("no message")?;
        let mut request = CertificateRequest::decode(message)?;
        let mut metadata = request.metadata.take().context("no metadata")?;
        let identity = metadata.fields.remove(IMPERSONATED_IDENTITY);
        let uri = identity
            .and_then(|value| value.text)
            .context("no identity")?;
        let request = CertificateSigningRequestParams::from_pem(&request.csr)?;
        Ok(Self {
            uri,
            key: request.public_key,
        })
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, authority: Arc<Authority>) -> Result<()> {
    let mut connection = h2::server::handshake(acceptor.accept(stream).await?).await?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let authority = Arc::clone(&authority);
        tokio::spawn(async move {
            if let Err(error) = answer(request, respond, &authority).await {
                eprintln!("{error:#}");
            }
        });
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    authority: &Authority,
) -> Result<()> {
    ensure!(request.uri().path() == CREATE_CERTIFICATE);
    let asked = Asked::read(request.into_body()).await?;
    let fault = authority.fault();
    println!("asked for {}, fault {fault:?}", asked.uri);
    let mut head = Response::new(());
    let kind = HeaderValue::from_static("application/grpc");
    head.headers_mut().insert("content-type", kind);
    match fault {
        Some(CaFault::Silence) => std::future::pending().await,
        Some(CaFault::Refusal) => {
            let said = HeaderValue::from_static("request impersonation authentication failure");
            head.headers_mut().insert("grpc-status", 16.into());
            head.headers_mut().insert("grpc-message", said);
            respond.send_response(head, true)?;
        }
        _ => {
            let chain = authority.certify(fault, &asked)?;
            let answer = frame(&CertificateResponse { chain });
            let mut stream = respond.send_response(head, false)?;
            stream.send_data(answer.into(), false)?;
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", 0.into());
            stream.send_trailers(trailers)?;
        }
    }
    Ok(())
}
