//! Connections of a pod that no proxy carries: those that the kernel let pass, and those older than
//! the pod's enrolment. They are judged again whenever policy changes.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ambit_common::HBONE_PORT;

use super::sock_diag::{TcpSocket, TcpState};

/// The agent's own sockets, by inode.
#[derive(Clone, Debug, Default)]
pub struct OwnSockets(HashSet<u32>);

impl OwnSockets {
    /// The sockets that this process has open. Read them *after* the list that they are compared
    /// with: then a socket that is new in between is in neither.
    ///
    /// # Errors
    /// Where /proc/self/fd cannot be read.
    pub fn read() -> io::Result<Self> {
        let mut inodes = HashSet::new();
        for entry in std::fs::read_dir("/proc/self/fd")? {
            // A descriptor may be closed between the listing and here.
            let Ok(target) = std::fs::read_link(entry?.path()) else {
                continue;
            };
            inodes.extend(target.to_str().and_then(socket_inode));
        }
        Ok(Self(inodes))
    }
}

/// The inode of `socket:[inode]`.
fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// Who opened a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// The other side.
    Inbound,
    /// A process of the pod.
    Outbound,
}

/// A connection between a pod and another host that no proxy carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassedConnection {
    /// The pod's end of it.
    pub socket: TcpSocket,
    /// Who opened it.
    pub direction: Direction,
}

/// What tells the connections of a pod apart.
#[derive(Debug)]
pub struct PodSockets<'a> {
    /// All TCP sockets of the pod's network namespace.
    pub sockets: &'a [TcpSocket],
    /// The agent's own sockets, read after `sockets`.
    pub own: &'a OwnSockets,
    /// The pod's addresses, canonical.
    pub addresses: &'a [IpAddr],
    /// Ports of the agent's listeners in the pod.
    pub listener_ports: &'a [u16],
    /// Ports from which the pod's processes dial.
    pub ephemeral: RangeInclusive<u16>,
}

impl PodSockets<'_> {
    /// The connections that no proxy carries.
    ///
    /// The kernel does not keep who opened a connection. One in SYN_SENT or SYN_RECV tells; else a
    /// local port on which a process of the pod listens, or outside the ephemeral ports, means
    /// inbound. The guess fails for a connection whose server stopped listening on an ephemeral
    /// port, and for a client that bound such a port: to be safe, judge a peer inside the mesh by
    /// both directions' rules.
    pub fn kernel_passed(&self) -> Vec<PassedConnection> {
        let listening = self.listening();
        let passed = self.sockets.iter().filter(|socket| {
            is_connection(socket) && self.leaves_pod(socket) && !self.is_agents(socket, &listening)
        });
        passed
            .map(|socket| PassedConnection {
                socket: socket.clone(),
                direction: self.direction(socket, &listening),
            })
            .collect()
    }

    /// Ports on which processes of the pod listen.
    fn listening(&self) -> BTreeSet<u16> {
        let listeners = self.sockets.iter().filter(|socket| {
            socket.state == TcpState::Listen && !self.own.0.contains(&socket.inode)
        });
        listeners.map(|socket| socket.local.port()).collect()
    }

    /// Whether the other end is another host. A redirected connection and a delivery have loopback
    /// at one end.
    fn leaves_pod(&self, socket: &TcpSocket) -> bool {
        let (local, remote) = (socket.local.ip(), socket.remote.ip());
        !local.is_loopback() && !remote.is_loopback() && !self.addresses.contains(&remote)
    }

    /// Whether the agent has the socket, or had it. Before accept() and after close() a socket has
    /// no inode: the ports of the agent's listeners tell it, unless a process of the pod listens
    /// there too, and HBONE's port at the other end tells a tunnel that the agent closed.
    fn is_agents(&self, socket: &TcpSocket, listening: &BTreeSet<u16>) -> bool {
        if socket.inode != 0 {
            return self.own.0.contains(&socket.inode);
        }
        let port = socket.local.port();
        let listener = port == HBONE_PORT || self.listener_ports.contains(&port);
        (listener && !listening.contains(&port)) || socket.remote.port() == HBONE_PORT
    }

    fn direction(&self, socket: &TcpSocket, listening: &BTreeSet<u16>) -> Direction {
        let port = socket.local.port();
        match socket.state {
            TcpState::SynSent => Direction::Outbound,
            TcpState::SynReceived => Direction::Inbound,
            TcpState::Established
            | TcpState::FinWait1
            | TcpState::FinWait2
            | TcpState::TimeWait
            | TcpState::Closed
            | TcpState::CloseWait
            | TcpState::LastAck
            | TcpState::Listen
            | TcpState::Closing => {
                if listening.contains(&port) || !self.ephemeral.contains(&port) {
                    Direction::Inbound
                } else {
                    Direction::Outbound
                }
            }
        }
    }
}

