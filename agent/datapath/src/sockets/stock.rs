//! A stock of sockets in a pod's network namespace.
//!
//! A socket stays in the namespace in which it was made. So the stock makes a batch of sockets each time it
//! enters the namespace, and most connections need no change of namespace.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;

use ambit_common::{IpFamily, SocketCookie};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::kernel::netns::NetnsHandle;

/// Unconnected TCP sockets of one pod, for one shard.
///
/// The stock keeps the pod's namespace alive. Drop it when the pod goes.
#[derive(Debug)]
pub struct SocketStock {
    netns: NetnsHandle,
    v4: RefCell<Vec<Socket>>,
    v6: RefCell<Vec<Socket>>,
}

impl SocketStock {
    /// Makes an empty stock. The first [`SocketStock::take`] fills it.
    pub fn new(netns: NetnsHandle) -> Self {
        Self {
            netns,
            v4: RefCell::default(),
            v6: RefCell::default(),
        }
    }

    /// Returns the pod's namespace.
    pub(crate) fn netns(&self) -> &NetnsHandle {
        &self.netns
    }

    /// Takes a non-blocking, close-on-exec socket in the pod's namespace.
    ///
    /// # Errors
    /// EMFILE without file descriptors, EAFNOSUPPORT if the kernel has no IPv6, or another error if the
    /// namespace could not be entered.
    pub fn take(&self, family: IpFamily) -> io::Result<Socket> {
        let (stock, domain, batch) = match family {
            IpFamily::V4 => (&self.v4, Domain::IPV4, 16),
            IpFamily::V6 => (&self.v6, Domain::IPV6, 4),
        };
        let mut stock = stock.borrow_mut();
        if let Some(socket) = stock.pop() {
            return Ok(socket);
        }
        let refill = || make(domain, batch, &mut stock);
        self.netns.enter(refill).map_err(io::Error::other)??;
        stock.pop().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Makes up to `count` sockets. It is an error only if there is none.
fn make(domain: Domain, count: usize, stock: &mut Vec<Socket>) -> io::Result<()> {
    for made in 0..count {
        match tcp_socket(domain) {
            Ok(socket) => stock.push(socket),
            Err(error) if made == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(())
}

/// Makes a non-blocking, close-on-exec TCP socket in the calling thread's namespace.
pub(crate) fn tcp_socket(domain: Domain) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    Socket::new(domain, kind, Some(Protocol::TCP))
}

/// Returns the cookie by which the kernel programs know a socket.
///
/// # Errors
/// ENOTSOCK if `socket` is not a socket.
pub(crate) fn cookie_of(socket: &impl AsFd) -> io::Result<SocketCookie> {
    SockRef::from(socket).cookie().map(SocketCookie)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

    use super::*;
    use crate::kernel::netns::netns_cookie;
    use crate::testing::{fresh_netns, is_root};

    #[test]
    fn sockets_live_in_the_pod_and_are_taken_once() {
        if !is_root() {
            return;
        }
        let pod = fresh_netns();
        let stock = SocketStock::new(pod.clone());
        let netns = pod.cookie().expect("cookie");
        let mut cookies = HashSet::new();
        for family in IpFamily::ALL {
            for _ in 0..20 {
                let socket = stock.take(family).expect("socket");
                assert_eq!(netns_cookie(socket.as_fd()).expect("cookie"), netns);
                let flags = fcntl(&socket, FcntlArg::F_GETFL).expect("flags");
                assert!(OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK));
                let flags = fcntl(&socket, FcntlArg::F_GETFD).expect("flags");
                assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
                assert!(cookies.insert(cookie_of(&socket).expect("cookie")));
            }
        }
    }

    #[test]
    fn one_visit_serves_a_batch() {
        if !is_root() {
            return;
        }
        let stock = SocketStock::new(fresh_netns());
        stock.take(IpFamily::V4).expect("socket");
        assert_eq!(stock.v4.borrow().len(), 15);
        assert!(stock.v6.borrow().is_empty());
    }
}
