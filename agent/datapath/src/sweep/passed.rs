//! Finds the connections of a pod that no proxy carries: those that the kernel let pass, and those that are
//! older than the pod's enrolment. They are judged again whenever policy changes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ambit_common::HBONE_PORT;
use ambit_model::Direction;

use crate::sockets::sock_diag::{SocketOwner, TcpSocket, TcpState};

/// A connection between a pod and another host that no proxy carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PassedConnection {
    /// The pod's end of the connection.
    pub socket: TcpSocket,
    /// Who opened it.
    pub direction: Direction,
}

/// What is needed to find the connections of a pod that no proxy carries.
#[derive(Debug)]
pub(crate) struct PodSockets<'a> {
    /// All TCP sockets of the pod's network namespace, with their owners.
    pub sockets: &'a [TcpSocket],
    /// The pod's addresses, canonical.
    pub addresses: &'a [IpAddr],
    /// The ports from which the pod's processes dial.
    pub ephemeral: RangeInclusive<u16>,
}

impl PodSockets<'_> {
    /// The connections that no proxy carries.
    ///
    /// The kernel does not remember which end opened a connection. The states SYN_SENT and SYN_RECV show it.
    /// Otherwise, a local port on which a process of the pod listens, or which is not an ephemeral port, means
    /// inbound. That is wrong for a connection whose server stopped listening on an ephemeral port, and for a
    /// client that bound another port. To be safe, judge a peer inside the mesh by the rules of both
    /// directions.
    pub(crate) fn kernel_passed(&self) -> Vec<PassedConnection> {
        let listening = self.listening();
        let passed = self.sockets.iter().filter(|socket| {
            is_connection(socket) && self.leaves_pod(socket) && !Self::is_agents(socket, &listening)
        });
        passed
            .map(|socket| PassedConnection {
                socket: socket.clone(),
                direction: self.direction(socket, &listening),
            })
            .collect()
    }

    /// Returns the ports on which processes of the pod listen.
    fn listening(&self) -> BTreeSet<u16> {
        let listeners = self.sockets.iter().filter(|socket| {
            socket.state == TcpState::Listen && socket.owner == SocketOwner::Other
        });
        listeners.map(|socket| socket.local.port()).collect()
    }

    /// Whether the other end is outside the pod. A redirected connection and a delivery have a loopback address
    /// at one end.
    fn leaves_pod(&self, socket: &TcpSocket) -> bool {
        let (local, remote) = (socket.local.ip(), socket.remote.ip());
        !local.is_loopback() && !remote.is_loopback() && !self.addresses.contains(&remote)
    }

    /// Whether the proxy carries the connection, or will.
    ///
    /// The kernel's mark decides, never a port, because a peer chooses its own port. The mark is on every
    /// socket of the agent from the end of the handshake to the end of the socket's life, whether a process
    /// has it or not. A handshake that its server has not completed has no mark yet. If it came to HBONE's
    /// port, `sk_lookup` gives it to the agent; but if it is older than the pod's enrolment, its server is a
    /// process of the pod that listens there.
    fn is_agents(socket: &TcpSocket, listening: &BTreeSet<u16>) -> bool {
        match socket.owner {
            SocketOwner::Agent => true,
            SocketOwner::Other => {
                socket.state == TcpState::SynReceived
                    && socket.local.port() == HBONE_PORT
                    && !listening.contains(&HBONE_PORT)
            }
        }
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
pub(crate) fn is_connection(socket: &TcpSocket) -> bool {
    !matches!(
        socket.state,
        TcpState::Listen | TcpState::Closed | TcpState::TimeWait
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "10.0.0.1";

    fn owned(owner: SocketOwner, inode: u32, state: TcpState, ends: [&str; 2]) -> TcpSocket {
        let [local, remote] = ends.map(|text| text.parse().expect("valid"));
        TcpSocket::for_test(local, remote, state, inode, owner)
    }

    fn socket(inode: u32, state: TcpState, local: &str, remote: &str) -> TcpSocket {
        owned(SocketOwner::Other, inode, state, [local, remote])
    }

    /// The directions of what passed, by the sockets' remote ports.
    fn passed(sockets: &[TcpSocket]) -> Vec<(u16, Direction)> {
        let pod = PodSockets {
            sockets,
            addresses: &[POD.parse().expect("valid")],
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
    fn the_agents_sockets_are_left_alone_in_every_stage() {
        use TcpState::{CloseWait, Established, FinWait1, LastAck, Listen, SynReceived, SynSent};
        let agents = |inode, state, ends| owned(SocketOwner::Agent, inode, state, ends);
        let sockets = [
            agents(7, Listen, ["127.0.0.1:15009", "0.0.0.0:0"]),
            agents(7, SynSent, ["10.0.0.1:40000", "10.0.0.2:15008"]),
            agents(7, Established, ["10.0.0.1:40000", "10.0.0.2:15008"]),
            agents(7, Established, ["10.0.0.1:15008", "10.0.0.2:40000"]),
            socket(0, SynReceived, "10.0.0.1:15008", "10.0.0.2:40000"),
            agents(0, Established, ["10.0.0.1:15008", "10.0.0.2:40001"]),
            agents(0, CloseWait, ["10.0.0.1:8080", "10.0.0.2:40001"]),
            agents(0, FinWait1, ["10.0.0.1:40000", "10.0.0.2:15008"]),
            agents(0, LastAck, ["10.0.0.1:40000", "10.0.0.2:5432"]),
        ];
        assert_eq!(passed(&sockets), []);
    }

    #[test]
    fn no_port_of_a_peer_makes_a_connection_the_agents() {
        use TcpState::{CloseWait, Established, FinWait1, FinWait2, LastAck, SynReceived};
        let listener = socket(1, TcpState::Listen, "0.0.0.0:8080", "0.0.0.0:0");
        for state in [
            SynReceived,
            Established,
            CloseWait,
            FinWait1,
            FinWait2,
            LastAck,
        ] {
            for (local, remote) in [
                ("10.0.0.1:8080", "10.0.0.2:15008"),
                ("[fd00::1]:8080", "[fd00::2]:15008"),
                ("10.0.0.1:8080", "10.0.0.2:15001"),
                ("10.0.0.1:15001", "10.0.0.2:15008"),
            ] {
                let ports = passed(&[listener.clone(), socket(0, state, local, remote)]);
                assert_eq!(ports.len(), 1, "{state:?} {local} {remote}");
            }
        }
    }

    #[test]
    fn a_process_of_the_pod_cannot_hide_behind_the_agents_ports() {
        use TcpState::{Established, FinWait1, Listen, SynReceived};
        let listener = socket(1, Listen, "0.0.0.0:15008", "0.0.0.0:0");
        let sockets = [
            socket(1, Established, "10.0.0.1:15001", "10.0.0.2:1"),
            socket(1, Established, "10.0.0.1:40000", "10.0.0.2:15008"),
            socket(0, Established, "10.0.0.1:15008", "10.0.0.2:2"),
            // Closed by a process that listened there before the pod was enrolled.
            socket(0, FinWait1, "10.0.0.1:15008", "10.0.0.2:3"),
            socket(0, SynReceived, "10.0.0.1:15001", "10.0.0.2:4"),
        ];
        let ports = |sockets: &[TcpSocket]| -> Vec<u16> {
            passed(sockets).into_iter().map(|(port, _)| port).collect()
        };
        assert_eq!(ports(&sockets), [1, 15008, 2, 3, 4]);
        // While a process listens there, a half-open connection may be its own.
        let half_open = socket(0, SynReceived, "10.0.0.1:15008", "10.0.0.2:5");
        assert_eq!(ports(&[listener, half_open]), [5]);
    }
}
