//! Closes connections of a pod that no proxy carries and that are not allowed to go on.

pub(crate) mod passed;

use std::net::IpAddr;

use ambit_model::{ApplicationAddress, CallerAddress, Direction};

use crate::kernel::netns::NetnsError;
use crate::pod::enrolment::EnrolledPod;
use crate::sockets::marks::AgentSockets;
use crate::sockets::sock_diag::{DiagError, SockDiag, SocketOwner};
use crate::sweep::passed::{PassedConnection, PodSockets, is_connection};

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

/// Decides whether a connection that no proxy carries may go on.
pub trait PassedRules {
    /// Whether a pod's own connection to `peer` may go on in plaintext.
    fn may_leave(&self, peer: IpAddr) -> bool;

    /// Whether a plaintext connection from `caller` to the pod may go on.
    fn may_enter(&self, caller: CallerAddress, called: ApplicationAddress) -> bool;
}

/// Closes the connections that the rules do not let go on. Returns their number.
///
/// # Errors
/// [`SweepError`]. Some connections may have been closed by then.
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

/// Resets the agent's own connections in a network namespace that it no longer serves.
///
/// The proxy has closed them by then. But if the peer cannot be reached, it does not acknowledge that, and the
/// socket keeps the namespace alive until the kernel gives up.
///
/// # Errors
/// [`SweepError`]. Some connections may have been reset by then.
pub fn reset_agents(pod: &EnrolledPod, agents: &AgentSockets) -> Result<(), SweepError> {
    let mut diag = SockDiag::open(pod.netns())?;
    let sockets = diag.list_with_owners(agents)?;
    let connections = sockets
        .iter()
        .filter(|socket| socket.owner == SocketOwner::Agent && is_connection(socket));
    for socket in connections {
        diag.destroy(socket)?;
    }
    Ok(())
}

fn may_go_on(connection: &PassedConnection, rules: &impl PassedRules) -> bool {
    let socket = &connection.socket;
    match connection.direction {
        Direction::Outbound => rules.may_leave(socket.remote.ip()),
        Direction::Inbound => rules.may_enter(
            CallerAddress(socket.remote),
            ApplicationAddress(socket.local),
        ),
    }
}