/// Whether bytes can still pass.
fn is_connection(socket: &TcpSocket) -> bool {
    !matches!(
        socket.state,
        TcpState::Listen | TcpState::Closed | TcpState::TimeWait
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;
    use std::os::linux::fs::MetadataExt;

    use super::*;

    const POD: &str = "10.0.0.1";

    fn socket(inode: u32, state: TcpState, local: &str, remote: &str) -> TcpSocket {
        let address = |text: &str| text.parse().expect("valid");
        TcpSocket::for_test(address(local), address(remote), state, inode)
    }

    /// The directions of what passed, by the sockets' remote ports.
    fn passed(sockets: &[TcpSocket]) -> Vec<(u16, Direction)> {
        let pod = PodSockets {
            sockets,
            own: &OwnSockets(HashSet::from([7])),
            addresses: &[POD.parse().expect("valid")],
            listener_ports: &[15001, 15006, 15009],
            ephemeral: 32768..=60999,
        };
        let passed = pod.kernel_passed();
        passed
            .iter()
            .map(|c| (c.socket.remote.port(), c.direction))
            .collect()
    }

    #[test]
    fn direction_follows_state_listeners_and_port() {
        use Direction::{Inbound, Outbound};
        use TcpState::{Established, Listen, SynReceived, SynSent};
        let sockets = [
            socket(1, Listen, "0.0.0.0:40000", "0.0.0.0:0"),
            socket(2, Established, "10.0.0.1:8080", "10.0.0.2:1"),
            socket(2, Established, "10.0.0.1:40000", "10.0.0.2:2"),
            socket(2, Established, "10.0.0.1:40001", "10.0.0.2:3"),
            socket(2, SynSent, "10.0.0.1:8080", "10.0.0.2:4"),
            socket(0, SynReceived, "10.0.0.1:40001", "10.0.0.2:5"),
        ];
        assert_eq!(
            passed(&sockets),
            [
                (1, Inbound),
                (2, Inbound),
                (3, Outbound),
                (4, Outbound),
                (5, Inbound)
            ]
        );
    }

    #[test]
    fn what_stays_in_the_pod_or_is_over_is_left_alone() {
        use TcpState::{Closed, Established, Listen, TimeWait};
        let sockets = [
            socket(1, Established, "127.0.0.1:40000", "127.0.0.1:80"),
            socket(1, Established, "10.0.0.1:40000", "127.78.3.4:15001"),
            socket(1, Established, "10.0.0.1:80", "127.77.3.4:40000"),
            socket(1, Established, "10.0.0.1:40000", "10.0.0.1:80"),
            socket(1, Listen, "10.0.0.1:80", "0.0.0.0:0"),
            socket(0, TimeWait, "10.0.0.1:80", "10.0.0.2:40000"),
            socket(1, Closed, "10.0.0.1:80", "10.0.0.2:40000"),
        ];
        assert_eq!(passed(&sockets), []);
    }

    #[test]
    fn the_agents_own_sockets_are_left_alone() {
        use TcpState::{Established, FinWait1, Listen, SynReceived};
        let sockets = [
            socket(7, Listen, "127.0.0.1:15009", "0.0.0.0:0"),
            socket(7, Established, "10.0.0.1:40000", "10.0.0.2:15008"),
            socket(7, Established, "10.0.0.1:15008", "10.0.0.2:40000"),
            socket(0, SynReceived, "10.0.0.1:15008", "10.0.0.2:40000"),
            socket(0, Established, "10.0.0.1:15009", "10.0.0.2:40000"),
            socket(0, FinWait1, "10.0.0.1:40000", "10.0.0.2:15008"),
        ];
        assert_eq!(passed(&sockets), []);
    }

    #[test]
    fn a_process_of_the_pod_cannot_hide_behind_the_agents_ports() {
        use TcpState::{Established, Listen};
        let sockets = [
            socket(1, Listen, "0.0.0.0:15008", "0.0.0.0:0"),
            socket(1, Established, "10.0.0.1:15001", "10.0.0.2:1"),
            socket(1, Established, "10.0.0.1:40000", "10.0.0.2:15008"),
            socket(0, Established, "10.0.0.1:15008", "10.0.0.2:2"),
        ];
        let ports = passed(&sockets)
            .into_iter()
            .map(|(port, _)| port)
            .collect::<Vec<_>>();
        assert_eq!(ports, [1, 15008, 2]);
    }

    #[test]
    fn own_sockets_are_those_of_this_process() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let file = std::fs::File::from(listener.as_fd().try_clone_to_owned().expect("fd"));
        let inode = file.metadata().expect("metadata").st_ino() as u32;
        assert!(OwnSockets::read().expect("reads").0.contains(&inode));
        drop((listener, file));
        assert!(!OwnSockets::read().expect("reads").0.contains(&inode));
    }
}
