//! Handshakes that fail.

use rustls::server::WebPkiClientVerifier;

use super::*;

#[test]
fn a_client_that_is_refused_is_told_why() {
    let (client, server) = configs(SUITES[1]);
    let mut roots = RootCertStore::empty();
    let other = rcgen::generate_simple_self_signed(vec!["other.test".into()]).unwrap();
    roots.add(other.cert.into()).unwrap();
    let provider = Arc::clone(server.crypto_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let signed = rcgen::generate_simple_self_signed(vec!["peer.test".into()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let strict = ServerConfig::builder_with_provider(Arc::clone(server.crypto_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![signed.cert.into()], key)
        .unwrap();
    let (near, mut far) = duplex(1 << 20);
    let (refused, told) = run(async {
        let accepting = accept(Arc::new(strict), near);
        let calling = async {
            // It does not verify the server's certificate before its own is refused.
            let mut client = client;
            client
                .dangerous()
                .set_certificate_verifier(Arc::new(Anyone));
            let mut peer: Connection = ClientConnection::new(Arc::new(client), name())
                .unwrap()
                .into();
            loop {
                let mut out = Vec::new();
                while peer.wants_write() {
                    peer.write_tls(&mut out).unwrap();
                }
                far.write_all(&out).await.unwrap();
                let mut buffer = [0; 4000];
                let read = far.read(&mut buffer).await.unwrap();
                assert!(read > 0, "no alert");
                let mut input = &buffer[..read];
                while !input.is_empty() {
                    peer.read_tls(&mut input).unwrap();
                    if let Err(error) = peer.process_new_packets() {
                        return error;
                    }
                }
            }
        };
        tokio::join!(accepting, calling)
    });
    let refused = refused.err().unwrap();
    assert!(refused.get_ref().unwrap().is::<Error>());
    let expected = AlertDescription::CertificateRequired;
    assert_eq!(told, Error::AlertReceived(expected));
}

#[derive(Debug)]
struct Anyone;

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let provider = aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[test]
fn a_handshake_that_is_cut_off_or_garbled_fails() {
    let (_, server) = configs(SUITES[1]);
    let server = Arc::new(server);
    for garbage in [
        &b""[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[22, 3, 1, 255, 255],
        &[22, 3, 1, 0, 4, 1, 0, 0, 0],
    ] {
        let (near, mut far) = duplex(1 << 20);
        run(far.write_all(garbage)).unwrap();
        run(far.shutdown()).unwrap();
        assert!(run(accept(Arc::clone(&server), near)).is_err());
    }
}
