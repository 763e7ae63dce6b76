//! Records that rustls would not send, by a peer that knows the keys.

use super::*;

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
