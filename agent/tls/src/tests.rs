//! rustls as the peer, and records that it would not send.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::BytesMut;
use proptest::prelude::*;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
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

#[test]
fn data_passes_both_ways_with_every_cipher_and_in_both_roles() {
    for suite in SUITES {
        for side in SIDES {
            let mut link = Link::new(side, suite);
            // rustls' server has sent tickets.
            let early = std::mem::take(&mut link.early);
            assert_eq!(!early.is_empty(), side == Ours::Client);
            assert!(opened(&mut link.ours, &early).unwrap().is_empty());
            for length in [1, MOST_CONTENT - 1, MOST_CONTENT, MOST_CONTENT + 1, 300_000] {
                link.pass_both_ways(&payload(length));
            }
        }
    }
}

#[test]
fn records_are_full() {
    let mut link = Link::new(Ours::Client, SUITES[1]);
    let sealed = link.sealed(&payload(3 * MOST_CONTENT + 1));
    let full = 5 + MOST_CONTENT + 17;
    assert_eq!(lengths(&sealed), [full, full, full, 5 + 1 + 17]);
}

#[test]
fn what_comes_with_the_end_of_the_handshake_is_kept() {
    for side in SIDES {
        let first = payload(5000);
        let mut link = Link::with_first(side, SUITES[1], &first);
        let early = std::mem::take(&mut link.early);
        assert!(opened(&mut link.ours, &early).unwrap() == first);
        link.pass_both_ways(b"after");
    }
}

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

#[derive(Clone, Debug)]
enum Act {
    Sends(usize),
    PeerSends(usize),
    PeerUpdates,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (1..50_000_usize).prop_map(Act::Sends),
        (1..50_000_usize).prop_map(Act::PeerSends),
        Just(Act::PeerUpdates),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The limit of records for a key is so low that it is reached all the time.
    #[test]
    fn keys_change_at_any_time(acts in prop::collection::vec(act(), 1..40), client: bool) {
        let side = if client { Ours::Client } else { Ours::Server };
        let mut link = Link::new(side, SUITES[1]);
        link.ours.limit(6);
        let early = std::mem::take(&mut link.early);
        opened(&mut link.ours, &early).unwrap();
        for act in acts {
            match act {
                Act::Sends(length) => {
                    let data = payload(length);
                    let sealed = link.sealed(&data);
                    prop_assert!(link.at_peer(&sealed).unwrap() == data);
                }
                Act::PeerSends(length) => {
                    let data = payload(length);
                    let sealed = link.by_peer(&data);
                    prop_assert!(opened(&mut link.ours, &sealed).unwrap() == data);
                }
                Act::PeerUpdates => {
                    // rustls asks for an update of this side, too.
                    link.peer.refresh_traffic_keys().unwrap();
                    let sealed = link.by_peer(b"x");
                    prop_assert_eq!(opened(&mut link.ours, &sealed).unwrap(), b"x");
                    let answer = link.sealed(b"y");
                    prop_assert_eq!(lengths(&answer), [5 + 5 + 17, 5 + 1 + 17]);
                    prop_assert_eq!(link.at_peer(&answer).unwrap(), b"y");
                }
            }
        }
    }

    /// Whatever is changed on the way, only data that was sent comes out, in order and from the beginning.
    #[test]
    fn what_was_changed_does_not_come_out(
        sizes in prop::collection::vec(1..3000_usize, 1..6),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        client: bool,
    ) {
        let side = if client { Ours::Client } else { Ours::Server };
        let mut link = Link::new(side, SUITES[1]);
        let early = std::mem::take(&mut link.early);
        opened(&mut link.ours, &early).unwrap();
        let mut bytes = Vec::new();
        let data = payload(sizes.iter().sum());
        let mut rest = &data[..];
        for size in sizes {
            bytes.extend(link.by_peer(&rest[..size]));
            rest = &rest[size..];
        }
        let index = at.index(bytes.len());
        bytes[index] ^= 1 << bit;
        let mut out = Vec::new();
        let ended = open_into(&mut link.ours, &bytes, &mut out);
        prop_assert!(out.len() < data.len() && data.starts_with(&out));
        // A longer length may only mean that more has to come.
        let ended_early = matches!(&ended, Ok(false));
        prop_assert!(ended.is_err() || ended_early);
    }
}

