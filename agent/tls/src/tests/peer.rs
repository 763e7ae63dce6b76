//! What rustls sends is understood, and the other way round; what is changed on the way is not.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

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
