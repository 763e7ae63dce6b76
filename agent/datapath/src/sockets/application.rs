//! Whether an application in a pod still has its socket: FIN alone does not tell a socket that was closed from
//! one that has only ended its sending.

use std::cell::RefCell;
use std::net::SocketAddr;

use crate::kernel::netns::NetnsHandle;
use crate::sockets::sock_diag::{DiagError, SockDiag, TcpSocket, TcpState};

/// The sockets of one pod's processes, for one shard.
///
/// It keeps the pod's namespace alive. Drop it when the pod goes.
pub(crate) struct ApplicationSockets {
    netns: NetnsHandle,
    /// Opened when it is first needed.
    diag: RefCell<Option<SockDiag>>,
}

impl ApplicationSockets {
    pub(crate) fn new(netns: NetnsHandle) -> Self {
        Self {
            netns,
            diag: RefCell::default(),
        }
    }

    /// Whether the application has closed the socket `local`, which is connected to `remote` and has sent its
    /// FIN.
    ///
    /// # Errors
    /// [`DiagError`] if the kernel cannot be asked.
    pub(crate) fn is_closed(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<bool, DiagError> {
        let mut slot = self.diag.borrow_mut();
        let diag = match &mut *slot {
            Some(diag) => diag,
            empty @ None => empty.insert(SockDiag::open(&self.netns)?),
        };
        Ok(diag
            .find(local, remote)?
            .is_none_or(|found| is_orphan(&found)))
    }
}

/// Whether no process has a socket that has sent its FIN.
fn is_orphan(socket: &TcpSocket) -> bool {
    match socket.state {
        TcpState::FinWait1
        | TcpState::FinWait2
        | TcpState::TimeWait
        | TcpState::Closing
        | TcpState::LastAck
        | TcpState::Closed => socket.inode == 0,
        // The connection itself is gone: the kernel found the listener instead.
        TcpState::Listen => true,
        // It has not sent its FIN, or not been accepted yet.
        TcpState::Established | TcpState::SynSent | TcpState::SynReceived | TcpState::CloseWait => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;
    use crate::testing::{fresh_netns, is_root};

    #[test]
    fn a_socket_that_was_closed_is_told_from_one_that_ended_its_sending() {
        if !is_root() {
            return;
        }
        let cases = [
            ("127.0.0.1:0", "127.0.0.1"),
            ("[::1]:0", "[::1]"),
            ("[::]:0", "127.0.0.1"),
        ];
        for (listen, dial) in cases {
            let pod = fresh_netns();
            let sockets = ApplicationSockets::new(pod.clone());
            let connect = || {
                let listener = TcpListener::bind(listen).expect("listens");
                let port = listener.local_addr().expect("address").port();
                let dial: SocketAddr = format!("{dial}:{port}").parse().expect("valid");
                (TcpStream::connect(dial).expect("connects"), listener)
            };
            let (agent, listener) = pod.enter(connect).expect("enter");
            let (local, remote) = (agent.peer_addr(), agent.local_addr());
            let (local, remote) = (local.expect("address"), remote.expect("address"));
            let is_closed = || {
                sockets
                    .is_closed(local, remote)
                    .expect("the kernel answers")
            };

            assert!(!is_closed(), "not accepted yet, {listen}");
            let (application, _) = listener.accept().expect("accepts");
            assert!(!is_closed(), "open, {listen}");
            application.shutdown(Shutdown::Write).expect("ends");
            assert!(!is_closed(), "half-closed, {listen}");
            let copy = application.try_clone().expect("a second descriptor");
            drop(application);
            assert!(!is_closed(), "another descriptor is open, {listen}");
            drop(copy);
            assert!(is_closed(), "closed, {listen}");
            drop(agent);
            assert!(is_closed(), "gone, {listen}");
        }
    }
}
