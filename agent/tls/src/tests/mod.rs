//! rustls as the peer of this crate.

mod attacks;
mod handshake;
mod peer;

use std::io::{self, Read, Write};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    AlertDescription, CipherSuite, ClientConfig, ClientConnection, Connection, Error,
    RootCertStore, ServerConfig, ServerConnection, version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::record::MOST_CONTENT;
use crate::{Opened, Outbox, RecordFailure, Records, Split, accept, connect, split};

const SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

const DATA: u8 = 23;
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;

/// Which side this crate is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ours {
    Client,
    Server,
}

const SIDES: [Ours; 2] = [Ours::Client, Ours::Server];

fn configs(suite: CipherSuite) -> (ClientConfig, ServerConfig) {
    let signed = rcgen::generate_simple_self_signed(vec!["peer.test".into()]).unwrap();
    let certificate: CertificateDer<'static> = signed.cert.into();
    let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|one| one.suite() == suite);
    let provider: Arc<CryptoProvider> = Arc::new(provider);
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    client.enable_secret_extraction = true;
    server.enable_secret_extraction = true;
    server.send_tls13_tickets = 0;
    (client, server)
}

fn name() -> ServerName<'static> {
    ServerName::try_from("peer.test").unwrap()
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(test)
}

/// Lets rustls shake hands, and send `first` as soon as it may.
async fn shake(
    mut peer: Connection,
    mut far: DuplexStream,
    first: &[u8],
) -> io::Result<Connection> {
    let mut sent_first = false;
    loop {
        if !peer.is_handshaking() && !std::mem::replace(&mut sent_first, true) {
            peer.writer().write_all(first)?;
        }
        let mut out = Vec::new();
        while peer.wants_write() {
            peer.write_tls(&mut out)?;
        }
        far.write_all(&out).await?;
        if !peer.is_handshaking() {
            return Ok(peer);
        }
        let mut buffer = [0; 999];
        let read = far.read(&mut buffer).await?;
        let mut input = &buffer[..read];
        while !input.is_empty() {
            peer.read_tls(&mut input)?;
            let processed = peer.process_new_packets();
            processed.map_err(io::Error::other)?;
        }
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// This crate and rustls.
struct Link {
    ours: Records,
    early: Vec<u8>,
    outbox: Outbox,
    peer: Connection,
}

impl Link {
    fn new(side: Ours, suite: CipherSuite) -> Self {
        Self::with_first(side, suite, b"")
    }

    fn with_first(side: Ours, suite: CipherSuite, first: &[u8]) -> Self {
        let (client, mut server) = configs(suite);
        if side == Ours::Client {
            server.send_tls13_tickets = 2;
        }
        let (client, server) = (Arc::new(client), Arc::new(server));
        let (near, far) = duplex(1 << 20);
        let (parts, peer) = match side {
            Ours::Client => {
                let peer = ServerConnection::new(server).unwrap().into();
                let both =
                    async { tokio::join!(connect(client, name(), near), shake(peer, far, first)) };
                let (shaken, peer) = run(both);
                (shaken.unwrap().into_parts(), peer)
            }
            Ours::Server => {
                let peer = ClientConnection::new(client, name()).unwrap().into();
                let both = async { tokio::join!(accept(server, near), shake(peer, far, first)) };
                let (shaken, peer) = run(both);
                (shaken.unwrap().into_parts(), peer)
            }
        };
        let (mut socket, ours, mut early) = parts.unwrap();
        // What rustls sent after the handshake, and was not read with its end.
        run(socket.read_to_end(&mut early)).unwrap();
        let mut peer = peer.unwrap();
        peer.set_buffer_limit(None);
        Self {
            ours,
            early,
            outbox: Outbox::default(),
            peer,
        }
    }

    fn sealed(&mut self, data: &[u8]) -> Vec<u8> {
        self.ours.seal(data.into(), &mut self.outbox).unwrap();
        drain(&mut self.outbox)
    }

    /// Lets rustls take what was sealed.
    fn at_peer(&mut self, mut input: &[u8]) -> Result<Vec<u8>, Error> {
        let mut data = Vec::new();
        while !input.is_empty() {
            self.peer.read_tls(&mut input).unwrap();
            self.peer.process_new_packets()?;
            let read = self.peer.reader().read_to_end(&mut data);
            match read {
                Ok(_) => return Ok(data),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
        Ok(data)
    }

    fn by_peer(&mut self, data: &[u8]) -> Vec<u8> {
        self.peer.writer().write_all(data).unwrap();
        let mut out = Vec::new();
        while self.peer.wants_write() {
            self.peer.write_tls(&mut out).unwrap();
        }
        out
    }

    fn pass_both_ways(&mut self, data: &[u8]) {
        let sealed = self.sealed(data);
        assert!(self.at_peer(&sealed).unwrap() == data);
        let sealed = self.by_peer(data);
        assert!(opened(&mut self.ours, &sealed).unwrap() == data);
    }
}

/// Takes what is in an outbox, as a network that takes little at once.
fn drain(outbox: &mut Outbox) -> Vec<u8> {
    let mut all = Vec::new();
    while !outbox.is_empty() {
        let before = all.len();
        let written = outbox.write(|pieces| {
            let mut room = 7000;
            for piece in pieces {
                let now = room.min(piece.len());
                all.extend_from_slice(&piece[..now]);
                room -= now;
            }
            Ok::<_, io::Error>(all.len() - before)
        });
        let written = written.unwrap();
        assert!(written > 0);
        outbox.took(written, drop);
        outbox.wait(drop);
    }
    all
}

/// Opens records up to the end or a failure; the data before it is in `into`.
fn open_into(
    records: &mut Records,
    bytes: &[u8],
    into: &mut Vec<u8>,
) -> Result<bool, RecordFailure> {
    let mut bytes = bytes.to_vec();
    let mut input = &mut bytes[..];
    loop {
        let (sealed, rest) = match split(input)? {
            Split::Record(sealed, rest) => (sealed, rest),
            Split::Partial(_) => return Ok(false),
        };
        input = rest;
        match records.open(sealed)? {
            Opened::Data(data) => into.extend_from_slice(data),
            Opened::Nothing => {}
            Opened::End => return Ok(true),
        }
    }
}

fn opened(records: &mut Records, bytes: &[u8]) -> Result<Vec<u8>, RecordFailure> {
    let mut data = Vec::new();
    open_into(records, bytes, &mut data).map(|_| data)
}

/// The lengths of records.
fn lengths(mut bytes: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [DATA, 3, 3, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        lengths.push(5 + length);
        bytes = &rest[length..];
    }
    assert!(bytes.is_empty());
    lengths
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index / 5) as u8).collect()
}
