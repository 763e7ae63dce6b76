use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::linux::fs::MetadataExt;

use super::*;
use crate::sockets::stock::cookie_of;
use crate::testing::{fresh_netns, is_root};

fn connection(pod: &NetnsHandle, listen: &str, dial: &str) -> [TcpStream; 2] {
    pod.enter(|| {
        let listener = TcpListener::bind(listen).expect("listens");
        let port = listener.local_addr().expect("address").port();
        let dial = format!("{dial}:{port}")
            .parse::<SocketAddr>()
            .expect("valid");
        let client = TcpStream::connect(dial).expect("connects");
        [client, listener.accept().expect("accepts").0]
    })
    .expect("enter")
}

fn find(diag: &mut SockDiag, socket: &impl AsFd) -> Option<TcpSocket> {
    let cookie = cookie_of(socket).expect("cookie");
    let sockets = diag.list().expect("lists");
    sockets.into_iter().find(|socket| socket.cookie == cookie)
}

fn inode(socket: &TcpStream) -> u64 {
    let file = std::fs::File::from(socket.as_fd().try_clone_to_owned().expect("fd"));
    file.metadata().expect("metadata").st_ino()
}

#[test]
fn a_destroyed_connection_is_aborted_for_its_owner_and_reset_for_its_peer() {
    if !is_root() {
        return;
    }
    let pod = fresh_netns();
    let mut diag = SockDiag::open(&pod).expect("opens");
    let cases = [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::1]:0", "[::1]"),
        ("[::]:0", "127.0.0.1"),
    ];
    for (listen, dial) in cases {
        let [mut client, mut server] = connection(&pod, listen, dial);
        let found = find(&mut diag, &server).expect("listed");
        diag.destroy(&found).expect("closes");
        let owner = server.read(&mut [0]).expect_err("aborted");
        assert_eq!(owner.kind(), io::ErrorKind::ConnectionAborted, "{listen}");
        let peer = client.read(&mut [0]).expect_err("reset");
        assert_eq!(peer.kind(), io::ErrorKind::ConnectionReset, "{listen}");
        diag.destroy(&found)
            .expect("a socket that is gone is no error");
    }
}

#[test]
fn sockets_are_described_as_their_owner_sees_them() {
    if !is_root() {
        return;
    }
    let pod = fresh_netns();
    let mut diag = SockDiag::open(&pod).expect("opens");
    let [client, server] = connection(&pod, "[::]:0", "127.0.0.1");
    let found = find(&mut diag, &server).expect("listed");
    assert_eq!(found.local, client.peer_addr().expect("address"));
    assert_eq!(found.remote, client.local_addr().expect("address"));
    assert_eq!((found.state, found.uid), (TcpState::Established, 0));
    assert_eq!(u64::from(found.inode), inode(&server));
    let listener = pod
        .enter(|| TcpListener::bind("127.0.0.1:0"))
        .expect("enter");
    let found = find(&mut diag, &listener.expect("listens")).expect("listed");
    assert_eq!((found.state, found.remote.port()), (TcpState::Listen, 0));
}

#[test]
fn only_the_sockets_of_the_namespace_are_listed() {
    if !is_root() {
        return;
    }
    let [client, _server] = connection(&fresh_netns(), "127.0.0.1:0", "127.0.0.1");
    let mut diag = SockDiag::open(&fresh_netns()).expect("opens");
    assert_eq!(find(&mut diag, &client), None);
    assert_eq!(diag.list().expect("lists"), []);
}

#[test]
fn a_handshake_that_is_not_finished_is_listed_and_destroyed() {
    if !is_root() {
        return;
    }
    let pod = fresh_netns();
    let mut diag = SockDiag::open(&pod).expect("opens");
    let (_listener, client) = pod.enter(half_open).expect("enter");
    let local = client.local_addr().expect("address");
    let half = |diag: &mut SockDiag| {
        let sockets = diag.list().expect("lists");
        sockets
            .into_iter()
            .find(|socket| socket.state == TcpState::SynReceived && socket.remote == local)
    };
    let found = half(&mut diag).expect("listed");
    assert_eq!(found.inode, 0);
    diag.destroy(&found).expect("closes");
    assert_eq!(half(&mut diag), None);
}

