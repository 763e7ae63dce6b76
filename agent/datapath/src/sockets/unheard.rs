//! Whether the connect hook's look-up may have missed a listener.
//!
//! The hook fails a delivery if nothing listens at its destination. Its look-up has no device and no port of the
//! client, so it misses a listener that is bound to a device, and one that another `sk_lookup` program finds by
//! what the look-up lacks. A transparent listener takes what rules of TPROXY give it, whatever its own address. If
//! the pod has any of these, or if the kernel does not say, the connect has to show who answers.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::kernel::bpf::{AttachPoint, query_programs};
use crate::kernel::netns::NetnsHandle;
use crate::sockets::sock_diag::{Listener, SockDiag};

/// What the look-up's answer "none" means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unheard {
    /// Nothing listens.
    Certainly,
    /// Something may listen.
    Perhaps,
}

impl Unheard {
    /// Finds out for `to` in `netns`, at the moment of the call.
    pub(crate) fn at(to: SocketAddr, netns: &NetnsHandle) -> Self {
        const OWN_PROGRAM: usize = 1;
        let programs = query_programs(netns.as_fd(), AttachPoint::SkLookup);
        if programs.map_or(true, |ids| ids.len() > OWN_PROGRAM) {
            return Self::Perhaps;
        }
        let listeners = SockDiag::open(netns).and_then(|mut diag| diag.listeners());
        match listeners {
            Ok(listeners) if !listeners.iter().any(|one| is_missed(one, to)) => Self::Certainly,
            Ok(_) | Err(_) => Self::Perhaps,
        }
    }
}

/// Whether the look-up misses this listener, which may get connections to `to`.
fn is_missed(listener: &Listener, to: SocketAddr) -> bool {
    listener.transparent || (listener.device != 0 && listener.local.port() == to.port())
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
        let at = || Unheard::at(SocketAddr::from(([127, 0, 0, 1], PORT)), &pod);
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
            assert_eq!(Unheard::at(to(PORT), &pod), Unheard::Certainly);
            let _listener = listen(&pod, domain, prepare);
            let found = [PORT, PORT + 1].map(|port| Unheard::at(to(port), &pod));
            assert_eq!(found, expected, "{number}");
        }
    }
}
