//! Lists and closes the TCP sockets of a network namespace (`sock_diag(7)`). libc does not have the
//! structures and numbers of `linux/inet_diag.h` and `linux/sock_diag.h`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

use ambit_common::SocketCookie;
use nix::sys::socket::SockProtocol;

use crate::kernel::netlink::{Netlink, ReplyMode, malformed, word};
use crate::kernel::netns::{NetnsError, NetnsHandle};
use crate::sockets::marks::AgentSockets;

/// Why sockets could not be listed or closed.
#[derive(Debug, thiserror::Error)]
pub enum DiagError {
    /// The namespace could not be used.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Listing failed.
    #[error(
        "the TCP sockets of a network namespace could not be listed, which needs INET_TCP_DIAG in \
         the kernel: {0}"
    )]
    List(#[source] io::Error),
    /// Closing failed.
    #[error(
        "the connection {local} - {remote} could not be closed, which needs INET_DIAG_DESTROY in \
         the kernel and CAP_NET_ADMIN: {source}"
    )]
    Destroy {
        /// Its address on this side.
        local: SocketAddr,
        /// Its peer.
        remote: SocketAddr,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// The state of a TCP socket (RFC 9293, section 3.3.2), numbered as the kernel does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum TcpState {
    Established = 1,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Closed,
    CloseWait,
    LastAck,
    Listen,
    Closing,
}

impl TcpState {
    const ALL: [Self; 11] = [
        Self::Established,
        Self::SynSent,
        Self::SynReceived,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Closed,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
    ];

    fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&state| state as u8 == number)
    }

    /// Returns the bits of `states`, as a request names them.
    fn bits(states: &[Self]) -> u32 {
        states
            .iter()
            .fold(0, |bits, &state| bits | 1 << state as u32)
    }
}

/// Who made a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SocketOwner {
    /// The agent, by the kernel's mark.
    Agent,
    /// Another process. Also if the kernel was not asked, or has no mark yet: a handshake that its server has
    /// not completed has none.
    Other,
}

/// A TCP socket of a network namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TcpSocket {
    /// Its own address, canonical.
    pub local: SocketAddr,
    /// Its peer's address, canonical; unspecified for a listener.
    pub remote: SocketAddr,
    /// Its state.
    pub state: TcpState,
    /// The inode of its file; 0 while no process has it, as before accept() and after close().
    pub inode: u32,
    /// Its cookie.
    pub cookie: SocketCookie,
    /// The user id of its owner.
    pub uid: u32,
    /// Who made it.
    pub owner: SocketOwner,
    /// The key by which the kernel finds it.
    key: SocketKey,
}

/// A listening TCP socket of a network namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listener {
    /// Its address, canonical.
    pub local: SocketAddr,
    /// The index of the device that it is bound to, or 0.
    pub device: u32,
    /// Whether it takes connections to addresses of others (IP_TRANSPARENT).
    pub transparent: bool,
}

#[cfg(test)]
impl TcpSocket {
    /// Makes a socket that the kernel does not have.
    pub(crate) fn for_test(
        local: SocketAddr,
        remote: SocketAddr,
        state: TcpState,
        inode: u32,
        owner: SocketOwner,
    ) -> Self {
        let key = SocketKey {
            family: 0,
            id: [0; SOCKET_ID],
        };
        Self {
            local,
            remote,
            state,
            inode,
            cookie: SocketCookie(0),
            uid: 0,
            owner,
            key,
        }
    }
}

/// AF_INET or AF_INET6, and the `struct inet_diag_sockid` that the kernel gave.
#[derive(Clone, PartialEq, Eq, Debug)]
struct SocketKey {
    family: u8,
    id: [u8; SOCKET_ID],
}

impl SocketKey {
    /// The key of a connection whose cookie is not known (`INET_DIAG_NOCOOKIE`).
    fn of(local: SocketAddr, remote: SocketAddr) -> Self {
        let mut id = [0; SOCKET_ID];
        id[..2].copy_from_slice(&local.port().to_be_bytes());
        id[2..4].copy_from_slice(&remote.port().to_be_bytes());
        for (at, address) in [(4, local.ip()), (20, remote.ip())] {
            match address {
                IpAddr::V4(v4) => id[at..at + 4].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => id[at..at + 16].copy_from_slice(&v6.octets()),
            }
        }
        id[40..].fill(0xff);
        let family = if local.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        Self {
            family: family as u8,
            id,
        }
    }
}

