//! The key of one direction, and where the next one comes from.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, Error, SupportedCipherSuite};

use crate::record::{HEADER, RecordFailure, TAIL};

/// What rustls keeps after the handshake: the secrets from which further keys are derived.
pub enum Schedule {
    /// The client's.
    Client(KernelConnection<ClientConnectionData>),
    /// The server's.
    Server(KernelConnection<ServerConnectionData>),
}

impl Schedule {
    /// Derives the next key for what is sent (RFC 8446, section 7.2).
    pub(crate) fn next_sealing(&mut self) -> Result<Key, RecordFailure> {
        let next = match self {
            Self::Client(kernel) => kernel.update_tx_secret(),
            Self::Server(kernel) => kernel.update_tx_secret(),
        };
        Key::new(next.map_err(RecordFailure::Keys)?)
    }

    /// Derives the next key for what is received.
    pub(crate) fn next_opening(&mut self) -> Result<Key, RecordFailure> {
        let next = match self {
            Self::Client(kernel) => kernel.update_rx_secret(),
            Self::Server(kernel) => kernel.update_rx_secret(),
        };
        Key::new(next.map_err(RecordFailure::Keys)?)
    }

    /// Takes a NewSessionTicket. Only clients get them.
    pub(crate) fn take_ticket(&mut self, ticket: &[u8]) -> Result<(), RecordFailure> {
        match self {
            Self::Client(kernel) => kernel
                .handle_new_session_ticket(ticket)
                .map_err(|_| RecordFailure::Malformed),
            Self::Server(_) => Err(RecordFailure::Unexpected("a client sent a ticket")),
        }
    }

    /// How many records one key may protect (RFC 8446, section 5.5).
    pub(crate) fn most_records(&self) -> u64 {
        let suite = match self {
            Self::Client(kernel) => kernel.negotiated_cipher_suite(),
            Self::Server(kernel) => kernel.negotiated_cipher_suite(),
        };
        match suite {
            SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
            #[allow(unreachable_patterns, reason = "rustls may be built with TLS 1.2")]
            _ => 0,
        }
    }
}

/// A key of one direction. aws-lc clears it when it is dropped.
pub(crate) struct Key {
    aead: LessSafeKey,
    iv: [u8; NONCE_LEN],
    /// The number of the next record.
    sequence: u64,
}

impl Key {
    pub(crate) fn new(
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, RecordFailure> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(unsupported()),
        };
        let unbound = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| unsupported())?;
        Ok(Self {
            aead: LessSafeKey::new(unbound),
            iv: iv.as_ref().try_into().map_err(|_| unsupported())?,
            sequence,
        })
    }

    /// How many records it has protected.
    pub(crate) const fn used(&self) -> u64 {
        self.sequence
    }

    /// Returns the next record's nonce (RFC 8446, section 5.3). No number is used twice.
    fn next_nonce(&mut self) -> Result<Nonce, RecordFailure> {
        let sequence = self.sequence;
        self.sequence = sequence.checked_add(1).ok_or(RecordFailure::UsedUp)?;
        let mut nonce = self.iv;
        for (byte, number) in nonce[NONCE_LEN - 8..]
            .iter_mut()
            .zip(sequence.to_be_bytes())
        {
            *byte ^= number;
        }
        Ok(Nonce::assume_unique_for_key(nonce))
    }

    /// Encrypts a record's content in place. Its type and the tag go into `tail`.
    pub(crate) fn seal(
        &mut self,
        header: [u8; HEADER],
        content: &mut [u8],
        kind: u8,
        tail: &mut [u8; TAIL],
    ) -> Result<(), RecordFailure> {
        let nonce = self.next_nonce()?;
        self.aead
            .seal_in_place_scatter(nonce, Aad::from(header), content, &[kind], tail)
            .map_err(|_| RecordFailure::UsedUp)
    }

    /// Decrypts a record's body in place: the content, its type, and padding.
    pub(crate) fn open<'a>(
        &mut self,
        header: [u8; HEADER],
        body: &'a mut [u8],
    ) -> Result<&'a mut [u8], RecordFailure> {
        let nonce = self.next_nonce()?;
        self.aead
            .open_in_place(nonce, Aad::from(header), body)
            .map_err(|_| RecordFailure::Forged)
    }
}

fn unsupported() -> RecordFailure {
    RecordFailure::Keys(Error::General("the cipher is not supported".into()))
}
