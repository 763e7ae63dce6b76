//! A caller's side of the protocol.

use std::net::SocketAddr;
use std::sync::Arc;

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, version};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use ambit_ca_protocol::{
    CREATE_CERTIFICATE_PATH, CertificateRequest, CertificateResponse, IMPERSONATED_IDENTITY, Struct,
};

pub(super) struct Client {
    channel: Channel,
}

/// A call that a test makes.
#[derive(Clone)]
pub(super) struct Ask {
    /// Values of `authorization`.
    pub(super) authorization: Vec<String>,
    pub(super) request: CertificateRequest,
}

impl Ask {
    /// For the bearer's own identity, with a new key.
    pub(super) fn own(token: &str) -> Self {
        Self {
            authorization: vec![format!("Bearer {token}")],
            request: CertificateRequest {
                csr: csr(),
                ..CertificateRequest::default()
            },
        }
    }

    /// For another identity.
    pub(super) fn impersonating(token: &str, id: &str) -> Self {
        let mut ask = Self::own(token);
        ask.request.metadata = Some(Struct::with_string(IMPERSONATED_IDENTITY, id.to_owned()));
        ask
    }

    pub(super) fn lasting(mut self, seconds: i64) -> Self {
        self.request.validity_duration = seconds;
        self
    }

    pub(super) fn with_csr(mut self, csr: impl Into<String>) -> Self {
        self.request.csr = csr.into();
        self
    }
}

impl Client {
    pub(super) async fn connect(
        address: SocketAddr,
        roots: &[CertificateDer<'static>],
        name: &'static str,
    ) -> Result<Self, tonic::transport::Error> {
        let tls = TlsConnector::from(Arc::new(tls(roots)));
        let connector = tower::service_fn(move |_: Uri| {
            let tls = tls.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from(name).expect("a name");
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        let endpoint = Endpoint::from_static("https://ca");
        let channel = endpoint.connect_with_connector(connector).await?;
        Ok(Self { channel })
    }

    pub(super) async fn ask(&self, ask: &Ask) -> Result<Vec<String>, Status> {
        self.ask_at(CREATE_CERTIFICATE_PATH, ask).await
    }

    pub(super) async fn ask_at(
        &self,
        path: &'static str,
        ask: &Ask,
    ) -> Result<Vec<String>, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        client
            .ready()
            .await
            .map_err(|error| Status::from_error(error.into()))?;
        let mut request = tonic::Request::new(ask.request.clone());
        for value in &ask.authorization {
            let value: AsciiMetadataValue = value.parse().expect("ASCII");
            request.metadata_mut().append("authorization", value);
        }
        let cluster = AsciiMetadataValue::from_static("Kubernetes");
        request.metadata_mut().insert("clusterid", cluster);
        let codec = ProstCodec::<CertificateRequest, CertificateResponse>::default();
        let path = PathAndQuery::from_static(path);
        let response = client.unary(request, path, codec).await?;
        Ok(response.into_inner().cert_chain)
    }

    /// The code and the sentence of a call that is refused.
    pub(super) async fn refused(&self, ask: &Ask) -> (Code, String) {
        let status = self.ask(ask).await.expect_err("refused");
        (status.code(), status.message().to_owned())
    }
}

/// A request for a certificate of a new key.
pub(super) fn csr() -> String {
    let key = KeyPair::generate().expect("a key");
    let request = CertificateParams::default().serialize_request(&key);
    request.expect("a request").pem().expect("PEM")
}

pub(super) fn tls(roots: &[CertificateDer<'static>]) -> ClientConfig {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).expect("a root");
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}