/// `struct inet_diag_sockid`: two ports, two addresses of 16 bytes, an interface and a cookie.
const SOCKET_ID: usize = 48;
/// Where the interface is in it.
const DEVICE_AT: usize = 36;
/// `struct inet_diag_msg` up to its attributes.
const SOCKET_MESSAGE: usize = 72;
/// `SOCK_DIAG_BY_FAMILY`.
const DIAG_BY_FAMILY: u16 = 20;
/// `SOCK_DESTROY` (Linux 4.5).
const DESTROY: u16 = 21;
/// `INET_DIAG_REQ_SK_BPF_STORAGES` (Linux 5.6): which storages the answer has to include.
const WANTED_STORAGES: u16 = 2;
/// `SK_DIAG_BPF_STORAGE_REQ_MAP_FD`, within it.
const MAP_FD: u16 = 1;
/// `INET_DIAG_SK_BPF_STORAGES`: the storages of a socket.
const STORAGES: u16 = 20;
/// `SK_DIAG_BPF_STORAGE`, within it.
const STORAGE: u16 = 1;
/// `INET_DIAG_SOCKOPT` (Linux 5.10): a socket's options, as bits of `struct inet_diag_sockopt`.
const OPTIONS: u16 = 22;
/// The bit `transparent` of its first byte, which the compiler of the kernel counts from the machine's low end.
const TRANSPARENT: u8 = if cfg!(target_endian = "little") {
    1 << 5
} else {
    1 << 2
};
/// The bits of an attribute's type that are not flags.
const ATTRIBUTE_TYPE: u16 = libc::NLA_TYPE_MASK as u16;
/// Length of an attribute's header.
const ATTRIBUTE_HEADER: usize = size_of::<libc::nlattr>();

/// Lists and closes the sockets of one network namespace.
#[derive(Debug)]
pub(crate) struct SockDiag(Netlink);

impl SockDiag {
    /// Opens a netlink socket inside `netns`.
    ///
    /// # Errors
    /// [`DiagError`] if the namespace cannot be entered, or the socket cannot be made.
    pub(crate) fn open(netns: &NetnsHandle) -> Result<Self, DiagError> {
        let open = || Netlink::open(SockProtocol::NetlinkSockDiag);
        netns.enter(open)?.map(Self).map_err(DiagError::List)
    }

    /// Lists all TCP sockets, of both IP versions and in all states. [`TcpSocket::owner`] is not queried.
    ///
    /// # Errors
    /// [`DiagError::List`]: an incomplete list is never returned.
    pub(crate) fn list(&mut self) -> Result<Vec<TcpSocket>, DiagError> {
        self.dump(&[])
    }

    /// Lists all TCP sockets with their owners.
    ///
    /// # Errors
    /// As [`SockDiag::list`]; also without CAP_BPF.
    pub(crate) fn list_with_owners(
        &mut self,
        agents: &AgentSockets,
    ) -> Result<Vec<TcpSocket>, DiagError> {
        let map = agents.map().as_raw_fd().to_ne_bytes();
        self.dump(&attribute(WANTED_STORAGES, &attribute(MAP_FD, &map)))
    }