#[test]
fn records_that_are_left_out_repeated_or_exchanged_do_not_decrypt() {
    for order in [&[1][..], &[0, 0], &[0, 2], &[1, 0], &[0, 1, 1]] {
        let mut link = Link::new(Ours::Server, SUITES[1]);
        let records = [b"a", b"b", b"c"].map(|data| link.by_peer(data));
        let bytes: Vec<u8> = order.iter().flat_map(|&at| records[at].clone()).collect();
        let mut data = Vec::new();
        let failure = open_into(&mut link.ours, &bytes, &mut data).unwrap_err();
        assert!(
            matches!(failure, RecordFailure::Forged),
            "{order:?}: {failure}"
        );
        assert!(b"abc".starts_with(&data[..]));
        link.ours.fail(&failure, &mut link.outbox);
        let more = link.by_peer(b"more");
        let told = drain(&mut link.outbox);
        let alert = Error::AlertReceived(AlertDescription::BadRecordMac);
        assert_eq!(link.at_peer(&told).unwrap_err(), alert);
        // Neither direction goes on.
        assert!(link.sealed(b"more").is_empty());
        assert!(opened(&mut link.ours, &more).unwrap().is_empty());
    }
}

#[test]
fn a_close_ends_one_direction() {
    for side in SIDES {
        let mut link = Link::new(side, SUITES[1]);
        let early = std::mem::take(&mut link.early);
        opened(&mut link.ours, &early).unwrap();
        let mut bytes = link.by_peer(b"last");
        link.peer.send_close_notify();
        bytes.extend(link.by_peer(b""));
        bytes.extend(b"what comes after it is ignored");
        let mut data = Vec::new();
        assert!(open_into(&mut link.ours, &bytes, &mut data).unwrap());
        assert_eq!(data, b"last");
        let sealed = link.sealed(b"still");
        assert_eq!(link.at_peer(&sealed).unwrap(), b"still");
        link.ours.close(&mut link.outbox);
        let closing = drain(&mut link.outbox);
        assert!(link.at_peer(&closing).unwrap().is_empty());
        assert_eq!(link.peer.reader().read(&mut [0; 9]).unwrap(), 0);
        assert!(link.sealed(b"no more").is_empty());
    }
}

#[test]
fn a_key_does_not_protect_more_than_it_may() {
    let mut link = Link::new(Ours::Client, SUITES[1]);
    link.ours.limit(3);
    let too_much = BytesMut::from(&payload(3 * MOST_CONTENT)[..]);
    let failure = link.ours.seal(too_much, &mut link.outbox).unwrap_err();
    assert!(matches!(failure, RecordFailure::UsedUp));
}

/// A peer that knows the keys and keeps no rules, and two that keep them: this crate, and rustls.
struct Attack {
    forger: Records,
    ours: Records,
    link: Link,
}

impl Attack {
    fn new(victim: Ours) -> Self {
        let (client, server) = configs(SUITES[1]);
        let (near, far) = duplex(1 << 20);
        let (client, server) = run(async {
            tokio::join!(
                connect(Arc::new(client), name(), near),
                accept(Arc::new(server), far)
            )
        });
        let (_, client, _) = client.unwrap().into_parts().unwrap();
        let (_, server, _) = server.unwrap().into_parts().unwrap();
        let (forger, ours, side) = match victim {
            Ours::Client => (server, client, Ours::Server),
            Ours::Server => (client, server, Ours::Client),
        };
        // Here rustls is the victim.
        let link = Link::new(side, SUITES[1]);
        Self { forger, ours, link }
    }

    /// Sends the same to both, and returns what they say.
    fn send(
        &mut self,
        forge: impl Fn(&mut Records) -> Vec<u8>,
    ) -> (Result<Vec<u8>, RecordFailure>, Result<Vec<u8>, Error>) {
        let bytes = forge(&mut self.forger);
        let at_ours = opened(&mut self.ours, &bytes);
        let bytes = forge(&mut self.link.ours);
        (at_ours, self.link.at_peer(&bytes))
    }
}

type Forge = fn(&mut Records) -> Vec<u8>;

fn repeated(times: usize, kind: u8, content: &[u8], by: &mut Records) -> Vec<u8> {
    (0..times).flat_map(|_| by.forge(kind, content)).collect()
}

fn updates(times: usize, by: &mut Records) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..times {
        bytes.extend(by.forge(HANDSHAKE, &[24, 0, 0, 1, 0]));
        by.skip_key();
    }
    bytes
}

