//! Whether the connect hook's look-up may have missed a listener.
//!
//! The hook fails a delivery if nothing listens at its destination. Its look-up has no device and no port of the
//! client, so it misses a listener that is bound to a device, and one that another `sk_lookup` program finds by
//! what the look-up lacks. A transparent listener takes what rules of TPROXY give it, whatever its own address. If
//! the pod has any of these, or if the kernel does not say, the connect has to show who answers.
//!
//! To find that out, the kernel walks through all listeners of the node. So callers cannot cause it at will: what
//! was found is kept for a while ([`pace`]).

pub(crate) mod pace;

use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::kernel::bpf::{AttachPoint, query_programs};
use crate::kernel::netns::NetnsHandle;
use crate::sockets::sock_diag::{Listener, SockDiag};

/// The most listeners of a pod that are looked at. If it has more, the look-up may miss one.
const MAX_LISTENERS: usize = 4096;

/// What the look-up's answer "none" means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unheard {
    /// Nothing listens.
    Certainly,
    /// Something may listen.
    Perhaps,
}

/// The ports of a pod for which the look-up may miss a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Missable {
    /// All of them.
    All,
    /// These.
    Ports(Vec<u16>),
}

impl Missable {
    /// Finds out for `netns`, at the moment of the call.
    pub(crate) fn find(netns: &NetnsHandle) -> Self {
        const OWN_PROGRAM: usize = 1;
        let programs = query_programs(netns.as_fd(), AttachPoint::SkLookup);
        if programs.map_or(true, |ids| ids.len() > OWN_PROGRAM) {
            return Self::All;
        }
        let listeners = SockDiag::open(netns).and_then(|mut diag| diag.listeners(MAX_LISTENERS));
        match listeners {
            Ok(listeners) => Self::among(&listeners),
            Err(_) => Self::All,
        }
    }

    fn among(listeners: &[Listener]) -> Self {
        if listeners.iter().any(|one| one.transparent) {
            return Self::All;
        }
        let bound_to_device = listeners.iter().filter(|one| one.device != 0);
        Self::Ports(bound_to_device.map(|one| one.local.port()).collect())
    }

    /// Returns what it means that the look-up found no listener at `to`.
    pub(crate) fn about(&self, to: SocketAddr) -> Unheard {
        match self {
            Self::Ports(ports) if !ports.contains(&to.port()) => Unheard::Certainly,
            Self::Ports(_) | Self::All => Unheard::Perhaps,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;
    use crate::kernel::bpf::{create_link, load_trivial_program};
    use crate::testing::{fresh_netns, is_root};

    const PORT: u16 = 8080;

    fn listen(pod: &NetnsHandle, domain: Domain, prepare: fn(&Socket)) -> Socket {
        let wildcard = if domain == Domain::IPV4 {
            "0.0.0.0"
        } else {
            "[::]"
        };
        let at: SocketAddr = format!("{wildcard}:{PORT}").parse().expect("an address");
        pod.enter(|| {
            let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
            prepare(&socket);
            socket.bind(&at.into()).expect("binds");
            socket.listen(1).expect("listens");
            socket
        })
        .expect("enter")
    }

    #[test]
    fn a_second_sk_lookup_program_leaves_doubt() {
        if !is_root() {
            return;
        }
        let pod = fresh_netns();
        let at = || Missable::find(&pod).about(SocketAddr::from(([127, 0, 0, 1], PORT)));
        let attach = || {
            let program = load_trivial_program(AttachPoint::SkLookup).expect("loads");
            let target = pod.as_fd().as_raw_fd();
            create_link(program.as_raw_fd(), target, AttachPoint::SkLookup).expect("attaches")
        };
        let _own = attach();
        assert_eq!(at(), Unheard::Certainly);
        let other = attach();
        assert_eq!(at(), Unheard::Perhaps);
        drop(other);
        assert_eq!(at(), Unheard::Certainly);
    }

    #[test]
    fn only_a_listener_that_the_look_up_misses_leaves_doubt() {
        if !is_root() {
            return;
        }
        let to = |port| SocketAddr::from(([127, 0, 0, 1], port));
        type Prepare = fn(&Socket);
        let cases: [(Domain, Prepare, [Unheard; 2]); 5] = [
            (Domain::IPV4, |_| (), [Unheard::Certainly; 2]),
            (Domain::IPV6, |_| (), [Unheard::Certainly; 2]),
            (
                Domain::IPV4,
                |socket| socket.bind_device(Some(b"lo")).expect("binds"),
                [Unheard::Perhaps, Unheard::Certainly],
            ),
            (
                Domain::IPV6,
                |socket| socket.bind_device(Some(b"lo")).expect("binds"),
                [Unheard::Perhaps, Unheard::Certainly],
            ),
            (
                Domain::IPV4,
                |socket| socket.set_ip_transparent_v4(true).expect("set"),
                [Unheard::Perhaps; 2],
            ),
        ];
        for (number, (domain, prepare, expected)) in cases.into_iter().enumerate() {
            let pod = fresh_netns();
            assert_eq!(Missable::find(&pod).about(to(PORT)), Unheard::Certainly);
            let _listener = listen(&pod, domain, prepare);
            let found = [PORT, PORT + 1].map(|port| Missable::find(&pod).about(to(port)));
            assert_eq!(found, expected, "{number}");
        }
    }

    #[test]
    fn more_listeners_than_are_looked_at_leave_doubt() {
        if !is_root() {
            return;
        }
        let pod = fresh_netns();
        let listeners = pod.enter(|| {
            let wildcard = SocketAddr::from(([0, 0, 0, 0], 0));
            let listen = |_| std::net::TcpListener::bind(wildcard).expect("listens");
            (0..5).map(listen).collect::<Vec<_>>()
        });
        let mut diag = SockDiag::open(&pod).expect("netlink");
        assert_eq!(diag.listeners(5).expect("listeners").len(), 5);
        diag.listeners(4).expect_err("one is not looked at");
        drop(listeners);
    }
}