    /// Finds the socket of a connection. If there is none, the kernel may find the listener instead.
    ///
    /// # Errors
    /// [`DiagError::List`].
    pub(crate) fn find(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<TcpSocket>, DiagError> {
        let mut found = None;
        let receive = |payload: &[u8]| {
            found = Some(decode(payload)?);
            Ok(())
        };
        let request = encode(&SocketKey::of(local, remote), &TcpState::ALL);
        let answer = ReplyMode::Acknowledgement;
        match self.0.request(DIAG_BY_FAMILY, answer, &request, receive) {
            Ok(()) => Ok(found),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(DiagError::List(error)),
        }
    }

    /// Lists the listening TCP sockets of both IP versions, if there are not more than `most`. The kernel does not
    /// look at other sockets. After an error, the socket must not be used again.
    ///
    /// # Errors
    /// As [`SockDiag::list`]; also if there are more.
    pub(crate) fn listeners(&mut self, most: usize) -> Result<Vec<Listener>, DiagError> {
        let mut listeners = Vec::new();
        self.request(&[TcpState::Listen], &[], |payload| {
            if listeners.len() == most {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            listeners.push(decode_listener(payload)?);
            Ok(())
        })?;
        Ok(listeners)
    }

    fn dump(&mut self, attributes: &[u8]) -> Result<Vec<TcpSocket>, DiagError> {
        let mut sockets = Vec::new();
        self.request(&TcpState::ALL, attributes, |payload| {
            sockets.push(decode(payload)?);
            Ok(())
        })?;
        Ok(sockets)
    }

    /// Requests the sockets of both IP versions in some states, one after the other.
    fn request(
        &mut self,
        states: &[TcpState],
        attributes: &[u8],
        mut receive: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), DiagError> {
        for family in [libc::AF_INET, libc::AF_INET6] {
            let key = SocketKey {
                family: family as u8,
                id: [0; SOCKET_ID],
            };
            let request = [&encode(&key, states)[..], attributes].concat();
            self.0
                .request(DIAG_BY_FAMILY, ReplyMode::Dump, &request, &mut receive)
                .map_err(DiagError::List)?;
        }
        Ok(())
    }

    /// Closes a socket. Its owner gets ECONNABORTED, its peer a reset. It is not an error if the socket is
    /// already gone. The cookie protects a later socket with the same addresses.
    ///
    /// # Errors
    /// [`DiagError::Destroy`] without CAP_NET_ADMIN, on a kernel without INET_DIAG_DESTROY, or for
    /// a socket in TIME_WAIT.
    pub(crate) fn destroy(&mut self, socket: &TcpSocket) -> Result<(), DiagError> {
        let request = encode(&socket.key, &TcpState::ALL);
        let ignore = |_: &[u8]| Ok(());
        match self
            .0
            .request(DESTROY, ReplyMode::Acknowledgement, &request, ignore)
        {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(DiagError::Destroy {
                local: socket.local,
                remote: socket.remote,
                source: error,
            }),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Encodes a `struct inet_diag_req_v2`.
fn encode(key: &SocketKey, states: &[TcpState]) -> Vec<u8> {
    let (extensions, padding) = (0, 0);
    let mut request = vec![key.family, libc::IPPROTO_TCP as u8, extensions, padding];
    request.extend(TcpState::bits(states).to_ne_bytes());
    request.extend(key.id);
    request
}

/// Encodes an attribute, padded to a multiple of four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (ATTRIBUTE_HEADER + value.len()) as u16;
    let mut attribute = Vec::from(length.to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// Returns the value of the first attribute of a kind.
fn find_attribute(mut attributes: &[u8], kind: u16) -> io::Result<Option<&[u8]>> {
    let cut = || malformed("an attribute is cut off");
    while !attributes.is_empty() {
        let header = word(attributes, 0)?.to_ne_bytes();
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let found = u16::from_ne_bytes([header[2], header[3]]) & ATTRIBUTE_TYPE;
        let value = attributes.get(ATTRIBUTE_HEADER..length).ok_or_else(cut)?;
        if found == kind {
            return Ok(Some(value));
        }
        let aligned = length.next_multiple_of(4).min(attributes.len());
        attributes = &attributes[aligned..];
    }
    Ok(None)
}

/// Returns the owner of a socket by the attributes that follow it. Only [`AgentSockets`] was requested, so any
/// storage is a mark.
fn owner(attributes: &[u8]) -> io::Result<SocketOwner> {
    let Some(storages) = find_attribute(attributes, STORAGES)? else {
        return Ok(SocketOwner::Other);
    };
    Ok(match find_attribute(storages, STORAGE)? {
        Some(_) => SocketOwner::Agent,
        None => SocketOwner::Other,
    })
}

/// Decodes a `struct inet_diag_msg` and its attributes.
fn decode(message: &[u8]) -> io::Result<TcpSocket> {
    let fixed = message.first_chunk::<SOCKET_MESSAGE>();
    let fixed = fixed.ok_or_else(|| malformed("a socket is cut off"))?;
    let [family, state, ..] = *fixed;
    let id = fixed[4..].first_chunk::<SOCKET_ID>();
    let id = *id.ok_or_else(|| malformed("a socket is cut off"))?;
    let state = TcpState::from_u8(state).ok_or_else(|| malformed("an unknown TCP state"))?;
    Ok(TcpSocket {
        local: endpoint(family, &id, 4, 0)?,
        remote: endpoint(family, &id, 20, 2)?,
        state,
        inode: word(fixed, 68)?,
        cookie: SocketCookie(u64::from(word(&id, 40)?) | u64::from(word(&id, 44)?) << 32),
        uid: word(fixed, 64)?,
        owner: owner(&message[SOCKET_MESSAGE..])?,
        key: SocketKey { family, id },
    })
}

/// Decodes a listener. One whose options the kernel does not tell counts as transparent.
fn decode_listener(message: &[u8]) -> io::Result<Listener> {
    let socket = decode(message)?;
    let options = find_attribute(&message[SOCKET_MESSAGE..], OPTIONS)?;
    Ok(Listener {
        local: socket.local,
        device: word(&socket.key.id, DEVICE_AT)?,
        transparent: options
            .and_then(<[u8]>::first)
            .is_none_or(|bits| bits & TRANSPARENT != 0),
    })
}

fn endpoint(
    family: u8,
    id: &[u8; SOCKET_ID],
    address_at: usize,
    port_at: usize,
) -> io::Result<SocketAddr> {
    let cut = || malformed("an address is cut off");
    let address = id.get(address_at..).ok_or_else(cut)?;
    let ip = match i32::from(family) {
        libc::AF_INET => Ipv4Addr::from(*address.first_chunk::<4>().ok_or_else(cut)?).into(),
        libc::AF_INET6 => {
            IpAddr::from(*address.first_chunk::<16>().ok_or_else(cut)?).to_canonical()
        }
        _ => return Err(malformed("an unknown address family")),
    };
    let port = id
        .get(port_at..)
        .and_then(<[u8]>::first_chunk)
        .ok_or_else(cut)?;
    Ok(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests;
