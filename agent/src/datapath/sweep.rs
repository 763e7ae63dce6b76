//! Closes connections of a pod that no proxy carries and that must not go on.

use std::net::{IpAddr, SocketAddr};

use super::agent_sockets::AgentSockets;
use super::enrolment::EnrolledPod;
use super::netns::NetnsError;
use super::passed::{Direction, PassedConnection, PodSockets};
use super::sock_diag::{DiagError, SockDiag};

/// Why a pod's connections could not be swept.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The pod's sockets could not be listed or closed.
    #[error(transparent)]
    Diag(#[from] DiagError),
    /// The pod's network namespace could not be read.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// What decides whether a connection that no proxy carries may go on.
pub trait PassedRules {
    /// Whether a pod's own connection to `peer` may go on in plaintext.
    fn may_leave(&self, peer: IpAddr) -> bool;

    /// Whether a plaintext connection from `source` to the pod may go on.
    fn may_enter(&self, source: SocketAddr, destination: SocketAddr) -> bool;
}

/// Closes what the rules do not let go on; says how many that were.
///
/// # Errors
/// [`SweepError`]; some connections may be closed by then.
pub fn close_passed(
    pod: &EnrolledPod,
    agents: &AgentSockets,
    addresses: &[IpAddr],
    rules: &impl PassedRules,
) -> Result<usize, SweepError> {
    let mut diag = SockDiag::open(pod.netns())?;
    let sockets = diag.list_with_owners(agents)?;
    let passed = PodSockets {
        sockets: &sockets,
        addresses,
        ephemeral: pod.netns().ephemeral_ports()?,
    }
    .kernel_passed();
    let mut closed = 0;
    for connection in passed
        .iter()
        .filter(|connection| !may_go_on(connection, rules))
    {
        diag.destroy(&connection.socket)?;
        closed += 1;
    }
    Ok(closed)
}

fn may_go_on(connection: &PassedConnection, rules: &impl PassedRules) -> bool {
    let socket = &connection.socket;
    match connection.direction {
        Direction::Outbound => rules.may_leave(socket.remote.ip()),
        Direction::Inbound => rules.may_enter(socket.remote, socket.local),
    }
}
