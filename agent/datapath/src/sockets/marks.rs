//! The marks by which the kernel knows the agent's sockets.
//!
//! The map `AGENT_SOCKETS` is a socket storage. The agent marks its listeners before anything can reach them,
//! and a socket that a listener accepts inherits the mark. The connect hook marks the tunnels and plaintext
//! connections that the agent dials. The mark lives as long as the socket, so a connection that waits to be
//! accepted, or that the agent has closed, also has it. No process of a pod and no peer can set it.

use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::MapData;

use crate::{DatapathError, Pins};

/// The map's name.
pub(crate) const MAP: &str = "AGENT_SOCKETS";

/// The value of a mark. Only its presence matters.
const MARK: u32 = 1;

/// The kernel's marks on the agent's sockets.
#[derive(Debug)]
pub struct AgentSockets(MapData);

impl AgentSockets {
    /// Opens the map.
    ///
    /// # Errors
    /// [`DatapathError::Map`] if it is not pinned.
    pub fn open(pins: &Pins) -> Result<Self, DatapathError> {
        MapData::from_pin(pins.map(MAP))
            .map(Self)
            .map_err(DatapathError::map(MAP, "opened"))
    }

    /// Returns the map, for a request to the kernel.
    pub(crate) fn map(&self) -> BorrowedFd<'_> {
        self.0.fd().as_fd()
    }
}

/// Marks listeners as the agent's. Must be called before anything can reach them.
///
/// # Errors
/// [`DatapathError::Map`] if the kernel refused one. Some may be marked by then.
pub(crate) fn mark<'a>(
    pins: &Pins,
    listeners: impl IntoIterator<Item = &'a TcpListener>,
) -> Result<(), DatapathError> {
    let mut marks = pins.socket_storage::<u32>(MAP)?;
    listeners.into_iter().try_for_each(|listener| {
        marks
            .insert(listener, MARK, 0)
            .map_err(DatapathError::map(MAP, "written"))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;

    use aya::EbpfLoader;

    use super::*;
    use crate::kernel::netns::NetnsHandle;
    use crate::pins::directory::PinDirectory;
    use crate::programs;
    use crate::sockets::sock_diag::{SockDiag, SocketOwner, TcpSocket, TcpState};
    use crate::testing::{fresh_netns, is_root, mount_for_test};

    /// A namespace with two listeners, of which the first is marked.
    fn listeners(pins: &Pins, netns: &NetnsHandle) -> [TcpListener; 2] {
        let bind = || TcpListener::bind("127.0.0.1:0").expect("listens");
        let listeners = netns.enter(|| [bind(), bind()]).expect("enter");
        mark(pins, [&listeners[0]]).expect("marks");
        listeners
    }

    fn dial(netns: &NetnsHandle, to: &TcpListener) -> TcpStream {
        let to = to.local_addr().expect("address");
        let dial = || TcpStream::connect(to).expect("connects");
        netns.enter(dial).expect("enter")
    }

    /// The server's end of a connection.
    fn server_end(diag: &mut SockDiag, agents: &AgentSockets, client: &TcpStream) -> TcpSocket {
        let client = client.local_addr().expect("address");
        let sockets = diag.list_with_owners(agents).expect("lists");
        let found = sockets.into_iter().find(|socket| socket.remote == client);
        found.expect("listed")
    }

    #[test]
    fn what_a_marked_listener_accepts_is_the_agents_before_accept_and_after_close() {
        if !is_root() {
            return;
        }
        let bpffs = mount_for_test();
        let directory = PinDirectory::prepare(&bpffs.path().join("ambit")).expect("prepares");
        let pins = Pins::open(&directory).expect("opens");
        let mut loader = EbpfLoader::new();
        loader.map_pin_path(MAP, pins.map(MAP));
        let _maps = loader.load(programs::NODE_OBJECT).expect("an object");
        let agents = AgentSockets::open(&pins).expect("opens");
        let netns = fresh_netns();
        let mut diag = SockDiag::open(&netns).expect("opens");

        let [marked, other] = listeners(&pins, &netns);
        for (listener, owner) in [(&marked, SocketOwner::Agent), (&other, SocketOwner::Other)] {
            let listed = diag.list_with_owners(&agents).expect("lists");
            let address = listener.local_addr().expect("address");
            let own = listed.iter().find(|socket| socket.local == address);
            assert_eq!(own.expect("listed").owner, owner, "the listener");

            let client = dial(&netns, listener);
            let waiting = server_end(&mut diag, &agents, &client);
            assert_eq!((waiting.inode, waiting.owner), (0, owner), "not accepted");

            let (mut server, _) = listener.accept().expect("accepts");
            let accepted = server_end(&mut diag, &agents, &client);
            assert_ne!(accepted.inode, 0);
            assert_eq!(accepted.owner, owner, "accepted");

            // More than the client's window takes, so that the socket outlives its descriptor.
            server.set_nonblocking(true).expect("sets");
            while server.write(&[0; 65536]).is_ok() {}
            drop(server);
            let closed = server_end(&mut diag, &agents, &client);
            assert_eq!((closed.state, closed.inode), (TcpState::FinWait1, 0));
            assert_eq!(closed.owner, owner, "closed");
        }
    }
}