/// TCP_DEFER_ACCEPT keeps the server's end in SYN_RECV until the client sends something.
fn half_open() -> (TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let seconds = 60_i32;
    // SAFETY: the kernel reads an i32.
    let deferred = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    assert_eq!(deferred, 0);
    let client = TcpStream::connect(listener.local_addr().expect("address"));
    (listener, client.expect("connects"))
}

#[test]
fn short_answers_are_errors() {
    let mut message = [0; SOCKET_MESSAGE];
    message[..2].copy_from_slice(&[libc::AF_INET as u8, TcpState::Listen as u8]);
    assert!(decode(&message).is_ok());
    assert!(decode(&message[..SOCKET_MESSAGE - 1]).is_err());
    let unknown_state = [libc::AF_INET as u8, 99];
    let unknown_family = [99, TcpState::Listen as u8];
    for start in [unknown_state, unknown_family] {
        message[..2].copy_from_slice(&start);
        assert!(decode(&message).is_err());
    }
}

#[test]
fn attributes_tell_the_owner() {
    let mark = attribute(3, &1_u32.to_ne_bytes());
    let other = attribute(8, &[7]);
    let marked = attribute(STORAGES, &attribute(STORAGE, &mark));
    let cases = [
        (vec![], SocketOwner::Other),
        (other.clone(), SocketOwner::Other),
        ([other.clone(), marked.clone()].concat(), SocketOwner::Agent),
        ([marked.clone(), other.clone()].concat(), SocketOwner::Agent),
        (attribute(STORAGES, &[]), SocketOwner::Other),
        (attribute(STORAGES, &other), SocketOwner::Other),
        (
            attribute(STORAGES | 0x8000, &attribute(STORAGE | 0x8000, &mark)),
            SocketOwner::Agent,
        ),
    ];
    for (attributes, expected) in cases {
        assert_eq!(
            owner(&attributes).expect("well-formed"),
            expected,
            "{attributes:?}"
        );
    }
    for cut in 1..marked.len() {
        assert!(owner(&marked[..cut]).is_err(), "{cut}");
    }
    for length in [0_u8, 3, 200] {
        let mut wrong = marked.clone();
        wrong[0] = length;
        assert!(owner(&wrong).is_err(), "{length}");
    }
}

#[test]
fn listeners_are_listed_without_other_sockets() {
    if !is_root() {
        return;
    }
    let pod = fresh_netns();
    let mut diag = SockDiag::open(&pod).expect("opens");
    let _connected = connection(&pod, "127.0.0.1:0", "127.0.0.1");
    assert_eq!(diag.listeners(2).expect("lists"), []);
    let listen = || ["127.0.0.1:0", "[::1]:0"].map(|at| TcpListener::bind(at).expect("listens"));
    let open = pod.enter(listen).expect("enter");
    let expected = open.each_ref().map(|listener| Listener {
        local: listener.local_addr().expect("address"),
        device: 0,
        transparent: false,
    });
    assert_eq!(diag.listeners(2).expect("lists"), expected);
}

#[test]
fn a_listener_whose_options_are_not_told_counts_as_transparent() {
    let mut message = vec![0; SOCKET_MESSAGE];
    message[..2].copy_from_slice(&[libc::AF_INET as u8, TcpState::Listen as u8]);
    let transparent = |message: &[u8]| decode_listener(message).expect("decodes").transparent;
    assert!(transparent(&message));
    let with = |bits: &[u8]| [&message[..], &attribute(OPTIONS, bits)].concat();
    assert!(transparent(&with(&[])));
    assert!(transparent(&with(&[TRANSPARENT, 0])));
    assert!(!transparent(&with(&[!TRANSPARENT, 0])));
}