const REFUSED: [(&str, Forge); 24] = [
    ("an unprotected alert", |_| vec![ALERT, 3, 3, 0, 2, 1, 0]),
    ("an unprotected handshake", |_| {
        vec![HANDSHAKE, 3, 3, 0, 5, 24, 0, 0, 1, 0]
    }),
    ("an unprotected change_cipher_spec", |_| {
        vec![20, 3, 3, 0, 1, 1]
    }),
    ("a protected change_cipher_spec", |by| by.forge(20, &[1])),
    ("an unknown type", |by| by.forge(99, b"x")),
    ("no type at all", |by| by.forge(0, &[0; 9])),
    ("a body without room for a tag", |_| {
        [&[DATA, 3, 3, 0, 15][..], &[0; 15]].concat()
    }),
    ("a body that is too long", |_| {
        [&[DATA, 3, 3, 0x41, 0x01][..], &[0; 0x4101]].concat()
    }),
    ("too much data", |by| by.forge(DATA, &[1; MOST_CONTENT + 1])),
    ("too much padding", |by| {
        by.forge(0, &[&[1; MOST_CONTENT][..], &[DATA]].concat())
    }),
    ("a Finished", |by| by.forge(HANDSHAKE, &[20, 0, 0, 1, 0])),
    ("a request for a certificate", |by| {
        by.forge(HANDSHAKE, &[13, 0, 0, 3, 0, 0, 0])
    }),
    ("an unknown key update", |by| {
        by.forge(HANDSHAKE, &[24, 0, 0, 1, 2])
    }),
    ("a long key update", |by| {
        by.forge(HANDSHAKE, &[24, 0, 0, 2, 0, 0])
    }),
    ("an empty key update", |by| {
        by.forge(HANDSHAKE, &[24, 0, 0, 0])
    }),
    ("a message after a key update", |by| {
        by.forge(HANDSHAKE, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0])
    }),
    ("an empty ticket", |by| by.forge(HANDSHAKE, &[4, 0, 0, 0])),
    ("data within a message", |by| {
        [by.forge(HANDSHAKE, &[24, 0]), by.forge(DATA, b"x")].concat()
    }),
    ("a message that is too long", |by| {
        by.forge(HANDSHAKE, &[4, 1, 0, 0, 0])
    }),
    ("a short alert", |by| by.forge(ALERT, &[1])),
    ("an alert of an unknown level", |by| {
        by.forge(ALERT, &[3, 0])
    }),
    ("a fatal alert", |by| by.forge(ALERT, &[2, 80])),
    ("too many warnings", |by| repeated(5, ALERT, &[1, 90], by)),
    ("too many key updates", |by| updates(33, by)),
];

#[test]
fn what_rustls_refuses_is_refused() {
    for victim in SIDES {
        for (what, forge) in REFUSED {
            let mut attack = Attack::new(victim);
            let (ours, rustls) = attack.send(forge);
            assert!(ours.is_err(), "{victim:?}, {what}: {ours:?}");
            assert!(rustls.is_err(), "{victim:?}, {what}, rustls: {rustls:?}");
        }
    }
}

/// rustls takes empty handshake records (RFC 8446, section 5.1, forbids them).
#[test]
fn empty_records_are_refused_except_for_a_few_of_data() {
    let empty: [Forge; 2] = [
        |by| repeated(33, DATA, &[], by),
        |by| by.forge(HANDSHAKE, &[]),
    ];
    for forge in empty {
        let failure = Attack::new(Ours::Server).send(forge).0.unwrap_err();
        assert!(matches!(failure, RecordFailure::Unexpected(_)));
    }
}

#[test]
fn what_rustls_takes_is_taken() {
    let taken: [Forge; 6] = [
        |by| [by.forge(DATA, b""), by.forge(DATA, b"x")].concat(),
        |by| by.forge(0, b"x\x17\0\0\0"),
        |by| {
            let message = [24, 0, 0, 1, 0];
            let mut bytes: Vec<u8> = message
                .iter()
                .flat_map(|byte| by.forge(HANDSHAKE, &[*byte]))
                .collect();
            by.skip_key();
            bytes.extend(by.forge(DATA, b"x"));
            bytes
        },
        |by| [updates(32, by), by.forge(DATA, b"x"), updates(32, by)].concat(),
        |by| [repeated(4, ALERT, &[1, 90], by), by.forge(DATA, b"x")].concat(),
        |by| [by.forge(DATA, b"x"), by.forge(ALERT, &[2, 0])].concat(),
    ];
    for victim in SIDES {
        for (number, forge) in taken.into_iter().enumerate() {
            let (ours, rustls) = Attack::new(victim).send(forge);
            assert_eq!(ours.unwrap(), b"x", "{victim:?}, {number}");
            assert_eq!(rustls.unwrap(), b"x", "{victim:?}, {number}");
        }
    }
}

#[test]
fn a_record_with_another_version_does_not_decrypt() {
    let mut attack = Attack::new(Ours::Client);
    let mut record = attack.forger.forge(DATA, b"x");
    record[2] = 4;
    let failure = opened(&mut attack.ours, &record).unwrap_err();
    assert!(matches!(failure, RecordFailure::Forged));
}

#[test]
fn a_ticket_is_for_clients() {
    let mut attack = Attack::new(Ours::Server);
    // One that rustls' client takes: lifetime, age, nonce, ticket, no extensions.
    let ticket = [4, 0, 0, 15, 0, 0, 0, 9, 0, 0, 0, 0, 1, 7, 0, 1, 7, 0, 0];
    let (ours, rustls) = attack.send(|by| by.forge(HANDSHAKE, &ticket));
    assert!(ours.is_err() && rustls.is_err());
    let (ours, rustls) = Attack::new(Ours::Client).send(|by| by.forge(HANDSHAKE, &ticket));
    assert!(ours.unwrap().is_empty() && rustls.unwrap().is_empty());
}
